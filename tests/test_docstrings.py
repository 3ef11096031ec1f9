"""Every example in a docstring runs and says what is printed."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def modules_with_examples() -> list[str]:
    sources = [*ROOT.glob("packages/*/src"), ROOT / "deploy/src"]
    return sorted(
        ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        for source in sources
        for path in source.glob("**/*.py")
        if ">>> " in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("name", modules_with_examples())
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))

    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)

    assert 0 == result.failed


def test_an_example_that_prints_something_else_fails():
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)

    assert 1 == doctest.DocTestRunner(optionflags=FLAGS).run(wrong, out=lambda _: None).failed
