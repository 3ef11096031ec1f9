"""Logs are events on stderr without secrets; metrics are declared once; health answers probes."""

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core import telemetry
from tidemill_core.errors import PermanentError, ServiceError
from tidemill_core.telemetry import configure_logging, get_logger, metrics
from tidemill_core.telemetry.health import HealthServer
from tidemill_core.telemetry.redact import is_secret_name, redact


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = kept
    telemetry._Setup.format, telemetry._Setup.level = None, logging.INFO
    telemetry._Setup.generation += 1


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_an_event_is_one_json_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format="json")

    get_logger("tidemill.test", job="load").info("batch_written", rows=3, text="a\nb")

    (event,) = events(capsys)
    assert event.pop("timestamp")
    assert event == {
        "event": "batch_written",
        "level": "info",
        "logger": "tidemill.test",
        "job": "load",
        "rows": 3,
        "text": "a\nb",
    }


def test_bound_fields_are_in_every_event_of_that_logger_only(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format="json")
    log = get_logger("x")
    bound = log.bind(run="r1")

    log.info("one")
    bound.info("two")

    assert [event.get("run") for event in events(capsys)] == [None, "r1"]


@pytest.mark.parametrize(
    ("verbosity", "form", "shown"),
    [
        (0, "json", ["info", "warning", "error"]),
        (1, "json", ["info", "warning", "error"]),
        (2, "json", ["debug", "info", "warning", "error"]),
        (0, "console", ["warning", "error"]),
        (1, "console", ["info", "warning", "error"]),
        (2, "console", ["debug", "info", "warning", "error"]),
    ],
)
def test_verbosity_chooses_what_is_shown(
    verbosity: int, form: str, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(verbosity, form)
    log = get_logger("x")

    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)(f"at_{level}")

    told = capsys.readouterr().err
    assert [level for level in ("debug", "info", "warning", "error") if f"at_{level}" in told] == shown


def test_a_logger_made_before_the_setup_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    log = get_logger("x")
    log.info("before")

    configure_logging(0, "console")
    log.info("hidden")
    log.warning("shown", rows=1)

    told = capsys.readouterr().err
    assert "hidden" not in told
    assert "shown" in told
    assert "rows=1" in told


def test_exceptions_carry_their_traceback_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format="json")

    try:
        raise OSError("postgresql://me:hush@db refused")
    except OSError:
        get_logger("x").exception("failed")

    (event,) = events(capsys)
    assert "Traceback" in str(event["exception"])
    assert "me:***@db" in str(event["exception"])
    assert "hush" not in str(event)


def test_logs_of_other_libraries_are_written_alike(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format="json")

    logging.getLogger("urllib3").warning("retrying %s 100%%", "postgresql://me:hush@db")
    logging.getLogger("urllib3").info("hidden")

    (event,) = events(capsys)
    assert (event["logger"], event["level"]) == ("urllib3", "warning")
    assert event["event"] == "retrying postgresql://me:***@db 100%"


def test_an_application_with_its_own_structlog_gets_our_events() -> None:
    program = (
        "import structlog\n"
        "structlog.configure(processors=[structlog.processors.KeyValueRenderer(sort_keys=True)])\n"
        "from tidemill_core.telemetry import get_logger\n"
        "get_logger('x').info('hello', rows=1)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "event='hello' logger='x' rows=1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:p@ss:word@db:5432/x?a=b", "postgresql://me:***@db:5432/x?a=b"),
        ("two postgresql://a:b@c and s3://d:e@f", "two postgresql://a:***@c and s3://d:***@f"),
        ("host=db password=hush user=me", "host=db password=*** user=me"),
        ("password='hu sh' x=1", "password=*** x=1"),
        ("https://b/k?X-Amz-Signature=abc&x=1", "https://b/k?X-Amz-Signature=***&x=1"),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer ***"),
        ("nothing to hide: http://h:8080/p@th?q=1", "nothing to hide: http://h:8080/p@th?q=1"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(secret=st.text("abcdefghijklmnopqrstuvwxyz0123456789!$*()+-._~%", min_size=8, max_size=30))
def test_no_password_survives_in_a_url_or_a_dsn(secret: str) -> None:
    assert f":{secret}@" not in redact(f"x postgresql://user:{secret}@host:5432/db y")
    assert f"={secret} " not in redact(f"password={secret} host=h")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("pg_password", True),
        ("api_key", True),
        ("x-api-key", True),
        ("secret_access_key", True),
        ("Authorization", True),
        ("access_key_id", False),
        ("key", False),
        ("tokens", False),
        ("primary_key", False),
    ],
)
def test_field_names_tell_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_secret_fields_are_masked_at_any_depth(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(format="json")

    get_logger("x").info(
        "e", password="hush", options={"s3": [{"secret_key": "hush"}]}, error=OSError("a://b:hush@c"), none_token=None
    )

    (event,) = events(capsys)
    assert "hush" not in json.dumps(event)
    assert event["options"] == {"s3": [{"secret_key": "***"}]}


def test_a_metric_declared_twice_is_one_metric() -> None:
    first = metrics.counter("tidemill_test_twice_total", "Doc.", ("table",))
    second = metrics.counter("tidemill_test_twice_total", "Doc.", ("table",))

    first.labels(table="a").inc()
    second.labels(table="a").inc(2)

    assert b'tidemill_test_twice_total{table="a"} 3.0' in metrics.render()


def test_a_metric_name_cannot_mean_two_things() -> None:
    metrics.gauge("tidemill_test_gauge", "Doc.")

    with pytest.raises(PermanentError, match="already a gauge"):
        metrics.counter("tidemill_test_gauge", "Doc.")
    with pytest.raises(PermanentError, match="already a gauge"):
        metrics.gauge("tidemill_test_gauge", "Doc.", ("x",))


def test_kinds_of_metrics_are_rendered_even_before_their_first_use() -> None:
    metrics.counter("tidemill_test_unused_total", "Never counted.")
    metrics.gauge("tidemill_test_level", "A level.").set(4)
    metrics.histogram("tidemill_test_seconds", "Seconds.", buckets=(1, 5)).observe(3)

    text = metrics.render().decode()

    assert "tidemill_test_unused_total 0.0" in text
    assert "tidemill_test_level 4.0" in text
    assert 'tidemill_test_seconds_bucket{le="5.0"} 1.0' in text


def test_labels_beyond_the_bound_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    metric = metrics.counter("tidemill_test_bounded_total", "Doc.", ("key",))

    for key in range(10):
        metric.labels(key=key).inc()

    lines = [line for line in metrics.render().decode().splitlines() if line.startswith("tidemill_test_bounded_total{")]
    assert len(lines) == 4
    assert 'tidemill_test_bounded_total{key="other"} 7.0' in lines


def test_threads_may_declare_and_count_at_once() -> None:
    def work() -> None:
        for _ in range(200):
            metrics.counter("tidemill_test_threads_total", "Doc.", ("t",)).labels(t="x").inc()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert b'tidemill_test_threads_total{t="x"} 1600.0' in metrics.render()


def test_health_answers_probes_scrapes_and_status() -> None:
    state = {"postgres": "cannot reach postgresql://me:hush@db"}
    with HealthServer(
        checks={"postgres": lambda: state.get("postgres"), "kafka": lambda: None},
        status=lambda: {"lag_messages": 3},
    ) as health:
        unready = httpx.get(f"{health.url}/readyz")
        state.clear()
        ready = httpx.get(f"{health.url}/readyz?verbose=1")
        live = httpx.get(f"{health.url}/livez")
        scrape = httpx.get(f"{health.url}/metrics")
        status = httpx.get(f"{health.url}/status")
        missing = httpx.get(f"{health.url}/nothing")
        head = httpx.head(f"{health.url}/livez")

    assert (unready.status_code, unready.json()["checks"]) == (
        503,
        {"postgres": "cannot reach postgresql://me:***@db", "kafka": "ok"},
    )
    assert (ready.status_code, ready.json()["ok"]) == (200, True)
    assert (live.status_code, live.json()) == (200, {"ok": True, "checks": {}})
    assert scrape.headers["content-type"] == metrics.CONTENT_TYPE
    assert "# HELP" in scrape.text
    assert status.json() == {"lag_messages": 3}
    assert (missing.status_code, "/readyz" in missing.text) == (404, True)
    assert (head.status_code, head.content) == (200, b"")


def test_a_check_or_status_that_raises_is_an_answer() -> None:
    with HealthServer(
        checks={"broken": lambda: str(1 / 0)}, live={"loop": lambda: "stuck"}, status=lambda: {"x": 1 / 0}
    ) as health:
        ready = httpx.get(f"{health.url}/readyz")
        live = httpx.get(f"{health.url}/livez")
        status = httpx.get(f"{health.url}/status")

    assert (ready.status_code, "ZeroDivisionError" in ready.text) == (503, True)
    assert (live.status_code, live.json()["checks"]) == (503, {"loop": "stuck"})
    assert status.status_code == 500


def test_a_taken_port_is_told_and_stopping_twice_is_no_error() -> None:
    first = HealthServer().start()
    try:
        with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1:{first.port}"):
            HealthServer(port=first.port).start()
    finally:
        first.stop()
        first.stop()


def test_a_stopped_server_starts_again_on_its_port() -> None:
    health = HealthServer().start()
    port = health.port
    health.stop()

    with health:
        assert health.port == port
        assert httpx.get(f"{health.url}/livez").status_code == 200
