"""Extensions are found by entry point, loaded when asked for, and a wrong name is helped."""

import sys
from pathlib import Path

import pytest
from tidemill_core.errors import ConfigError, PluginError
from tidemill_core.plugins import Registry, did_you_mean


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution of somebody else's, with three extensions."""
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[test.things]\ngood = stranger_things:good\nlost = stranger_gone:x\nbare = stranger_things:nothing\n"
    )
    (tmp_path / "stranger_things.py").write_text("good = {'is': 'good'}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("stranger_things", None)


def test_a_strangers_extension_is_listed_without_being_imported_and_loaded_when_asked_for(stranger: Path) -> None:
    registry: Registry[dict[str, str]] = Registry("test.things", "thing")

    assert registry.names() == ["bare", "good", "lost"]
    assert "stranger_things" not in sys.modules

    assert registry.get("good") == {"is": "good"}
    assert registry.get("good") is registry.get("good")


@pytest.mark.parametrize(
    ("name", "reason"), [("lost", r"is its extra installed\?"), ("bare", "no attribute 'nothing'")]
)
def test_an_extension_that_cannot_be_loaded_names_its_module_and_the_reason(
    stranger: Path, name: str, reason: str
) -> None:
    registry: Registry[object] = Registry("test.things", "thing")

    with pytest.raises(PluginError, match=rf"thing '{name}' \(stranger_.*cannot be loaded.*{reason}"):
        registry.get(name)


def test_an_unknown_name_suggests_the_nearest_known_one(stranger: Path) -> None:
    registry: Registry[object] = Registry("test.things", "thing")

    with pytest.raises(ConfigError, match=r"unknown thing 'goood'; did you mean 'good'\?"):
        registry.get("goood")


def test_a_registered_extension_wins_over_an_entry_point(stranger: Path) -> None:
    registry: Registry[object] = Registry("test.things", "thing")

    registry.register("good", 1)
    registry.register("own", 2)

    assert (registry.get("good"), registry.get("own")) == (1, 2)
    assert registry.names() == ["bare", "good", "lost", "own"]


def test_suggestions_fall_back_to_everything_known() -> None:
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""


def test_a_name_that_two_distributions_claim_is_refused_until_one_is_chosen(stranger: Path) -> None:
    info = stranger / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[test.things]\ngood = rival_things:good\n")
    registry: Registry[object] = Registry("test.things", "thing")

    with pytest.raises(PluginError, match=r"claimed by .*stranger_things:good of stranger.*uninstall one"):
        registry.get("good")
    registry.register("good", 1)

    assert registry.get("good") == 1


def test_threads_that_ask_at_once_all_find_the_extension(monkeypatch) -> None:
    import threading
    from importlib.metadata import EntryPoint

    from tidemill_core import plugins

    asked, answered = threading.Barrier(2), threading.Event()

    def slowly(group: str):
        yield EntryPoint("first", "json:dumps", group)
        answered.wait(0.2)
        yield EntryPoint("second", "json:loads", group)

    monkeypatch.setattr(plugins, "entry_points", slowly)
    registry: plugins.Registry[object] = plugins.Registry("some.group", "thing")
    found: list[object] = []

    def ask() -> None:
        asked.wait(10)
        found.append(registry.get("second"))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)

    assert 2 == len(found)
