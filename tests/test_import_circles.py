"""No two modules import each other in a circle; those that still do are listed and get fewer."""

from pathlib import Path

import pytest

from tests import import_circles

ROOT = Path(__file__).parents[1]
# One module of each knot that is left; a knot that is gone must leave the list.
LEFT: dict[str, str] = {
    "tidemill_core.defs.dag.jobs": "DAG runs start DAG runs",
    "tidemill_core.defs.resources": "the default resources are IO managers, and those take resources",
}


def test_every_knot_of_imports_is_known_and_every_known_one_is_there():
    sources = [*ROOT.glob("packages/*/src"), ROOT / "deploy/src"]
    knots = [knot for source in sources for knot in import_circles.circles(import_circles.imports(source))]

    unknown = [knot for knot in knots if not LEFT.keys() & set(knot)]
    gone = [name for name in LEFT if not any(name in knot for knot in knots)]
    assert ([], []) == (unknown, gone)


@pytest.fixture
def package(tmp_path):
    (tmp_path / "p").mkdir()

    def write(**modules):
        for name, text in {"__init__": "", **modules}.items():
            (tmp_path / "p" / f"{name}.py").write_text(text)
        return import_circles.circles(import_circles.imports(tmp_path))

    return write


@pytest.mark.parametrize(
    "back",
    [
        "from p import a",
        "import p.a",
        "from p.a import x",
        "def later():\n    from p.a import x\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import x\n",
    ],
)
def test_a_circle_is_found_however_it_is_closed(package, back):
    assert [["p.a", "p.b"]] == package(a="from p.b import y", b=back)


def test_a_circle_of_three_is_one_knot_and_a_line_is_none(package):
    assert [["p.a", "p.b", "p.c"]] == package(a="from p import b", b="from p import c", c="import p.a", d="import p.a")
    assert [] == package(a="from p import b", b="from p import c", c="", d="import p.a")


def test_a_package_that_imports_its_modules_and_is_imported_by_one_is_a_circle(package):
    assert [["p", "p.a"]] == package(__init__="from p.a import x", a="from p import name")
