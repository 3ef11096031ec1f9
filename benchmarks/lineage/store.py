"""The graph as a store: what one more run, and one question, cost in a graph of a million edges.

Memory and CPU of the questions are those of a process of its own, as of the command.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, _versions

LAYERS, COLUMNS = 20, 100


def a_run(layer: int, table: int, tables: int, *, run: str, at: float, columns: int = COLUMNS) -> Any:
    """One table made from two of the layer before, column by column."""
    from tidemill_lineage.model import Column, Dataset, Edge, Run

    target = f"postgres://h:5432/db/layer{layer}.t{table}"
    edges = tuple(
        Edge(source=f"postgres://h:5432/db/layer{layer - 1}.t{(table + c % 2) % tables}", source_column=f"c{c}",
             target=target, target_column=f"c{c}", kind="DIRECT", subtype="IDENTITY", method="sql")
        for c in range(columns)
    )  # fmt: skip
    wrote = Dataset(urn=target, columns=tuple(Column(name=f"c{c}", type="int8") for c in range(columns)))
    return Run(id=run, job=f"job {layer} {table}", ended_at=at, writes=(wrote,), edges=edges)


def main(scale: float = 1.0) -> dict[str, Any]:
    """Build a graph of a million edges (times `scale`), add a run, and ask."""
    from tidemill_lineage.stored_graph import StoredGraph

    tables = max(2, int(500 * scale))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lineage.sqlite"
        store = StoredGraph(path)
        figures = {"build it all, s": _timed(lambda: _build(store, tables)) / 1e3}
        again = a_run(LAYERS // 2, 1, tables, run="again", at=2.0)
        figures["one more run that says the same, ms"] = _timed(lambda: store.add([again]))
        other = a_run(LAYERS // 2, 1, tables, run="other", at=3.0, columns=COLUMNS // 2)
        figures["one more run that says something else, ms"] = _timed(lambda: store.add([other]))
        store.close()
        for verb, layer in (("impact", 0), ("downstream", 0), ("upstream", LAYERS)):
            name = f"postgres://h:5432/db/layer{layer}.t1#c0"
            figures |= _command(verb, path, name)
        figures |= _collected(path, again)
        figures["file, MB"] = path.stat().st_size / 1e6
    return _report(figures, LAYERS * tables * COLUMNS)


def _build(store: Any, tables: int) -> None:
    for layer in range(1, LAYERS + 1):
        store.add([a_run(layer, table, tables, run="first", at=1.0) for table in range(tables)])


def _collected(path: Path, run: Any) -> dict[str, float]:
    """Collect as the Dagster asset does: once with everything to export, then a run that says the same."""
    from dataclasses import replace

    from tidemill_lineage import EventLog
    from tidemill_lineage.collect import collect

    log, document = EventLog(path.parent / "events"), path.with_suffix(".json")
    log.append(replace(run, id="third", ended_at=4.0))
    first = _timed(lambda: collect(log, document))
    log.append(replace(run, id="fourth", ended_at=5.0))
    return {
        "collect with the document to write, ms": first,
        "collect one more run that says the same, ms": _timed(lambda: collect(log, document)),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3


def _command(verb: str, path: Path, name: str) -> dict[str, float]:
    """Run the command, and read what its process used."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable,
        "-c",
        "from tidemill_core.cli import main; main()",
        "lineage",
        verb,
        name,
        "--graph",
        str(path),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        f"{verb} by the command, s": cpu_s,
        f"{verb} by the command, MB (most of any child)": after.ru_maxrss / 1e3,
        f"{verb} by the command, names": len(json.loads(done.stdout)),
    }


def _report(figures: dict[str, float], edges: int) -> dict[str, Any]:
    result = {
        "name": "lineage_store",
        "unit": "CPU",
        "edges": edges,
        "figures": {name: round(value, 3) for name, value in figures.items()},
        "ratios": {},
        "versions": _versions(["tidemill-lineage"]),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lineage_store.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"| in a graph of {edges:,} edges | CPU |\n|---|---|")
    for name, value in result["figures"].items():
        print(f"| {name} | {value:g} |")
    return result


if __name__ == "__main__":
    main()
