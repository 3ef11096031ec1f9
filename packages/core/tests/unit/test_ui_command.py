"""Where `tidemill ui` listens and what it shows, decided before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tidemill_core import ui_cli
from tidemill_core.errors import ConfigError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_that_names_it(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"port {taken} of 127.0.0.1 is taken"):
        ui_cli._choose_port("127.0.0.1", taken)


def test_without_a_wish_the_next_free_port_is_used_and_said(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ui_cli, "PORT", taken)

    chosen = ui_cli._choose_port("127.0.0.1", None)

    assert taken < chosen < taken + 100
    assert f"port {taken} is taken by another program; using {chosen}" in capsys.readouterr().err


def test_a_free_usual_port_is_used_in_silence(taken: int, capsys: pytest.CaptureFixture[str]) -> None:
    free = next(port for port in range(taken + 1, 65_535) if ui_cli._is_free("127.0.0.1", port))

    assert ui_cli._choose_port("127.0.0.1", free) == free
    assert capsys.readouterr().err == ""


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        ui_cli._choose_port("192.0.2.1", 3000)


@pytest.mark.parametrize(
    ("file", "text", "target"),
    [
        ("workspace.yaml", "", []),
        ("dg.toml", "", []),
        ("pyproject.toml", "[tool.dagster]\nmodule_name = 'x'\n", []),
        ("pyproject.toml", "[tool.dg.project]\nroot_module = 'x'\n", []),
        ("pyproject.toml", "[tool.ruff]\n", ["-m", "tidemill_deploy.definitions"]),
        ("other.txt", "", ["-m", "tidemill_deploy.definitions"]),
    ],
)
def test_a_folder_with_a_project_shows_that_one_and_another_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, target: list[str]
) -> None:
    pytest.importorskip("tidemill_deploy")
    (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)

    assert ui_cli._target(None, None) == target


def test_without_any_definitions_the_way_to_name_them_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ui_cli, "LOCATIONS", "tidemill.none")

    with pytest.raises(click.UsageError, match="--module or --file"):
        ui_cli._target(None, None)


def test_a_module_and_a_file_together_are_refused() -> None:
    with pytest.raises(click.UsageError, match="not both"):
        ui_cli._target("m", "f.py")
