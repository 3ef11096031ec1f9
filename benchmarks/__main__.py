"""Run benchmarks: ``python -m benchmarks [--list | --report] [NAME ...]``; NAME is a folder or ``folder.script``.

``--report`` runs nothing: it writes ``docs/benchmarks.md`` from the results that are there.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
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


REMARKS = """\
Where the time goes in what is missed: most of the one-op command is importing Dagster, which both sides pay; the
home made anew is the difference to `--ephemeral`, which is within the goal. The goal of a 17th was taken from a
machine on which openlineage-python needed twice as long per event pair as here. A small sync misses its goals by the
start of
the command (0.45 CPU s) and by what a request costs in Python (115 us a GET of 4 KiB, ADR 0006). A large one is sent
in parts of 6 MiB, each with its CRC-32, where rclone needs one request for an object below 200 MiB.
"""

Goal = tuple[str, str, Callable[[dict[str, Any]], float], float]
GOALS: tuple[Goal, ...] = (
    (
        "50 tasks of 1 s in 10 chains, `threads`: run time by the ideal 5 s",
        "core_executor_waiting",
        lambda result: result["cases"]["threads"]["facts"]["run_s"]["median"] / 5,
        1.3,
    ),
    (
        "engine CPU per empty step, `threads`, ms",
        "core_executor_empty",
        lambda result: result["cases"]["threads"]["facts"]["engine_cpu_s"]["median"] / 50 * 1000,
        15,
    ),
    (
        "50 empty tasks as a whole command, CPU by `dagster job execute`",
        "core_fifty_tasks",
        lambda result: result["cases"]["tidemill threads"]["cpu_ratio"],
        0.8,
    ),
    (
        "one op as a whole command, CPU by `dagster job execute`",
        "core_one_op",
        lambda result: result["cases"]["tidemill dag run"]["cpu_ratio"],
        0.6,
    ),
    ("`tidemill --help`, CPU s", "core_validate", lambda result: _cpu_s(result, "tidemill --help"), 0.5),
    (
        "`tidemill dag validate`, 50 tasks, CPU s",
        "core_validate",
        lambda result: _cpu_s(result, "validate 50 tasks"),
        0.5,
    ),
    (
        "`tidemill dag validate`, 1,000 tasks, CPU s",
        "core_validate",
        lambda result: _cpu_s(result, "validate 1000 tasks"),
        1,
    ),
    (
        "S3 store, PUT of 4 KiB, CPU by obstore",
        "core_store_put_4k",
        lambda result: _cpu_us(result, "tidemill") / _cpu_us(result, "obstore"),
        2,
    ),
    (
        "S3 store, PUT of 4 KiB, CPU by boto3",
        "core_store_put_4k",
        lambda result: _cpu_us(result, "tidemill") / _cpu_us(result, "boto3"),
        0.4,
    ),
    (
        "S3 store, PUT of 64 MiB, CPU by obstore",
        "core_store_put_64m",
        lambda result: _cpu_us(result, "tidemill") / _cpu_us(result, "obstore"),
        1,
    ),
    (
        "tracing, added per captured call, us",
        "lineage_overhead",
        lambda result: result["ratios"]["added per captured call, us"],
        5,
    ),
    (
        "START + COMPLETE to a file, by openlineage-python's time",
        "lineage_overhead",
        lambda result: 1 / result["ratios"]["openlineage-python / tidemill, per START + COMPLETE"],
        1 / 17,
    ),
    (
        "one more run into a million edges, ms",
        "lineage_store",
        lambda result: result["figures"]["one more run that says something else, ms"],
        50,
    ),
    (
        "first sync of 5,000 x 4 KiB, S3 to S3, CPU by rclone",
        "sync_small",
        lambda result: result["cases"]["tidemill"]["cpu_ratio"],
        0.5,
    ),
    (
        "the same by rclone without its check of every object",
        "sync_small",
        lambda result: result["cases"]["tidemill"]["cpu_ratio"] / result["cases"]["rclone --s3-no-head"]["cpu_ratio"],
        0.7,
    ),
    (
        "the same, wall time by rclone",
        "sync_small",
        lambda result: result["cases"]["tidemill"]["wall_ratio"],
        0.8,
    ),
    (
        "nothing changed, 200,000 keys a side, CPU by rclone --checksum",
        "sync_nothing",
        lambda result: result["cases"]["tidemill"]["cpu_ratio"],
        0.35,
    ),
    (
        "the same by s5cmd",
        "sync_nothing",
        lambda result: result["cases"]["tidemill"]["cpu_ratio"] / result["cases"]["s5cmd"]["cpu_ratio"],
        0.12,
    ),
    (
        "nothing changed, 1,000,000 keys a side, CPU s",
        "sync_nothing",
        lambda result: _cpu_s(result, "tidemill, 1000000 keys a side"),
        8,
    ),
    (
        "the same, peak RSS in MiB",
        "sync_nothing",
        lambda result: result["cases"]["tidemill, 1000000 keys a side"]["rss_mib"]["median"],
        60,
    ),
    (
        "8 x 64 MiB, S3 to S3, CPU by rclone",
        "sync_large",
        lambda result: result["cases"]["tidemill"]["cpu_ratio"],
        1.0,
    ),
    (
        "the same, peak RSS in MiB",
        "sync_large",
        lambda result: result["cases"]["tidemill"]["rss_mib"]["median"],
        100,
    ),
    (
        "`tidemill lineage impact` in a million edges, CPU s",
        "lineage_store",
        lambda result: result["figures"]["impact by the command, s"],
        1,
    ),
)


def _cpu_s(result: dict[str, Any], case: str) -> float:
    return float(result["cases"][case]["cpu_s"]["median"])


def _cpu_us(result: dict[str, Any], case: str) -> float:
    return float(result["cases"][case]["facts"]["cpu_us_per_object"]["median"])


def page() -> str:
    """Write the goals and the tables of every result there is."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return "\n".join([HEAD, *goals(results), *(section(result) for result in results.values())])


def goals(results: dict[str, dict[str, Any]]) -> list[str]:
    """Compare what was measured with what was aimed at."""
    lines = ["## Goals", "", "| goal | at most | measured | |", "|---|---|---|---|"]
    for text, name, measure, limit in GOALS:
        if name in results:
            value = measure(results[name])
            lines.append(f"| {text} | {limit:.3g} | {value:.3g} | {'met' if value <= limit else '**missed**'} |")
    return [*lines, "", REMARKS]


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
