"""The folders and pinned files of servers."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest
from tidemill_core.errors import ExitCode, ServiceError, exit_code
from tidemill_core.services import fetching, files, stack
from tidemill_core.services.errors import ServiceFetchFailed, ServiceMissing, UnknownService


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_SERVICES_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _fake_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_private_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    files.write_private(tmp_path / "new" / "secret", "x")

    assert stat.S_IMODE((tmp_path / "new" / "secret").stat().st_mode) == 0o600


def test_an_open_folder_is_used_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "is_open", lambda _: True)

    assert files.open_folder(tmp_path / "home") == tmp_path / "home"


def test_a_closed_folder_is_stood_in_for_without_opening_its_parents(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    place = files.open_folder(closed / "home")

    assert place == files.open_place(closed / "home")
    assert files.is_open(place)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    shutil.rmtree(place)


def test_a_stand_in_is_removed_once_its_folder_is_gone(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    gone, kept = files.open_folder(closed / "gone"), files.open_folder(closed / "kept")

    (closed / "gone").rmdir()
    files.open_folder(closed / "kept")

    assert not gone.exists()
    assert kept.exists()
    shutil.rmtree(kept)


def test_a_planted_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "planted").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(files, "is_open", lambda _: False)
    monkeypatch.setattr(files, "open_place", lambda _: tmp_path / "planted")

    with pytest.raises(ServiceError, match="belongs to another account"):
        files.open_folder(tmp_path / "home")


@pytest.mark.parametrize("name", list(stack.SERVICES))
def test_every_server_can_be_made_and_names_its_version(name: str) -> None:
    service = stack.service(name)

    assert service.name == name
    if name != "postgres":
        assert service.version[0].isdigit()


def test_an_unknown_server_is_a_configuration_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownService, match="did you mean 'kafka'") as caught:
        stack.service("kafak")

    assert exit_code(caught.value) == ExitCode.CONFIG


def test_a_pin_is_fetched_once_by_many(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    _fake_tool(tmp_path / "bin", "mvn", f"echo call >> {calls}; mkdir lib; touch lib/a.jar")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    threads = [threading.Thread(target=fetching.fetch_maven, args=("kafka", "1")) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert calls.read_text().splitlines() == ["call"]
    assert (fetching.fetch_maven("kafka", "1") / "a.jar").exists()


def test_a_fetch_that_fails_leaves_nothing_that_looks_whole(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_tool(tmp_path / "bin", "mvn", "mkdir lib; echo no network; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    with pytest.raises(ServiceFetchFailed, match="no network"):
        fetching.fetch_maven("kafka", "1")

    assert [each.name for each in cache.iterdir() if each.name.startswith("kafka-")] == []


def test_a_missing_tool_is_named_with_its_remedy(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))

    with pytest.raises(ServiceMissing, match="install Java 17"):
        stack.service("kafka").fetch()


def test_the_first_server_to_name_a_setting_wins() -> None:
    from tidemill_core.services.running import Running

    def running(name: str, settings: dict[str, str]) -> Running:
        facts = {"name": name, "version": "1", "pid": 1, "born": "", "port": 1, "url": "", "settings": settings}
        return Running(**facts, stop_signal=15, stop_s=1, folder="")  # type: ignore[arg-type]

    merged = stack.settings([running("a", {"X": "a"}), running("b", {"X": "b", "Y": "b"})])

    assert merged == {"X": "a", "Y": "b"}
