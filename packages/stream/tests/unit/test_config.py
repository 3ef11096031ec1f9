"""Configuration: short forms, faults with file and line, and what does not fit together."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from tidemill_core.config import ConfigFaults
from tidemill_core.errors import ConfigError
from tidemill_stream.cli import stream
from tidemill_stream.config import PipelineConfig, SourceConfig
from tidemill_stream.errors import PipelineInvalid

MEMORY = [{"type": "memory"}]
GOOD = """
pipelines:
  - name: clicks
    source: {topics: clicks}
    rows: {columns: {page: string, ms: {field: timing.ms, type: integer}}}
    sinks: [{type: memory}]
"""


def config(**changes):
    return PipelineConfig.model_validate({"name": "p", "source": {"topics": "t"}, "sinks": MEMORY, **changes})


def test_short_forms_are_filled_in():
    found = config(rows={"columns": {"page": "string", "at": {"type": "timestamp", "format": "epoch_ms"}}})

    assert found.source.topics == ["t"]
    assert (found.rows.columns["page"].field, found.rows.columns["at"].format) == ("page", "epoch_ms")


@pytest.mark.parametrize(
    ("window", "fault"),
    [
        ({"type": "tumbling"}, "exactly size_s"),
        ({"type": "tumbling", "size_s": 1, "gap_s": 1}, "exactly size_s"),
        ({"type": "hopping", "size_s": 1, "hop_s": 2}, "must not exceed"),
        ({"type": "session", "size_s": 1}, "exactly gap_s"),
        ({"type": "session", "gap_s": 1, "key": ["a.x", "b.x"]}, "same column name"),
        ({"type": "session", "gap_s": 1, "aggs": {"s": {"op": "sum"}}}, "needs a field"),
    ],
)
def test_windows_that_cannot_be_are_refused(window, fault):
    with pytest.raises(ValidationError, match=fault):
        config(window={"time": {"field": "at"}, "aggs": {"n": {"op": "count"}}, **window})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"where": "nothing = 1"}, "nothing"),
        ({"where": "delay = 'x'"}, "compares 'delay'"),
        ({"sinks": [{"type": "object_store", "url": "memory://x", "rows": "r"}]}, "no sink has a dlq"),
        ({"window": None, "sinks": [{"type": "postgres", "windows_table": "w", "dlq_table": "d"}]}, "no window"),
        ({"window": {"type": "session", "gap_s": 1, "time": {"field": "at"}, "key": ["origin"], "aggs": {"origin": {"op": "count"}}}}, "named twice"),
        ({"window": {"type": "session", "gap_s": 1, "time": {"field": "at"}, "aggs": {"s": {"op": "sum", "field": "origin"}}}}, "needs a number"),
        ({"schema": {"inline": {"type": "nonsense"}}}, "cannot be used|cannot name|need columns"),
        ({"schema": {"inline": {"type": "object"}}, "where": None}, "need columns"),
        ({"schema": {"file": "missing.json"}}, "cannot be read"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_before_anything_runs(make_plan, changes, fault):
    with pytest.raises(ConfigError, match=fault):
        make_plan(**changes)


def test_a_pipeline_names_itself_in_its_faults(make_plan):
    with pytest.raises(PipelineInvalid, match="pipeline 'flights'"):
        make_plan(where="nothing = 1")


def test_validate_prints_what_a_file_makes(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)

    done = CliRunner().invoke(stream, ["validate", str(path)], catch_exceptions=False)

    assert done.output == "clicks: clicks -> rows, dlq\n"


def test_faults_name_file_and_line(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(GOOD.replace("topics: clicks", "topic: clicks") + "  - name: clicks\n")

    with pytest.raises(ConfigFaults) as raised:
        CliRunner().invoke(stream, ["validate", str(path)], catch_exceptions=False)

    assert "p.yaml:4" in str(raised.value)
    assert "did you mean 'topics'" in str(raised.value)


def test_two_pipelines_must_not_share_a_table(tmp_path):
    sink = "{type: postgres, rows_table: a.b, dlq_table: a.d}"
    one = "  - name: {0}\n    source: {{topics: t}}\n    rows: {{columns: {{a: string}}}}\n    sinks: [{1}]\n"
    path = tmp_path / "p.yaml"
    path.write_text("pipelines:\n" + one.format("x", sink) + one.format("y", sink))

    with pytest.raises(ConfigFaults, match=r"both write table a\.b"):
        CliRunner().invoke(stream, ["validate", str(path)], catch_exceptions=False)


def test_an_unknown_pipeline_is_suggested(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)

    with pytest.raises(ConfigError, match="did you mean 'clicks'"):
        CliRunner().invoke(stream, ["status", str(path), "--only", "click"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("group.id", "mine", "use `group`"),
        ("bootstrap.servers", "a:1", "use `bootstrap_servers`"),
        ("auto.offset.reset", "latest", "use `start`"),
        ("enable.auto.commit", True, "together with the outputs"),
        ("enable.auto.offset.store", True, "together with the outputs"),
        ("enable.partition.eof", False, "always reported"),
        ("sesion.timeout.ms", 1, "No such configuration property"),
        ("session.timeout.ms", "long", "Invalid value"),
        ("fetch.min.bytes", -5, "fetch.min.bytes"),
        ("security.protocol", "tls", "security.protocol"),
        ("partition.assignment.strategy", "range", "cooperative-sticky"),
    ],
)
def test_client_properties_that_are_ours_or_unknown_are_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(topics="a", properties={name: value})


def test_client_properties_that_go_together_are_taken() -> None:
    given = {"session.timeout.ms": 10_000, "fetch.wait.max.ms": 20}

    assert given == SourceConfig(topics="a", properties=given).properties
    assert SourceConfig(topics="a", properties={"group.protocol": "consumer"}).properties
    with pytest.raises(ValidationError, match=r"session\.timeout\.ms"):
        SourceConfig(topics="a", properties={"group.protocol": "consumer", "session.timeout.ms": 10_000})


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "kafka.example:9092", "127.0.0.1:1,127.0.0.1:2"])
def test_defaults_of_the_client_are_the_same_everywhere_and_the_users_own_win(servers: str) -> None:
    from tidemill_stream.kafka.source import consumer_properties

    def there(servers: str, **given: Any) -> dict[str, Any]:
        text = {
            "name": "p",
            "source": {"topics": "a", "properties": given},
            "schema": {},
            "sinks": [{"type": "memory"}],
        }
        return consumer_properties(PipelineConfig.model_validate(text), servers)

    def made(**given: Any) -> dict[str, Any]:
        return there("kafka.example:1", **given)

    own = {"fetch.wait.max.ms": 7, "fetch.queue.backoff.ms": 8, "queued.min.messages": 9}

    assert {**made(), "bootstrap.servers": ""} == {**there(servers), "bootstrap.servers": ""}
    assert 5 == made()["fetch.queue.backoff.ms"]
    assert own == {name: value for name, value in made(**own).items() if name in own}
