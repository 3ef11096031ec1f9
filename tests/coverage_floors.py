"""Hold the unit tests' coverage of each package to its floor: lines and branches.

``python tests/coverage_floors.py coverage.json`` after ``coverage json``. The floors are in
``tests/coverage_floors.toml`` and only rise. Exits with 1 and names each package below its
floor; prints what is reached, which floor could be raised, and the weak modules.
"""

import json
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FLOORS = Path(__file__).with_name("coverage_floors.toml")
SLACK = 6.0
"""Points above a floor from which on it should be raised."""
WEAK = 40
"""A module of whose lines fewer percent are run is a weak one."""


def package_of(path: str) -> str | None:
    """The package a file of the sources belongs to."""
    parts = Path(path).parts
    at = parts.index("src") if "src" in parts else -1
    return parts[at + 1] if at >= 0 else None


def percent(covered: int, total: int) -> float:
    return 100.0 * covered / total if total else 100.0


def totals(files: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Lines and branches in percent, by package."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for path, file in files.items():
        package, summary = package_of(path), file["summary"]
        if package is None:
            continue
        found = (
            summary["covered_lines"],
            summary["num_statements"],
            summary["covered_branches"],
            summary["num_branches"],
        )
        sums[package] = [one + other for one, other in zip(sums[package], found, strict=True)]
    return {
        package: {"lines": percent(lines, of_lines), "branches": percent(branches, of_branches)}
        for package, (lines, of_lines, branches, of_branches) in sums.items()
    }


def weak_modules(files: Mapping[str, Any], least: float) -> set[str]:
    """Modules of whose lines the unit tests run less than `least` percent."""
    return {
        path.split("/src/")[1]
        for path, file in files.items()
        if package_of(path) and percent(file["summary"]["covered_lines"], file["summary"]["num_statements"]) < least
    }


def faults(files: Mapping[str, Any], floors: Mapping[str, Any]) -> Iterable[str]:
    """Everything below its floor, a sentence each."""
    reached = totals(files)
    for package, floor in floors["packages"].items():
        for what, least in floor.items():
            found = reached.get(package, {}).get(what, 0.0)
            if found < least:
                yield f"{package}: {found:.1f} % of its {what} are run by the unit tests, the floor is {least}"
    yield from (f"{package} has no floor" for package in sorted(reached.keys() - floors["packages"].keys()))


def notes(files: Mapping[str, Any], floors: Mapping[str, Any]) -> Iterable[str]:
    """What is reached, which floor could be raised, and the weak modules."""
    for package, reached in sorted(totals(files).items()):
        floor = floors["packages"].get(package, {})
        can_rise = any(reached[what] > least + SLACK for what, least in floor.items())
        hint = "; raise its floor" if can_rise else ""
        yield f"{package}: {reached['lines']:.1f} % lines, {reached['branches']:.1f} % branches{hint}"
    yield from (f"weak: {module}" for module in sorted(weak_modules(files, WEAK)))


def main(report: str) -> int:
    """Judge one report; print what is reached and what is below its floor."""
    floors = tomllib.loads(FLOORS.read_text())
    files = json.loads(Path(report).read_text())["files"]
    found = list(faults(files, floors))
    for note in notes(files, floors):
        print(note)
    for fault in found:
        print(f"error: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
