"""What is on disk: events of many processes, the graph document, and what a kill leaves behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from tidemill_core.lineage_hooks import Column, announce_read, announce_wrote
from tidemill_core.settings import Settings
from tidemill_lineage import hooks
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.collect import collect
from tidemill_lineage.document import parse_graph
from tidemill_lineage.emitters.json_file import JsonFileEmitter, load_graph
from tidemill_lineage.emitters.memory import MemoryEmitter
from tidemill_lineage.errors import EmitterDown, GraphError
from tidemill_lineage.events import EventLog

RUN = declare(job="j", output="o://x", columns={"a": ["i://x#a"]}, run_id="r1", at=1)


def test_a_run_is_read_back_as_it_was(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events")

    log.append(RUN)

    assert list(log.read()) == [RUN]


def test_a_line_cut_short_is_skipped_and_the_next_one_is_read(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(RUN)
    whole = log.path_of("r1").read_bytes()
    log.path_of("r1").write_bytes(whole[:-20])

    log.append(replace(RUN, job="k"))

    assert [run.job for run in log.read("r1")] == ["k"]


def test_an_unknown_run_is_refused_with_the_latest_ones(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.append(RUN)

    with pytest.raises(GraphError, match="the latest are: r1"):
        list(log.read("r9"))


def _append_many(folder: Path, name: str) -> None:
    log = EventLog(folder)
    for i in range(200):
        log.append(replace(RUN, job=f"{name}{i}"))


def test_processes_share_a_file_without_losing_a_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len({run.job for run in EventLog(tmp_path).read("r1")}) == 600


def _merge_many(path: Path, name: str) -> None:
    for i in range(15):
        JsonFileEmitter(path).emit([replace(RUN, job=f"{name}{i}")])


def test_processes_merge_into_one_document_without_losing_a_job(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_merge_many, args=(path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(load_graph(path).jobs) == 45


def test_an_unchanged_graph_leaves_the_file_untouched(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    JsonFileEmitter(path).emit([RUN])
    before = path.stat()

    JsonFileEmitter(path).emit([RUN])

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    "damage",
    ["", '{"format": "tidemill-lineage/2", "datasets": [{"urn":', '{"format": "tidemill-lineage/2", "said": 3}'],
)
def test_a_damaged_document_is_set_aside_and_told(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lineage.json"
    path.write_text(damage)

    JsonFileEmitter(path).emit([RUN])

    aside = list(tmp_path.glob("lineage.json.damaged-*"))
    assert RUN.writes[0].urn in load_graph(path).datasets
    assert [each.read_text() for each in aside] == ([damage] if damage else [])
    assert (str(path) in capsys.readouterr().err) == bool(damage)


def test_a_foreign_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lineage.json"
    path.write_text('{"mine": 1}')

    with pytest.raises(GraphError, match="not a lineage document"):
        JsonFileEmitter(path).emit([RUN])

    assert path.read_text() == '{"mine": 1}'


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_what_other_packages_announce_becomes_runs(settings: Settings) -> None:
    hooks.install(settings, run_id=lambda: "r7")
    try:
        announce_read("file:///x.csv", job="load", columns=[Column(name="a")])
        announce_wrote(
            "pg://db/raw.x", job="load", inputs=["file:///x.csv"], asset_key="raw/x",
            columns=[Column(name="a", type="int4", sources=(("file:///x.csv", "a"),))], rows=3,
        )  # fmt: skip
    finally:
        hooks.uninstall(settings)

    found = collect(hooks.events_of(settings), settings.home / "lineage.json").graph()
    assert found.upstream("raw/x#a") == ["file:///x.csv#a"]
    assert {edge.method for edge in found.edges} == {"declared"}
    assert hooks.events_of(settings).run_ids() == ["r7"]


def test_installing_twice_hears_everything_once(settings: Settings) -> None:
    hooks.install(settings, run_id=lambda: "r7")
    hooks.install(settings, run_id=lambda: "r7")
    try:
        announce_wrote("pg://db/raw.x", job="load")
    finally:
        hooks.uninstall(settings)
    announce_wrote("pg://db/raw.y", job="load")

    assert len(list(hooks.events_of(settings).read())) == 1


def test_a_full_disk_does_not_fail_the_announcing_job(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    hooks.install(settings)
    try:
        monkeypatch.setattr(os, "write", full)
        announce_wrote("pg://db/raw.x", job="load")
    finally:
        monkeypatch.undo()
        hooks.uninstall(settings)


def test_a_killed_process_loses_no_event_it_announced(tmp_path: Path) -> None:
    script = """
    import os, signal
    from tidemill_core.lineage_hooks import announce_wrote
    from tidemill_lineage import hooks
    hooks.install(run_id=lambda: "r1")
    for i in range(50):
        announce_wrote(f"pg://db/raw.t{i}", job=f"load t{i}", inputs=[f"file:///t{i}.csv"])
    os.kill(os.getpid(), signal.SIGKILL)
    """
    environment = {**os.environ, "TIDEMILL_HOME": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)

    assert done.returncode == -signal.SIGKILL
    assert len(list(EventLog(tmp_path / "lineage" / "events").read("r1"))) == 50


def test_collecting_again_after_pruning_gives_the_same_graph(tmp_path: Path) -> None:
    log, path = EventLog(tmp_path / "events"), tmp_path / "lineage.json"
    for i in range(5):
        log.append(declare(job=f"j{i}", output=f"o://{i}", columns={"a": [f"i://{i}#a"]}, run_id=f"r{i}", at=i))

    first = collect(log, path, keep_runs=2).graph()
    again = collect(log, path, keep_runs=2).graph()

    assert len(log.run_ids()) == 2
    assert again == first
    assert parse_graph(path.read_bytes()) == first


class Down(MemoryEmitter):
    name = "down"

    def emit(self, runs: object) -> None:
        raise EmitterDown("nowhere", "refused")


def test_a_server_that_is_down_is_noted_and_the_others_get_the_runs(tmp_path: Path) -> None:
    log, memory, down = EventLog(tmp_path / "events"), MemoryEmitter(), Down()
    log.append(RUN)

    found = collect(log, tmp_path / "lineage.json", emitters=[down, memory])

    assert found.pushed == {"memory": 1}
    assert "nowhere is not answering" in found.failed["down"]
    assert down.closed
