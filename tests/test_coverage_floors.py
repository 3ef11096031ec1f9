"""The coverage gate: what falls below its floor, or rises far above it, is said by name."""

import json

import pytest

from tests import coverage_floors


def file(covered, statements, branches=(0, 0)):
    return {
        "summary": {
            "covered_lines": covered,
            "num_statements": statements,
            "covered_branches": branches[0],
            "num_branches": branches[1],
        }
    }


FILES = {
    "packages/a/src/pkg_a/one.py": file(90, 100, (8, 10)),
    "packages/a/src/pkg_a/two.py": file(20, 100, (0, 0)),
    "conftest.py": file(0, 50),
}


def floors(lines=55, branches=80):
    return {"packages": {"pkg_a": {"lines": lines, "branches": branches}}}


def test_sums_are_of_a_package_and_of_nothing_beside_it():
    assert {"pkg_a": {"lines": 55.0, "branches": 80.0}} == coverage_floors.totals(FILES)


def test_a_package_at_its_floor_is_in_line():
    assert [] == list(coverage_floors.faults(FILES, floors()))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (floors(lines=56), "pkg_a: 55.0 % of its lines are run by the unit tests, the floor is 56"),
        (floors(branches=81), "pkg_a: 80.0 % of its branches are run by the unit tests, the floor is 81"),
        ({"packages": {}}, "pkg_a has no floor"),
    ],
)
def test_what_is_below_its_floor_is_said_by_name(given, fault):
    assert [fault] == list(coverage_floors.faults(FILES, given))


def test_a_package_of_which_nothing_was_measured_is_below_its_floor():
    found = list(coverage_floors.faults({}, floors()))

    assert ["pkg_a: 0.0 % of its lines", "pkg_a: 0.0 % of its branches"] == [each.split(" are")[0] for each in found]


@pytest.mark.parametrize(("lines", "hint"), [(50, ""), (48, "; raise its floor")])
def test_the_notes_name_weak_modules_and_floors_that_could_be_raised(lines, hint):
    assert [f"pkg_a: 55.0 % lines, 80.0 % branches{hint}", "weak: pkg_a/two.py"] == list(
        coverage_floors.notes(FILES, floors(lines=lines))
    )


def test_the_report_ends_with_1_where_something_is_out_of_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "coverage.json").write_text(json.dumps({"files": {"packages/a/src/pkg_a/one.py": file(1, 2)}}))
    (tmp_path / "floors.toml").write_text("[packages.pkg_a]\nlines = 60\n")
    monkeypatch.setattr(coverage_floors, "FLOORS", tmp_path / "floors.toml")

    assert 1 == coverage_floors.main(str(tmp_path / "coverage.json"))
    assert "error: pkg_a: 50.0 %" in capsys.readouterr().out
