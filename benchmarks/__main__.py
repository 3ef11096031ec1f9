"""Run benchmarks: ``python -m benchmarks [--list | --report] [NAME ...]``; NAME is a folder or ``folder.script``.

``--report`` runs nothing: it writes ``docs/benchmarks.md`` from the results that are there.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """\
<!-- Written by `python -m benchmarks --report` from benchmarks/results; run the scripts, do not edit the numbers. -->

# Benchmarks

Every script alternates its cases in one run on one machine, reverses the order every other round, and prints
ratios to a named peer. CPU seconds are those of the command's whole process tree: they are steadier than wall
time on a shared machine. `uv run just bench` runs all; `python -m benchmarks core.one_op` runs one.
"""


def names() -> list[str]:
    """List every benchmark as ``folder.script``."""
    return sorted(f"{path.parent.name}.{path.stem}" for path in HERE.glob("*/*.py") if not path.stem.startswith("_"))


def page() -> str:
    """Write the tables of every result there is."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return "\n".join([HEAD, *(section(result) for result in results)])


def section(result: dict[str, Any]) -> str:
    """Write one result: compared commands as their table, figures taken inside one process as a list."""
    if "cases" in result:
        return table(result).replace("### ", "## ", 1)
    rows = [f"| {name} | {value:g} |" for name, value in {**result["figures"], **result["ratios"]}.items()]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    head = [f"## {result['name']}", "", f"In one process; {result['unit']}.", "", "| what | value |", "|---|---|"]
    return "\n".join([*head, *rows, "", f"{versions}; Python {result['machine']['python']}.", ""])


def main(wanted: list[str]) -> int:
    """Run the wanted benchmarks, or all."""
    if wanted == ["--list"]:
        print("\n".join(names()))
        return 0
    if wanted == ["--report"]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    chosen = [name for name in names() if not wanted or name in wanted or name.split(".")[0] in wanted]
    if not chosen:
        print(f"no benchmark called {' or '.join(wanted)}; --list shows them", file=sys.stderr)
        return 2
    for name in chosen:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
