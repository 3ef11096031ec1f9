"""What tracing adds to a call, and what an event costs, against openlineage-python in the same run.

Each figure is CPU microseconds per unit, measured in one process in alternating rounds (median of
the rounds). openlineage-python is no dependency: ``uv run --with openlineage-python python -m
benchmarks lineage`` has it; without it its rows are left out.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, _versions

COLUMNS = 10
Work = Callable[[int], None]


def main(rounds: int = 7, scale: float = 1.0) -> dict[str, Any]:
    """Measure everything; `scale` shrinks the work for a smoke test."""
    with tempfile.TemporaryDirectory() as folder:
        cases = {**_calls(), **_plans(), **_events(Path(folder)), **_peer(Path(folder))}
        figures: dict[str, list[float]] = {name: [] for name in cases}
        for number in range(rounds):
            for name in sorted(cases, reverse=bool(number % 2)):
                work, count = cases[name]
                count = max(1, int(count * scale))
                began = time.process_time()
                work(count)
                figures[name].append((time.process_time() - began) / count * 1e6)
    return _report({name: statistics.median(found) for name, found in figures.items()})


def _calls() -> dict[str, tuple[Work, int]]:
    """The hot path: a function that does nothing, bare and traced. The background thread's work counts too."""
    from tidemill_lineage import Tracer
    from tidemill_lineage.emitters.memory import MemoryEmitter
    from tidemill_lineage.observed import Call

    class CaptureOnly(Tracer):
        def _put(self, item: Any) -> None:
            assert isinstance(item, Call)

    def bare(x: int) -> int:
        return x

    only = CaptureOnly().trace(inputs={"x": "t://in"}, output="t://out")(bare)
    tracer = Tracer([MemoryEmitter()], queue_size=1_000_000)
    whole = tracer.trace(inputs={"x": "t://in"}, output="t://out")(bare)

    def loop(function: Callable[[int], int], count: int) -> None:
        for i in range(count):
            function(i)

    def flushed(count: int) -> None:
        loop(whole, count)
        tracer.flush(timeout_s=60)

    return {
        "call, bare": (lambda count: loop(bare, count), 200_000),
        "call, captured": (lambda count: loop(only, count), 50_000),
        "call, captured, made a run and emitted to memory": (flushed, 3_000),
    }


def _plans() -> dict[str, tuple[Work, int]]:
    import polars as pl
    from tidemill_lineage.capture.polars import capture

    left = pl.LazyFrame({"k": [1, 2], "a": [1, 2], "b": [1.0, 2.0]})
    right = pl.LazyFrame({"k": [1, 2], "c": [1, 2]})
    third = pl.LazyFrame({"k": [1, 2], "d": [1, 2]})
    query = left.join(right, on="k").join(third, on="k").filter(pl.col("a") > 0)
    query = query.group_by("k").agg(z=pl.col("b").sum(), y=(pl.col("c") * pl.col("d")).max())
    inputs = {"t://l": left, "t://r": right, "t://t": third}

    def edges(count: int) -> None:
        for _ in range(count):
            capture(query, inputs, output="t://out")

    def collect(count: int) -> None:
        for _ in range(count):
            query.collect()

    return {"plan of two joins, edges read": (edges, 200), "plan of two joins, collected (2 rows)": (collect, 100)}


def _run() -> Any:
    from tidemill_lineage.model import Column, Dataset, Edge, Run

    names = [f"column_{i}" for i in range(COLUMNS)]
    columns = tuple(Column(name=name, type="int8") for name in names)
    source, target = "postgres://h:5432/db/raw.t", "postgres://h:5432/db/mart.t"
    edges = tuple(
        Edge(source=source, source_column=name, target=target, target_column=name, kind="DIRECT", subtype="IDENTITY",
             method="plan", job="job")
        for name in names
    )  # fmt: skip
    read, wrote = Dataset(urn=source, columns=columns), Dataset(urn=target, columns=columns)
    return Run(id="r", job="job", started_at=1.7e9, ended_at=1.7e9, reads=(read,), writes=(wrote,), edges=edges)


def _events(folder: Path) -> dict[str, tuple[Work, int]]:
    from tidemill_lineage import EventLog, OpenLineageEmitter

    run = _run()
    emitter, log = OpenLineageEmitter((folder / "ours.jsonl").as_uri()), EventLog(folder / "log")

    def emit(count: int) -> None:
        for _ in range(count):
            emitter.emit([run])

    def append(count: int) -> None:
        for _ in range(count):
            log.append(run)

    return {
        "START + COMPLETE to a file, tidemill": (emit, 500),
        "run to the event log, tidemill": (append, 500),
    }


def _peer(folder: Path) -> dict[str, tuple[Work, int]]:
    try:
        from openlineage.client import OpenLineageClient, event_v2
        from openlineage.client.facet_v2 import column_lineage_dataset, schema_dataset
        from openlineage.client.transport.file import FileConfig, FileTransport
    except ImportError:
        return {}
    client = OpenLineageClient(transport=FileTransport(FileConfig(log_file_path=str(folder / "t.jsonl"), append=True)))
    names = [f"column_{i}" for i in range(COLUMNS)]

    def event(state: Any) -> Any:
        fields = [schema_dataset.SchemaDatasetFacetFields(name=name, type="int8") for name in names]
        lineage = {
            name: column_lineage_dataset.Fields(
                inputFields=[
                    column_lineage_dataset.InputField(
                        namespace="postgres://h:5432",
                        name="db.raw.t",
                        field=name,
                        transformations=[column_lineage_dataset.Transformation(type="DIRECT", subtype="IDENTITY")],
                    )
                ]
            )
            for name in names
        }
        facets = {
            "schema": schema_dataset.SchemaDatasetFacet(fields=fields),
            "columnLineage": column_lineage_dataset.ColumnLineageDatasetFacet(fields=lineage),
        }
        ended = state is event_v2.RunState.COMPLETE
        return event_v2.RunEvent(
            eventType=state,
            eventTime="2023-11-14T22:13:20.000+00:00",
            run=event_v2.Run(runId="6f1d2c9e-5c0a-5a58-9a3c-3f0c6d1b7e21"),
            job=event_v2.Job(namespace="tidemill", name="job"),
            inputs=[event_v2.InputDataset(namespace="postgres://h:5432", name="db.raw.t")] if ended else [],
            outputs=[event_v2.OutputDataset(namespace="postgres://h:5432", name="db.mart.t", facets=facets)]
            if ended
            else [],
            producer="urn:tidemill:lineage",
        )

    def emit(count: int) -> None:
        for _ in range(count):
            client.emit(event(event_v2.RunState.START))
            client.emit(event(event_v2.RunState.COMPLETE))

    return {"START + COMPLETE to a file, openlineage-python": (emit, 60)}


def _report(figures: dict[str, float]) -> dict[str, Any]:
    added = figures["call, captured"] - figures["call, bare"]
    ours, theirs = "START + COMPLETE to a file, tidemill", "START + COMPLETE to a file, openlineage-python"
    ratios = {"added per captured call, us": round(added, 2)}
    if theirs in figures:
        ratios["openlineage-python / tidemill, per START + COMPLETE"] = round(figures[theirs] / figures[ours], 1)
    result = {
        "name": "lineage_overhead",
        "unit": "CPU microseconds, median of the rounds",
        "figures": {name: round(value, 2) for name, value in sorted(figures.items())},
        "ratios": ratios,
        "versions": _versions(["tidemill-lineage", "polars", "openlineage-python"]),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lineage_overhead.json").write_text(json.dumps(result, indent=1) + "\n")
    print("| what | CPU us |\n|---|---|")
    for name, value in {**result["figures"], **ratios}.items():
        print(f"| {name} | {value:g} |")
    return result


if __name__ == "__main__":
    main()
