"""The mutation tool: it tries what it says, notices, and its list stays in step with the sources."""

import ast
import tomllib
from pathlib import Path

import pytest

from tests import mutate

MODULES = tomllib.loads(mutate.LISTED.read_text())["modules"]
SOURCE = '''
"""Text."""

def limit(value: int = 0) -> int:
    """Text."""
    if value < 10:
        return value + 1
    raise ValueError("too much")
'''


def test_each_place_of_a_module_is_changed_but_no_text_for_people():
    changes = {(each.before, each.after) for each in mutate.mutants(SOURCE)}

    assert {
        ("def limit(value: int=0) -> int:", "def limit(value: int=1) -> int:"),
        ("if value < 10:", "if value <= 10:"),
        ("if value < 10:", "if not value < 10:"),
        ("if value < 10:", "if value < 11:"),
        ("return value + 1", "return value - 1"),
        ("return value + 1", "return value + 2"),
        ("return value + 1", "return None"),
    } == changes


@pytest.mark.parametrize(("test", "code"), [("assert limit(9) == 10", mutate.SURVIVED), ("assert limit(9) == 0", 1)])
def test_a_change_is_seen_by_the_tests_in_place_of_the_file(test, code, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "limited_.py").write_text("def limit(value):\n    return None\n")
    (tmp_path / "test_limited.py").write_text(f"from limited_ import limit\n\ndef test_limit():\n    {test}\n")

    found = mutate.judge("limited_", ast.parse(SOURCE), [str(tmp_path)], within_s=60)

    assert code == found


def test_tests_that_never_import_the_module_judge_nothing(tmp_path):
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")

    assert mutate.NOT_USED == mutate.judge("limited_", ast.parse(SOURCE), [str(tmp_path)], within_s=60)


def test_a_change_without_end_is_stopped(tmp_path):
    (tmp_path / "test_endless.py").write_text("def test_endless():\n    while True:\n        pass\n")

    assert mutate.judge("limited_", ast.parse(SOURCE), [str(tmp_path)], within_s=3) is None


def test_what_survives_and_is_not_listed_and_what_is_listed_and_noticed_both_fail(capsys):
    first, second, *_ = mutate.mutants(SOURCE)
    listed = [
        dict(zip(("function", "before", "after"), each.place, strict=True), reason="r") for each in (first, second)
    ]

    assert 0 == mutate.report([first, second], [0, 0], listed)
    assert 1 == mutate.report([first, second], [0, 0], listed[:1])
    assert 1 == mutate.report([first, second], [0, 1], listed)
    assert "listed, but noticed" in capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES)
def test_every_listed_survivor_is_still_a_change_of_its_module_and_has_a_reason(module):
    settings = MODULES[module]
    possible = {each.place for each in mutate.mutants((mutate.ROOT / settings["file"]).read_text())}

    listed = settings.get("survivors", [])

    assert [] == [each for each in listed if (each["function"], each["before"], each["after"]) not in possible]
    assert all(each["reason"].strip() for each in listed)
    assert all(Path(mutate.ROOT / test).exists() for test in settings["tests"])
