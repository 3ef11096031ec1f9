"""Streams in parts (values, rows of a parent, windows of time), read from a real server into both stores."""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from threading import Event, Thread
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tidemill_ingest_api.config import SourceConfig, StreamConfig, WindowConfig
from tidemill_ingest_api.errors import PartitionsFailed, UnknownPartition, WindowFull
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import Part, run_source, run_stream, table_spec
from tidemill_ingest_api.fetching.partitions import first_window, windows
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.stores.query import Select, parse_order

DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Forge:
    """Repositories with issues, organizations with repositories, and a search that gives at most `cap` events."""

    def __init__(self, cap=5) -> None:
        self.issues = {f"o/r{r}": [(r * 10 + i, f"2026-01-0{i + 1}T00:00:00Z") for i in range(4)] for r in range(3)}
        self.orgs = {1: ["a", "b"], 2: [], 3: ["c"]}
        self.events = [DAY + timedelta(minutes=7 * i) for i in range(200)]
        self.cap, self.seen, self.hold = cap, [], None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.server.daemon_threads = True
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.base_url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path):
        url = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        if parts[0] == "repos":
            repo = "/".join(map(unquote, parts[1:-1]))
            if repo not in self.issues:
                return 404, {"message": "gone"}
            rows = [{"id": i, "at": at} for i, at in self.issues[repo] if at >= query.get("since", "")]
            start = int(query.get("page", "1")) - 1
            return 200, {"pages": -(-len(rows) // 2), "data": rows[start * 2 : start * 2 + 2]}
        if parts[0] == "orgs" and len(parts) == 1:
            return 200, {"data": [{"id": i, "name": f"org {i}/x"} for i in self.orgs]}
        if parts[0] == "orgs":
            org = next((i for i in self.orgs if f"org {i}/x" == unquote(parts[1])), None)
            return (200, {"data": [{"name": n} for n in self.orgs[org]]}) if org else (404, {})
        start, end = (datetime.fromisoformat(query[name]) for name in ("from", "to"))
        found = [at for at in self.events if start <= at < end]
        rows = [{"id": self.events.index(at), "at": at.isoformat()} for at in found[: self.cap]]
        return 200, {"data": rows}

    def handler(self):
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                forge.seen.append(self.path)
                if forge.hold and forge.hold[0] == len(forge.seen):
                    forge.hold[1].set()
                    forge.hold[2].wait(60)
                status, value = forge.answer(self.path)
                body = json.dumps(value).encode()
                etag = f'"{hash(body)}"'
                if self.headers.get("if-none-match") == etag:
                    status, body = 304, b""
                self.send_response(status)
                self.send_header("etag", etag)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Stay silent."""

        return Handler

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def forge():
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request, tmp_path):
    return f"sqlite:///{tmp_path}/i.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def store(store_url):
    store = open_store(store_url)
    yield store
    store.close()


ISSUES = {
    "name": "issues",
    "path": "/repos/{repo}/issues",
    "params": {"since": "{cursor}"},
    "partitions": {"repo": ["o/r0", "o/r1", "o/r2"]},
    "records": "data",
    "paginate": {"type": "page", "total_pages": "pages"},
    "conditional": "etag",
    "cursor": {"field": "at"},
    "primary_key": ["id"],
    "fields": {"id": "int64", "at": "timestamp", "repo": {"path": "_partition.repo", "type": "string"}},
}
ORGS = {
    "name": "orgs",
    "path": "/orgs",
    "records": "data",
    "primary_key": ["id"],
    "fields": {"id": "int64", "name": "string"},
}
REPOS = {
    "name": "repos",
    "path": "/orgs/{parent.name}/repos",
    "parent": {"stream": "orgs"},
    "records": "data",
    "conditional": "etag",
    "primary_key": ["org", "name"],
    "fields": {"org": {"path": "_parent.id", "type": "int64"}, "name": "string"},
}
EVENTS = {
    "name": "events",
    "path": "/search",
    "params": {"from": "{window.start}", "to": "{window.end}"},
    "window": {"start": "2026-01-01", "end": "2026-01-02", "step": "6h", "full": 5},
    "records": "data",
    "primary_key": ["id"],
    "fields": {"id": "int64", "at": "timestamp"},
}


def source_of(base_url, *streams):
    http = {"retry": {"attempts": 2, "delay_s": 0}}
    return SourceConfig.model_validate({"source": "forge", "base_url": base_url, "http": http, "streams": streams})


def fetch(forge, store, *streams, part=None):
    source = source_of(forge.base_url, *streams)
    client = Client(source, forge.base_url)
    try:
        return run_source(source, store, client, part=part or Part())
    finally:
        client.close()


def rows(forge, store, *streams, name=None):
    source = source_of(forge.base_url, *streams)
    stream = source.stream(name or streams[0]["name"])
    select = Select(order=parse_order(stream, None), limit=10_000)
    return [orjson.loads(doc) for doc in store.select(table_spec(source, stream), select)]


def test_every_value_is_read_and_its_records_say_where_they_came_from(forge, store):
    (report,) = fetch(forge, store, ISSUES)

    expected = [(i, repo) for repo, found in forge.issues.items() for i, _ in found]
    assert sorted(expected) == [(row["id"], row["repo"]) for row in rows(forge, store, ISSUES)]
    assert (3, 12) == (report.partitions, report.rows)


def test_each_partition_asks_from_its_own_cursor_and_skips_its_own_pages(forge, store):
    fetch(forge, store, ISSUES)
    forge.issues["o/r1"] += [(99, "2026-03-01T00:00:00Z")]
    fetch(forge, store, ISSUES)
    forge.seen.clear()
    (third,) = fetch(forge, store, ISSUES)

    since = {path.split("/")[3]: parse_qs(urlsplit(path).query)["since"] for path in forge.seen}
    old = ["2026-01-04T00:00:00Z"]
    assert {"r0": old, "r1": ["2026-03-01T00:00:00Z"], "r2": old} == since
    assert third.is_unchanged
    assert third.not_modified >= 2


def test_one_partition_is_read_alone_and_the_others_stay_as_they_are(forge, store):
    fetch(forge, store, ISSUES)
    forge.seen.clear()
    (report,) = fetch(forge, store, ISSUES, part=Part(only={"repo": "o/r2"}))

    assert 1 == report.partitions
    assert all("/r2/" in path for path in forge.seen)
    for wrong in ({"repo": "o/r9"}, {"place": "x"}):
        with pytest.raises(UnknownPartition):
            fetch(forge, store, ISSUES, part=Part(only=wrong))


def test_a_partition_that_the_api_refuses_fails_the_run_after_all_others_were_read(forge, store):
    del forge.issues["o/r0"]
    with pytest.raises(PartitionsFailed, match=r"1 partitions.*o/r0.*404"):
        fetch(forge, store, ISSUES)

    assert {"o/r1", "o/r2"} == {row["repo"] for row in rows(forge, store, ISSUES)}


def test_a_version_of_the_table_grows_with_every_partition(forge, store):
    source = source_of(forge.base_url, ISSUES)
    spec = table_spec(source, source.streams[0])
    versions = []
    for repo in ISSUES["partitions"]["repo"]:
        fetch(forge, store, ISSUES, part=Part(only={"repo": repo}))
        versions.append(store.version(spec))

    assert sorted(set(versions)) == versions


def test_children_are_read_for_every_row_of_their_parent_whatever_order_they_are_declared_in(forge, store):
    reports = fetch(forge, store, REPOS, ORGS)

    found = [(row["org"], row["name"]) for row in rows(forge, store, REPOS, ORGS)]
    assert [(1, "a"), (1, "b"), (3, "c")] == found
    assert ["orgs", "repos"] == [report.stream for report in reports]
    assert 3 == reports[1].partitions
    assert "/orgs/org%201%2Fx/repos" in forge.seen


def test_new_parents_bring_new_children_and_old_ones_are_skipped_by_their_etags(forge, store):
    fetch(forge, store, ORGS, REPOS)
    forge.orgs[4] = ["d"]
    reports = fetch(forge, store, ORGS, REPOS)

    assert (3, 1, 4) == (reports[1].not_modified, reports[1].inserted, reports[1].partitions)


@pytest.mark.parametrize("name", ["../admin", "..", ".", "a/b?x=1#y", "%2e%2e"])
def test_a_parents_value_cannot_lead_to_another_path(forge, tmp_path, name):
    forge.answer = lambda path: (200, {"data": [{"id": 1, "name": name}] if path == "/orgs" else []})
    store = open_store(f"sqlite:///{tmp_path}/p.db")
    fetch(forge, store, ORGS, REPOS)
    store.close()

    path = urlsplit(forge.seen[-1]).path
    assert 4 == len(path.split("/"))
    assert path.endswith("/repos")
    assert name == unquote(path.split("/")[2])


def test_full_windows_are_split_until_nothing_is_cut_off(forge, store):
    (report,) = fetch(forge, store, EVENTS)

    inside = [i for i, at in enumerate(forge.events) if at < DAY + timedelta(days=1)]
    assert inside == [row["id"] for row in rows(forge, store, EVENTS)]
    assert report.splits >= len(inside) // forge.cap


def test_without_splitting_records_would_be_lost(forge, store):
    whole = EVENTS | {"window": {name: value for name, value in EVENTS["window"].items() if name != "full"}}
    fetch(forge, store, whole)

    assert 20 == len(rows(forge, store, whole))  # four windows, cut off at five records each


def test_a_window_that_cannot_be_split_is_an_error_and_what_was_before_it_is_kept(forge, store):
    forge.events[20:40] = [forge.events[20]] * 20
    with pytest.raises(WindowFull, match=r"cannot be split"):
        fetch(forge, store, EVENTS)
    source = source_of(forge.base_url, EVENTS)

    state = store.state(table_spec(source, source.streams[0]))
    assert datetime.fromisoformat(state.cursor) <= forge.events[20]
    assert set(range(18)) <= {row["id"] for row in rows(forge, store, EVENTS)}


def test_the_next_run_goes_on_where_the_range_was_left_minus_the_lag(forge, store):
    window = {"start": "2026-01-01", "step": "6h", "full": 5, "lag_s": 3600}
    early = EVENTS | {"window": window | {"end": "2026-01-01T12:00:00Z"}}
    fetch(forge, store, early)
    forge.seen.clear()
    fetch(forge, store, EVENTS | {"window": window | {"end": "2026-01-02T00:00:00Z"}})

    first = parse_qs(urlsplit(forge.seen[0]).query)
    assert ["2026-01-01T11:00:00Z"] == first["from"]
    inside = [i for i, at in enumerate(forge.events) if at < DAY + timedelta(days=1)]
    assert inside == [row["id"] for row in rows(forge, store, EVENTS)]


def test_a_range_is_read_again_without_changing_where_the_stream_stands(forge, store):
    fetch(forge, store, EVENTS)
    source = source_of(forge.base_url, EVENTS)
    spec = table_spec(source, source.streams[0])
    before = store.state(spec).cursor
    forge.seen.clear()
    fetch(forge, store, EVENTS, part=Part(between=(DAY, DAY + timedelta(hours=1))))

    assert before == store.state(spec).cursor
    assert all("T00%3A" in path.partition("&")[0] for path in forge.seen)


@given(
    start=st.datetimes(DAY.replace(tzinfo=None) - timedelta(days=2000), DAY.replace(tzinfo=None)),
    span_s=st.integers(0, 10**6),
    step=st.sampled_from(["90s", "7min", "5h", "3d"]),
    layout=st.sampled_from(["iso", "epoch_s", "epoch_ms"]),
)
def test_windows_cover_a_range_without_gap_and_without_overlap(start, span_s, step, layout):
    end = start + timedelta(seconds=span_s + 1)
    config = WindowConfig(start=start, end=end, step=step, format=layout)
    whole = first_window(config, None, end.replace(tzinfo=UTC))
    found = list(windows(config, whole))

    assert whole.start <= config.start
    assert whole.end >= config.end
    assert whole.start == found[0].start
    assert whole.end == found[-1].end
    assert all(one.end == other.start for one, other in pairwise(found))


@pytest.mark.chaos
@pytest.mark.parametrize("request_number", [1, 2, 4, 6, 8, 11, 14, 17])
def test_killed_at_any_request_and_run_again_every_part_is_whole(forge, store_url, tmp_path, request_number):
    config = tmp_path / "s.json"
    streams = [ORGS, REPOS, ISSUES, EVENTS]
    config.write_text(json.dumps({"source": "forge", "base_url": forge.base_url, "streams": streams}))
    main = "from tidemill_core.cli import main; main()"
    command = [sys.executable, "-c", main, "ingest", "run", str(config), "--store", store_url, "--json"]
    forge.hold = (request_number, Event(), Event())
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    assert forge.hold[1].wait(60)
    victim.send_signal(signal.SIGKILL)
    victim.wait(60)
    forge.hold[2].set()

    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert 0 == again.returncode, again.stderr
    told = {report["stream"]: report["rows"] for report in json.loads(again.stdout)}
    inside = [i for i, at in enumerate(forge.events) if at < DAY + timedelta(days=1)]
    assert {"orgs": 3, "repos": 3, "issues": 12, "events": len(inside)} == told
    store = open_store(store_url)
    assert inside == [row["id"] for row in rows(forge, store, *streams, name="events")]
    store.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "/repos/{repos}/issues"}, "replaced by nothing"),
        ({"partitions": {"repo": ["a"], "other": ["b"]}}, "stands neither in"),
        ({"partitions": {"repo": ["../admin"]}}, "another path"),
        ({"partitions": {"repo": []}}, "at least 1"),
        ({"params": {"x": "{parent.id}"}}, "replaced by nothing"),
        ({"window": {"start": "2026-01-01"}}, "neither"),
        (
            {"fields": {"id": "int64", "at": "timestamp", "x": {"path": "_partition.y", "type": "string"}}},
            "known: repo",
        ),
    ],
)
def test_placeholders_that_nothing_replaces_are_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        StreamConfig.model_validate(ISSUES | change)


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        ([REPOS], "no stream 'orgs'"),
        ([ORGS, REPOS | {"params": {"x": "{parent.nmae}"}}], "no field 'nmae'"),
        ([REPOS | {"name": "orgs"}], "its own parent"),
    ],
)
def test_parents_that_are_not_there_are_refused(streams, words):
    with pytest.raises(ValidationError, match=words):
        source_of("https://a.example", *streams)


def test_one_stream_alone_still_reports_what_it_did(forge, store):
    source = source_of(forge.base_url, ORGS)
    client = Client(source, forge.base_url)
    report = run_stream(source, source.streams[0], store, client)
    client.close()

    assert (0, 3, 1) == (report.partitions, report.rows, report.commits)
