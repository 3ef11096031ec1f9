"""Every private name of Dagster that core uses is there, and is imported in one module only."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from tidemill_core.defs import _dagster

SOURCE = Path(_dagster.__file__).parents[1]


@pytest.mark.parametrize("name", sorted(_dagster.PLACES))
def test_this_dagster_has_the_name(name: str) -> None:
    try:
        found = getattr(_dagster, name)
    except ImportError as error:
        pytest.fail(f"Dagster {version('dagster')} is not one that tidemill-core can work with: {error}")

    assert found is not None


def test_name_that_dagster_lacks_is_told_with_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_dagster.PLACES, "Gone", "dagster._core.events")

    with pytest.raises(ImportError, match=rf"Dagster {re.escape(version('dagster'))} has no dagster._core.events.Gone"):
        _ = _dagster.Gone


def test_private_names_of_dagster_are_imported_in_one_module_only() -> None:
    private = re.compile(r"^\s*(from|import) (dagster\._|dagster_shared)", re.MULTILINE)

    found = {path.name for path in SOURCE.rglob("*.py") if private.search(path.read_text())}

    assert found == {"_dagster.py"}
