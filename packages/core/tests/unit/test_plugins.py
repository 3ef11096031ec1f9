"""Extensions are found by entry point, loaded when asked for, and a wrong name is helped."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from tidemill_core.config import Config, ConfigFaults, parse_documents, validate
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


class Fast(Config):
    type: Literal["fast"]
    speed: int = 1


class Slow(Config):
    type: Literal["slow"]


def opener(model: type[Config]) -> Callable[[Any], Any]:
    def open_it(config: Any) -> Any:
        return config

    open_it.config_type = model  # type: ignore[attr-defined]
    return open_it


def test_the_union_of_settings_knows_every_extension_and_its_faults() -> None:
    registry: Registry[Any] = Registry("test.none", "thing")
    registry.register("fast", opener(Fast))
    registry.register("slow", opener(Slow))
    registry.register("plain", print)

    thing: Any = registry.config_union()

    class Things(Config):
        things: tuple[thing, ...]

    text = "things:\n  - {type: slow}\n  - type: fast\n    sped: 3\n"
    with pytest.raises(ConfigFaults, match=r"t\.yaml:4:\d+.*did you mean 'speed'"):
        validate(parse_documents(text, file="t.yaml")[0], Things)
    found = validate(parse_documents(text.replace("sped", "speed"), file="t.yaml")[0], Things)
    assert (Slow(type="slow"), Fast(type="fast", speed=3)) == found.things
    assert {"Fast", "Slow"} <= set(Things.model_json_schema()["$defs"])


def test_settings_without_the_name_of_their_extension_are_refused() -> None:
    registry: Registry[Any] = Registry("test.none", "thing")
    registry.register("quick", opener(Fast))

    with pytest.raises(PluginError, match=r"'quick'.*Fast needs the field `type: Literal\[\"quick\"\]`"):
        registry.config_union()


def test_an_extension_that_cannot_be_loaded_does_not_hide_the_others(stranger: Path) -> None:
    registry: Registry[Any] = Registry("test.things", "thing")
    registry.register("fast", opener(Fast))

    assert {"fast": Fast} == registry.config_types()
