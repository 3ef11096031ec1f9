"""A code version changes with the code that decides a result, and with nothing else."""

from __future__ import annotations

import functools
import importlib
import linecache
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tidemill_core.defs.versions import code_version

PACKAGE = "code_version_shop"
BEFORE = {
    "__init__.py": "",
    "prices.py": '''
from . import rates
from .rounding import Rounder, to_cents

FACTOR = 3
NAMES = {"a", "b", "c", "d"}


def price(amount, extra=1):
    """Say what it costs."""
    from .taxes import tax
    return to_cents(tax(amount) * FACTOR + extra) + rates.rate() + Rounder().up(amount) + len(NAMES)


def unused():
    return 1
''',
    "rates.py": "BASE = 2\n\ndef rate():\n    return BASE\n\ndef other():\n    return 0\n",
    "rounding.py": (
        "class Base:\n    STEP = 1\n    def up(self, x):\n        return x + self.STEP\n\n"
        "class Rounder(Base):\n    pass\n\n"
        "def to_cents(x):\n    return _whole(x * 100)\n\ndef _whole(x):\n    return int(x)\n"
    ),
    "taxes.py": "RATE = 0.2\n\ndef tax(x):\n    return x * (1 + RATE)\n",
}


@pytest.fixture
def version_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Give a function that writes the package with one text replaced, imports it, and asks for a version."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def version(file: str = "prices.py", old: str = "", new: str = "", *, of: str = "price") -> str:
        _forget()
        for name, text in BEFORE.items():
            assert name != file or old in text
            (tmp_path / PACKAGE).mkdir(exist_ok=True)
            (tmp_path / PACKAGE / name).write_text(text.replace(old, new) if name == file else text)
        linecache.clearcache()
        importlib.invalidate_caches()
        return code_version(getattr(importlib.import_module(f"{PACKAGE}.prices"), of))

    yield version
    _forget()


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("prices.py", "* FACTOR", "/ FACTOR", id="the function itself"),
        pytest.param("prices.py", "FACTOR = 3", "FACTOR = 4", id="a constant of its module"),
        pytest.param("prices.py", '"d"', '"e"', id="a set of its module"),
        pytest.param("prices.py", "extra=1", "extra=2", id="a default argument"),
        pytest.param("rounding.py", "x * 100", "x * 1000", id="a function of another module"),
        pytest.param("rounding.py", "int(x)", "round(x)", id="what that function calls"),
        pytest.param("rounding.py", "STEP = 1", "STEP = 2", id="a constant of a base class"),
        pytest.param("rounding.py", "x + self", "x - self", id="a method of a base class"),
        pytest.param("taxes.py", "1 + RATE", "1 - RATE", id="a function imported inside the function"),
        pytest.param("taxes.py", "RATE = 0.2", "RATE = 0.3", id="a constant behind such an import"),
        pytest.param("rates.py", "return BASE", "return -BASE", id="a function reached through its module"),
        pytest.param("rates.py", "BASE = 2", "BASE = 5", id="a constant reached through its module"),
    ],
)
def test_a_change_of_what_decides_the_result_changes_the_version(
    version_of: Callable[..., str], file: str, old: str, new: str
) -> None:
    before = version_of()

    after = version_of(file, old, new)

    assert before != after


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("prices.py", "FACTOR = 3", "FACTOR = 3  # as agreed", id="a comment"),
        pytest.param("prices.py", "Say what it costs.", "Tell the price.", id="a docstring"),
        pytest.param("prices.py", "FACTOR + extra", "FACTOR  +  extra", id="formatting"),
        pytest.param("prices.py", "    return 1", "    return 2", id="a function that is not called"),
        pytest.param("rates.py", "    return 0", "    return 9", id="one in a module that is used"),
        pytest.param("prices.py", '{"a", "b"', '{"b", "a"', id="the order in which a set is written"),
    ],
)
def test_a_change_of_anything_else_keeps_the_version(
    version_of: Callable[..., str], file: str, old: str, new: str
) -> None:
    before = version_of()

    after = version_of(file, old, new)

    assert before == after


def test_every_process_computes_the_same_version(version_of: Callable[..., str], tmp_path: Path) -> None:
    here = version_of()
    code = (
        f"from {PACKAGE}.prices import price; from tidemill_core.defs.versions import code_version;"
        "print(code_version(price))"
    )

    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2", "3")
    }

    assert {here} == found


def _scaled(factor: int) -> Callable[[int], int]:
    def scale(x: int) -> int:
        return x * factor

    return scale


def _double(x: int) -> int:
    return x * 2


class _Callable:
    def __call__(self, x: int) -> int:
        return x


def test_the_values_a_closure_holds_count() -> None:
    assert code_version(_scaled(2)) != code_version(_scaled(3))
    assert code_version(_scaled(2)) == code_version(_scaled(2))


def test_the_arguments_of_a_partial_count() -> None:
    assert code_version(functools.partial(pow, exp=2)) != code_version(functools.partial(pow, exp=3))


def test_a_decorated_function_has_the_version_of_what_it_wraps() -> None:
    @functools.wraps(_double)
    def wrapper(x: int) -> int:
        return _double(x)

    assert code_version(_double) == code_version(wrapper)


@pytest.mark.parametrize("value", [_Callable(), str.upper, len, lambda x: x])
def test_anything_that_can_be_called_has_a_version(value: Any) -> None:
    assert len(code_version(value)) == 16


def test_the_order_of_functions_counts() -> None:
    assert code_version(_double, _scaled(2)) != code_version(_scaled(2), _double)


def test_functions_that_call_each_other_end() -> None:
    assert len(code_version(_even)) == 16


def _even(n: int) -> bool:
    return n == 0 or _odd(n - 1)


def _odd(n: int) -> bool:
    return n != 0 and _even(n - 1)


def test_a_function_without_source_is_judged_by_its_bytecode() -> None:
    scope: dict[str, Any] = {"__name__": "nowhere"}
    exec("def one(x): return x + 1\ndef two(x): return x + 2", scope)

    assert code_version(scope["one"]) != code_version(scope["two"])
