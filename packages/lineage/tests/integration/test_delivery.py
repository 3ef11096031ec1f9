"""Nothing is lost on the way: killed, forked, hung, refused and full, each in real processes."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tidemill_lineage import EventLog, JsonFileEmitter, OpenLineageEmitter, Tracer, load_graph
from tidemill_lineage.delivery.appending import append_lines, replace_file
from tidemill_lineage.model import Run


class Receiver:
    """An OpenLineage endpoint that is well, refuses, or hangs, as it is told."""

    def __init__(self) -> None:
        self.status, self.events = 201, list[dict[str, Any]]()
        self.release = threading.Event()
        self.hangs = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if receiver.hangs:
                    receiver.release.wait(60)
                if receiver.status < 300:
                    receiver.events.append(event)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ends(self) -> list[str]:
        return [f"{event['job']['name']} {event['eventType']}" for event in self.events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.release.set()
    receiver.server.shutdown()
    receiver.server.server_close()


PROGRAM = """
import os, sys, time, multiprocessing, concurrent.futures
from tidemill_lineage import EventLog, JsonFileEmitter, OpenLineageEmitter, Tracer

tracer = Tracer({emitters})

@tracer.trace(inputs={{"x": "t://x"}}, output="t://o", job="step")
def step(x):
    return x

def numbered(number):
    return tracer.trace(inputs={{"x": "t://x"}}, output=f"t://o{{number}}", job=f"job{{number}}")(lambda x: x)(number)

if __name__ == "__main__":
    {body}
"""


def program(emitters: str, body: str, folder: Path) -> list[str]:
    path = folder / "program.py"
    path.write_text(PROGRAM.format(emitters=emitters, body=body.replace("\n", "\n    ")))
    return [sys.executable, str(path)]


def run(command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **more)


def calls(log: EventLog) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in log.read():
        found[each.job] += each.calls
    return found


WORKERS = {
    "processes, forked": """
context = multiprocessing.get_context("fork")
workers = [context.Process(target=numbered, args=(n,)) for n in range(20)]
[each.start() for each in workers]
[each.join() for each in workers]
""",
    "processes, spawned": """
context = multiprocessing.get_context("spawn")
workers = [context.Process(target=numbered, args=(n,)) for n in range(3)]
[each.start() for each in workers]
[each.join() for each in workers]
""",
    "a pool, forked": """
with multiprocessing.get_context("fork").Pool(4) as pool:
    pool.map(numbered, range(20), chunksize=1)
""",
    "a pool, spawned": """
with multiprocessing.get_context("spawn").Pool(2) as pool:
    pool.map(numbered, range(20), chunksize=1)
""",
    "an executor": """
with concurrent.futures.ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
    list(pool.map(numbered, range(20)))
""",
    "bare forks that end at once": """
for n in range(20):
    if os.fork() == 0:
        numbered(n)
        os._exit(0)
[os.wait() for n in range(20)]
""",
}


@pytest.mark.parametrize("way", WORKERS)
def test_the_calls_of_workers_arrive(way: str, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")

    done = run(program(f"[EventLog({str(log.folder)!r})]", WORKERS[way], tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    wanted = 3 if way == "processes, spawned" else 20
    assert calls(log) == Counter({f"job{number}": 1 for number in range(wanted)})


def test_many_calls_of_a_pools_workers_are_all_counted(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")
    body = 'with multiprocessing.get_context("fork").Pool(4) as pool:\n    pool.map(step, range(1000), chunksize=50)'

    done = run(program(f"[EventLog({str(log.folder)!r})]", body, tmp_path))

    assert done.returncode == 0
    assert calls(log) == Counter({"step": 1_000})


def test_forks_while_threads_write_do_not_hang(tmp_path: Path) -> None:
    body = """
import threading
stop = threading.Event()
def busy():
    while not stop.is_set():
        step(1); tracer.flush(timeout_s=0.01)
threads = [threading.Thread(target=busy) for _ in range(4)]
[each.start() for each in threads]
for n in range(60):
    child = os.fork()
    if child == 0:
        numbered(n)
        os._exit(0)
    os.waitpid(child, 0)
stop.set()
[each.join() for each in threads]
"""
    log = EventLog(tmp_path / "events")

    done = run(program(f"[EventLog({str(log.folder)!r})]", body, tmp_path))

    assert (done.returncode, done.stderr) == (0, "")
    assert {f"job{number}" for number in range(60)} <= calls(log).keys()


@pytest.mark.chaos
@pytest.mark.parametrize("outbox_survives", [True, False], ids=["as it is", "negative control: the outbox is deleted"])
def test_a_call_survives_kill_9_a_second_later(
    outbox_survives: bool, tmp_path: Path, own_home: Path, receiver: Receiver
) -> None:
    receiver.status = 500
    body = 'step(1)\ntime.sleep(1)\nprint("ready", flush=True)\ntime.sleep(600)'
    command = program(f"[OpenLineageEmitter({receiver.url!r})]", body, tmp_path)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    receiver.status = 201
    if not outbox_survives:
        for each in (own_home / "lineage").glob("outbox.sqlite*"):
            each.unlink()

    with Tracer([OpenLineageEmitter(receiver.url)]).run("other"):
        pass
    tracer = Tracer([OpenLineageEmitter(receiver.url)])
    tracer.trace(output="t://mine", job="mine")(lambda: None)()
    delivered = tracer.flush(timeout_s=30)
    tracer.close()

    assert delivered
    wanted = ["mine COMPLETE", "mine START"] + (["step COMPLETE", "step START"] if outbox_survives else [])
    assert sorted(receiver.ends()) == wanted


@pytest.mark.parametrize("status", [500, 429, 408])
def test_what_an_endpoint_refused_for_a_while_arrives_when_it_is_well(receiver: Receiver, status: int) -> None:
    receiver.status = status
    tracer = Tracer([OpenLineageEmitter(receiver.url)])
    step = tracer.trace(inputs={"x": "t://x"}, output="t://o", job="step")(lambda x: x)

    for number in range(3):
        with tracer.run("a", run_id=str(number)):
            step(1)
    failing = tracer.flush(timeout_s=0.5)
    receiver.status = 201
    well = tracer.flush(timeout_s=30)
    tracer.close()

    assert (failing, well) == (False, True)
    assert receiver.ends() == ["step START", "step COMPLETE"] * 3
    assert len({event["run"]["runId"] for event in receiver.events}) == 3


def test_one_event_that_is_refused_for_good_does_not_hold_up_the_rest(
    receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    class Picky(OpenLineageEmitter):
        def _post(self, body: bytes) -> None:
            receiver.status = 422 if b'"bad"' in body else 201
            super()._post(body)

    tracer = Tracer([Picky(receiver.url)])
    for name in ("one", "bad", "two"):
        tracer.record(Run(id=name, job=name, ended_at=1.0))

    assert tracer.flush(timeout_s=30)
    tracer.close()

    assert receiver.ends() == ["one START", "one COMPLETE", "two START", "two COMPLETE"]
    assert tracer.stats.dropped == 1
    assert "lineage_dropped" in capsys.readouterr().err


def test_a_hung_endpoint_holds_neither_other_sinks_nor_the_end_of_the_program(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.hangs = True
    emitters = f"[OpenLineageEmitter({receiver.url!r}, timeout_s=60), JsonFileEmitter({str(tmp_path / 'g.json')!r})]"
    body = 'with tracer.run("a"):\n    step(1)\nt = time.monotonic()\nprint("work done", flush=True)'

    with subprocess.Popen(
        program(emitters, body, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        said = process.communicate(timeout=60)[1]
        took_s = time.monotonic() - started

    assert process.returncode == 0
    assert took_s < 10  # 2 s are promised; the rest is for a busy machine
    assert "lineage_waits" in said
    assert receiver.url in said
    assert load_graph(tmp_path / "g.json").upstream("t://o") == ["t://x"]


def test_close_keeps_its_time_with_a_hung_endpoint() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        tracer = Tracer([OpenLineageEmitter(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=60)])
        tracer.trace(output="t://o")(lambda: None)()
        started = time.monotonic()

        tracer.close(timeout_s=0.5)

    assert time.monotonic() - started < 10


def test_a_thousand_calls_of_a_run_are_one_start_and_one_complete(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tracer = Tracer([OpenLineageEmitter(path.as_uri())])
    step = tracer.trace(inputs={"x": "t://x"}, output="t://o")(lambda x: x)

    with tracer.run("nightly", run_id="R"):
        for number in range(1_000):
            step(number)
    tracer.close()

    events = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]


def test_forked_workers_of_one_run_share_its_start_and_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    body = """
with tracer.run("nightly", run_id="R"):
    workers = [multiprocessing.get_context("fork").Process(target=step, args=(n,)) for n in range(4)]
    [each.start() for each in workers]
    [each.join() for each in workers]
"""

    done = run(program(f"[OpenLineageEmitter({path.as_uri()!r})]", body, tmp_path))

    assert done.returncode == 0
    assert [json.loads(line)["eventType"] for line in path.read_bytes().splitlines()] == ["START", "COMPLETE"]


def test_events_that_a_killed_process_wrote_but_did_not_note_are_not_doubled(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    told = [Run(id="r", job=f"j{number}", ended_at=float(number)) for number in range(5)]
    OpenLineageEmitter(path.as_uri()).emit(told[:3])

    OpenLineageEmitter(path.as_uri()).emit(told)

    lines = path.read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == 10


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow past 4 KB: the system call writes what fits and then fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_lines(path, b"first\n")

    with pytest.raises(OSError):
        append_lines(path, b"x" * 5_000 + b"\n")
    append_lines(path, b"last\n")

    assert path.read_bytes() == b"first\nlast\n"


@pytest.mark.usefixtures("full_disk")
def test_a_plain_write_to_a_full_disk_does_tear_a_line(tmp_path: Path) -> None:  # the negative control
    path = tmp_path / "lines"
    with path.open("ab", buffering=0) as file:
        written = file.write(b"x" * 5_000 + b"\n")

    assert written < 5_001
    assert not path.read_bytes().endswith(b"\n")


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_no_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    replace_file(path, b"old")

    with pytest.raises(OSError):
        replace_file(path, b"x" * 5_000)

    assert [each.name for each in tmp_path.iterdir()] == ["graph.json"]
    assert path.read_bytes() == b"old"


def test_work_goes_on_with_a_full_disk_and_its_lineage_arrives_when_there_is_room(tmp_path: Path) -> None:
    emitter = JsonFileEmitter(tmp_path / "lineage.json")
    tracer = Tracer([emitter])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        result = tracer.trace(inputs={"x": "t://x"}, output="t://o")(lambda x: x + 1)(1)
        arrived = tracer.flush(timeout_s=0.5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    well = tracer.flush(timeout_s=30)
    tracer.close()

    assert (result, arrived, well) == (2, False, True)
    assert load_graph(emitter.path).upstream("t://o") == ["t://x"]


def test_a_line_that_a_kill_cut_short_swallows_none(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"torn')

    append_lines(path, b"whole\n")

    assert path.read_bytes() == b'{"torn\nwhole\n'


def test_a_forked_child_does_not_use_its_parents_connections(receiver: Receiver) -> None:
    emitter = OpenLineageEmitter(receiver.url)
    emitter.emit([Run(id="parent", job="parent")])
    parents = emitter._client.get()
    child = os.fork()
    if child == 0:
        same = emitter._client.get() is parents
        emitter.emit([Run(id="child", job="child")])
        os._exit(int(same))
    _, status = os.waitpid(child, 0)
    emitter.emit([Run(id="parent again", job="parent")])
    emitter.close()

    assert os.waitstatus_to_exitcode(status) == 0
    assert receiver.ends() == [
        f"{name} {what}" for name in ("parent", "child", "parent") for what in ("START", "COMPLETE")
    ]


@pytest.mark.parametrize("url", ["localhost:5000", "file://rel/x", "", "ftp://x/y", "http://"])
def test_a_wrong_address_is_told_at_construction(url: str) -> None:
    from tidemill_core.errors import ConfigError

    with pytest.raises(ConfigError, match="is no OpenLineage address"):
        OpenLineageEmitter(url)
