"""Graphs and runs as plain JSON values, and back; the same graph always gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import orjson

from tidemill_lineage import merging
from tidemill_lineage.errors import GraphDamaged, GraphError
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.model import Column, Dataset, Edge, Job, Run

FORMAT = "tidemill-lineage/2"
_FIRST_FORMAT = "tidemill-lineage/1"
_EDGE_FIELDS = tuple(each.name for each in fields(Edge))


def dump_graph(graph: Graph) -> bytes:
    """Write a graph as an indented JSON document with sorted members.

    ``datasets``, ``jobs`` and ``edges`` are the graph; ``said`` is what it was made from, so that
    later runs can be merged in: subject, and per run the number of one of the ``bodies``.
    """
    bodies: dict[bytes, int] = {}
    said = [[*subject, _numbered(entries, bodies)] for subject, entries in sorted(graph.state.items())]
    value = graph_value(graph) | {"said": said, "bodies": [orjson.loads(each) for each in bodies]}
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def graph_value(graph: Graph) -> dict[str, Any]:
    """Turn a graph into plain values, without what it was made from."""
    return {
        "format": FORMAT,
        "datasets": [dataset_value(each) for each in graph.datasets.values()],
        "jobs": [
            {"name": job.name, "reads": list(job.reads), "writes": list(job.writes)} for job in graph.jobs.values()
        ],
        "edges": [edge_value(each) for each in graph.edges],
    }


def _numbered(entries: Iterable[merging.Entry], bodies: dict[bytes, int]) -> list[list[object]]:
    """Spell entries, with bodies (most are said again and again) as numbers."""
    found: list[list[object]] = []
    for entry in entries:
        run, at, body = merging.plain(entry)
        found.append([run, at, bodies.setdefault(orjson.dumps(body), len(bodies))])
    return found


def parse_graph(data: bytes, *, name: str = "graph") -> Graph:
    """Read what `dump_graph` wrote, by this version or the first.

    Raises:
        GraphDamaged: The text is cut short or changed; says where it goes wrong.
        GraphError: It is something else than a lineage document.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise GraphDamaged(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict) or value.get("format") not in (FORMAT, _FIRST_FORMAT):
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise GraphError(f"{name} is not a lineage document: format is {found!r}, {FORMAT!r} expected")
    try:
        state = _parse_state(value) if "said" in value else _state_of_export(value)
        datasets = [parse_dataset(each) for each in value["datasets"]]
        jobs = [Job(name=j["name"], reads=tuple(j["reads"]), writes=tuple(j["writes"])) for j in value["jobs"]]
        edges = [parse_edge(each) for each in value["edges"]]
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise GraphDamaged(
            f"{name} is damaged: {type(error).__name__} {error}; build it anew from the events"
        ) from error
    return Graph(
        {each.urn: each for each in sorted(datasets)},
        {each.name: each for each in sorted(jobs)},
        tuple(sorted(edges)),
        state,
    )


def _parse_state(value: Mapping[str, Any]) -> merging.State:
    bodies = value["bodies"]
    return {
        (kind, about, more): tuple(merging.parsed([run, at, bodies[number]]) for run, at, number in entries)
        for kind, about, more, entries in value["said"]
    }


def _state_of_export(value: Mapping[str, Any]) -> merging.State:
    """Take an export, or a document of the first version, for what one run before all others said."""
    datasets = {each.urn: each for each in map(parse_dataset, value["datasets"])}
    edges: dict[str, list[Edge]] = {}
    for edge in map(parse_edge, value["edges"]):
        if edge.job and edge.subtype != merging.JOB_LINK:
            edges.setdefault(edge.job, []).append(edge)
    runs = [
        Run(
            id="before",
            job=job["name"],
            reads=tuple(datasets.get(urn, Dataset(urn=urn)) for urn in job["reads"]),
            writes=tuple(datasets.get(urn, Dataset(urn=urn)) for urn in job["writes"]),
            edges=tuple(edges.get(job["name"], ())),
        )
        for job in value["jobs"]
    ]
    return merge(Graph(), runs).state


def faults(graph: Graph) -> list[str]:
    """List what is inconsistent in a graph: edges to unknown datasets or jobs, wrong kinds."""
    found = []
    for edge in graph.edges:
        found += [f"edge names unknown dataset {u}" for u in (edge.source, edge.target) if u not in graph.datasets]
        if edge.kind not in ("DIRECT", "INDIRECT"):
            found.append(f"edge to {edge.target}#{edge.target_column} has kind {edge.kind!r}")
        if edge.job and edge.job not in graph.jobs:
            found.append(f"edge names unknown job {edge.job!r}")
    found += [f"job {job.name!r} names unknown dataset {urn}" for job in graph.jobs.values()
              for urn in (*job.reads, *job.writes) if urn not in graph.datasets]  # fmt: skip
    return sorted(set(found))


def stale(graph: Graph) -> list[str]:
    """List columns that edges name and their datasets no longer have: dropped, or never announced."""
    known = {urn: {each.name for each in dataset.columns} for urn, dataset in graph.datasets.items()}
    ends = {end for e in graph.edges for end in ((e.source, e.source_column), (e.target, e.target_column))}
    return sorted(f"{urn}#{name}" for urn, name in ends if name and known.get(urn) and name not in known[urn])


def dump_run(run: Run) -> bytes:
    """Write one run as one line of JSON, without its line end."""
    return orjson.dumps(
        {
            "run": run.id,
            "job": run.job,
            "state": run.state,
            "started_at": run.started_at,
            "ended_at": run.ended_at,
            "reads": [dataset_value(each) for each in run.reads],
            "writes": [dataset_value(each) for each in run.writes],
            "edges": [edge_value(each) for each in run.edges],
            "rows": run.rows,
            "error": run.error,
            "calls": run.calls,
            "attempt": run.attempt,
        }
    )


def parse_run(line: bytes) -> Run:
    """Read what `dump_run` wrote.

    Raises:
        GraphError: The line is cut short or is no run.
    """
    try:
        return _run(orjson.loads(line))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise GraphError(f"a line is no run: {error}") from error


def parse_runs(data: bytes) -> tuple[Run, ...]:
    """Read a JSON list of runs.

    Raises:
        GraphError: It is damaged.
    """
    try:
        return tuple([_run(each) for each in orjson.loads(data)])
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise GraphError(f"these are no runs: {error}") from error


def _run(value: Mapping[str, Any]) -> Run:
    return Run(
        id=value["run"],
        job=value["job"],
        state=value["state"],
        started_at=value["started_at"],
        ended_at=value["ended_at"],
        reads=tuple(map(parse_dataset, value["reads"])),
        writes=tuple(map(parse_dataset, value["writes"])),
        edges=tuple(map(parse_edge, value["edges"])),
        rows=value["rows"],
        error=value["error"],
        calls=value.get("calls", 1),
        attempt=value.get("attempt", 0),
    )


def dataset_value(dataset: Dataset) -> dict[str, Any]:
    """Turn a dataset into plain values."""
    value: dict[str, Any] = {"urn": dataset.urn, "columns": [[each.name, each.type] for each in dataset.columns]}
    return value | {"asset_key": dataset.asset_key} if dataset.asset_key else value


def parse_dataset(value: Mapping[str, Any]) -> Dataset:
    """Turn plain values into a dataset."""
    columns: Iterable[tuple[str, str]] = value["columns"]
    return Dataset(
        urn=value["urn"],
        columns=tuple(Column(name=name, type=kind) for name, kind in columns),
        asset_key=value.get("asset_key", ""),
    )


def edge_value(edge: Edge) -> dict[str, Any]:
    """Turn an edge into plain values; empty ones are left out."""
    return {name: value for name in _EDGE_FIELDS if (value := getattr(edge, name))}


def parse_edge(value: Mapping[str, Any]) -> Edge:
    """Turn plain values into an edge."""
    return Edge(**value)
