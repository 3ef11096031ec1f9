"""Public names of a package are imported when they are first used."""

import sys

import pytest
from tidemill_core.lazy import lazy_names


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "slowly"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from tidemill_core.lazy import lazy_names\n__getattr__, __dir__ = lazy_names(__name__, {'part': ['value']})\n"
    )
    (folder / "part.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "slowly"
    for name in ("slowly", "slowly.part"):
        sys.modules.pop(name, None)


def test_a_name_is_imported_when_it_is_first_used_and_then_stays(package) -> None:
    module = __import__(package)
    before = "slowly.part" in sys.modules

    value = module.value

    assert (False, 7, 7) == (before, value, vars(module)["value"])
    assert "value" in dir(module)


def test_an_unknown_name_is_an_attribute_error_like_any_other(package) -> None:
    module = __import__(package)

    with pytest.raises(AttributeError, match="module 'slowly' has no attribute 'valeu'"):
        _ = module.valeu
    assert not hasattr(module, "other")


def test_two_submodules_may_hold_names() -> None:
    get, _ = lazy_names("json", {"decoder": ["JSONDecodeError"], "encoder": ["JSONEncoder"]})

    assert ("JSONDecodeError", "JSONEncoder") == (get("JSONDecodeError").__name__, get("JSONEncoder").__name__)
