"""The lineage graph as a value: merge runs into it, and ask it questions. No file, no server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tidemill_lineage import merging
from tidemill_lineage.merging import JOB_LINK, State
from tidemill_lineage.model import (
    ASSET_SCHEME,
    Column,
    Dataset,
    DatasetUrn,
    Edge,
    Job,
    Run,
    asset_urn,
    column_urn,
    stable_urn,
)
from tidemill_lineage.queries import Lineage, Node

PART_LINK = "PART"
"""Subtype of the edges from a dataset to a folder or bucket that holds it and is read as a whole."""


@dataclass(frozen=True)
class Graph(Lineage):
    """Datasets, jobs and edges, each sorted by name; equal inputs give an equal graph.

    `state` is what runs have said, from which the rest is derived; see `merging`. A graph made
    without it can be asked, not merged into.
    """

    datasets: Mapping[DatasetUrn, Dataset] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()
    state: State = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def _incoming(self) -> dict[DatasetUrn, list[Edge]]:
        found: dict[DatasetUrn, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            found[edge.target].append(edge)
        return found

    @cached_property
    def _outgoing(self) -> dict[DatasetUrn, list[Edge]]:
        found: dict[DatasetUrn, list[Edge]] = defaultdict(list)
        for edge in self.edges:
            found[edge.source].append(edge)
        return found

    def dataset(self, urn: DatasetUrn) -> Dataset | None:
        """Find a dataset."""
        return self.datasets.get(urn)

    def candidates(self, name: str) -> list[DatasetUrn]:
        """Find the datasets of an asset key, else those whose URN or asset key ends so."""
        exact = [urn for urn, each in self.datasets.items() if each.asset_key == name]
        return exact or [u for u, each in self.datasets.items() if _ends(u, name) or _ends(each.asset_key, name)]

    def incoming(self, node: Node) -> Sequence[Edge]:
        """Edges to a dataset, or only those that reach one of its columns."""
        urn, column = node
        return [edge for edge in self._incoming.get(urn, ()) if not column or edge.target_column in ("", column)]

    def outgoing(self, node: Node) -> Sequence[Edge]:
        """Edges from a dataset, or only those that one of its columns has a part in."""
        urn, column = node
        return [edge for edge in self._outgoing.get(urn, ()) if not column or edge.source_column in ("", column)]

    def edge_columns(self, urn: DatasetUrn) -> set[str]:
        """Columns of a dataset that edges name."""
        found = {edge.target_column for edge in self._incoming.get(urn, ())}
        return (found | {edge.source_column for edge in self._outgoing.get(urn, ())}) - {""}

    def near_names(self, name: str) -> list[str]:
        """All names of datasets."""
        del name
        return [*self.datasets, *(each.asset_key for each in self.datasets.values() if each.asset_key)]

    def orphans(self) -> list[DatasetUrn]:
        """List datasets that no edge touches and no job both reads or writes: probably mistyped names."""
        used = {urn for job in self.jobs.values() for urn in (*job.reads, *job.writes)}
        touched = {urn for edge in self.edges for urn in (edge.source, edge.target)}
        return [urn for urn in self.datasets if urn not in used | touched]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphDiff:
    """What one graph has and the other has not."""

    datasets_added: tuple[DatasetUrn, ...]
    datasets_removed: tuple[DatasetUrn, ...]
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    edges_added: tuple[Edge, ...]
    edges_removed: tuple[Edge, ...]

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__dataclass_fields__)


def diff(before: Graph, after: Graph) -> GraphDiff:
    """Compare two graphs, such as those of two runs."""
    old, new = _column_names(before), _column_names(after)
    return GraphDiff(
        datasets_added=tuple(sorted(after.datasets.keys() - before.datasets.keys())),
        datasets_removed=tuple(sorted(before.datasets.keys() - after.datasets.keys())),
        columns_added=tuple(sorted(new - old)),
        columns_removed=tuple(sorted(old - new)),
        edges_added=tuple(sorted(set(after.edges) - set(before.edges))),
        edges_removed=tuple(sorted(set(before.edges) - set(after.edges))),
    )


def merge(graph: Graph, runs: Iterable[Run]) -> Graph:
    """Add runs to a graph by the rule of `merging`; their order and batching do not matter.

    Returns:
        A new graph; merging the same runs again returns an equal one.
    """
    return derived(merging.advanced(graph.state, runs))


def derived(state: State) -> Graph:
    """Build the graph that a state stands for."""
    touches = _touches(state)
    datasets = _datasets(state, touches)
    edges, touched = _said(state, touches)
    stored = _stored_assets(datasets)
    names = {asset_urn(key): urns[0] for key, urns in stored.items() if len(urns) == 1}
    renamed_sets = _rename_datasets(datasets, names)
    jobs = {name: Job(name=name, reads=_renamed(reads, names), writes=_renamed(writes, names))
            for name, (reads, writes) in sorted(touched.items())}  # fmt: skip
    found = merging.last_said(
        edge for each in edges
        if (edge := merging.renamed_edge(each, names)).source != edge.target or edge.source_column or edge.target_column
    )  # fmt: skip
    found = without_covered_links(found)
    found |= _asset_links(stored, renamed_sets, found)
    found |= _part_links(jobs, renamed_sets)
    return Graph(dict(sorted(renamed_sets.items())), jobs, tuple(sorted(found)), dict(state))


def without_covered_links(edges: Iterable[Edge]) -> set[Edge]:
    """Leave out the links of jobs that said something finer of the target, or where the two are joined anyway."""
    told = [edge for edge in edges if edge.subtype != JOB_LINK]
    said, joined = {(edge.job, edge.target) for edge in told}, {(edge.source, edge.target) for edge in told}
    links = (edge for edge in edges if edge.subtype == JOB_LINK)
    return {*told, *(e for e in links if (e.job, e.target) not in said and (e.source, e.target) not in joined)}


def _touches(state: State) -> dict[str, dict[str, merging.Touch]]:
    """Job -> run -> what it touched."""
    found: dict[str, dict[str, merging.Touch]] = {}
    for (kind, job, run), entries in state.items():
        if kind == merging.TOUCHED:
            found.setdefault(job, {})[run] = merging.touch_of(entries)
    return found


def _datasets(state: State, touches: Mapping[str, Mapping[str, merging.Touch]]) -> dict[DatasetUrn, Dataset]:
    urns = {urn for runs in touches.values() for each in runs.values() for urn in (*each.reads, *each.writes)}
    urns |= {alias for runs in touches.values() for each in runs.values() for alias in each.aliases}
    urns |= {subject[1] for subject in state if subject[0] in (merging.COLUMNS, merging.ASSET)}
    found = {}
    for urn in sorted(urns):
        columns = merging.columns_in_force(state.get((merging.COLUMNS, urn, ""), ()))
        key = merging.asset_in_force(state.get((merging.ASSET, urn, ""), ()))
        told = tuple(Column(name=name, type=kind) for name, kind in columns)
        found[urn] = Dataset(urn=urn, columns=told, asset_key=key)
    return found


def _said(
    state: State, touches: Mapping[str, Mapping[str, merging.Touch]]
) -> tuple[list[Edge], dict[str, tuple[set[DatasetUrn], set[DatasetUrn]]]]:
    """Spell out the edges in force, and what each job reads and writes by them."""
    edges: list[Edge] = []
    touched: dict[str, tuple[set[DatasetUrn], set[DatasetUrn]]] = {}
    for (kind, job, target), entries in state.items():
        if kind != merging.EDGES:
            continue
        runs = touches.get(job, {})
        reads, writes = touched.setdefault(job, (set(), set()))
        entry = merging.in_force(entries, runs) or entries[0]
        here = runs.get(entry.run, merging.NOTHING_TOUCHED)
        edges += merging.edges_in_force(job, target, entry, here)
        reads |= here.reads
        writes.add(here.names.get(target, target))
    for job, runs in touches.items():
        if job not in touched:
            newest = max(runs, key=lambda run: (state[merging.TOUCHED, job, run][0].at, run))
            touched[job] = (set(runs[newest].reads), set())
    return edges, touched


def with_stable_names(runs: Sequence[Run]) -> list[Run]:
    """Name datasets the same in every run.

    Ports that the system chose go (`stable_urn`), and ``asset://key`` becomes the stored dataset of
    that asset which the same job read or wrote in the same run.
    """
    stored: dict[tuple[str, str], dict[DatasetUrn, set[DatasetUrn]]] = {}
    stable = [renamed(run, {urn: name for urn in _urns(run) if (name := stable_urn(urn)) != urn}) for run in runs]
    for run in stable:
        for dataset in (*run.reads, *run.writes):
            if dataset.asset_key and not dataset.urn.startswith(ASSET_SCHEME):
                known = stored.setdefault((run.id, run.job), {})
                known.setdefault(asset_urn(dataset.asset_key), set()).add(dataset.urn)
    found = []
    for run in stable:
        known = stored.get((run.id, run.job), {}) if stored else {}
        found.append(renamed(run, {alias: next(iter(urns)) for alias, urns in known.items() if len(urns) == 1}))
    return found


def stored_names(assets: Iterable[tuple[str, DatasetUrn]]) -> dict[DatasetUrn, DatasetUrn]:
    """Map ``asset://key`` to where that asset is stored, where that is one place and no more.

    Args:
        assets: Asset keys, each with the URN of a dataset of it.
    """
    stored: dict[str, set[DatasetUrn]] = {}
    for key, urn in assets:
        if key and not urn.startswith(ASSET_SCHEME):
            stored.setdefault(key, set()).add(urn)
    return {asset_urn(key): next(iter(urns)) for key, urns in stored.items() if len(urns) == 1}


def renamed(run: Run, names: Mapping[DatasetUrn, DatasetUrn]) -> Run:
    """Replace URNs everywhere in a run."""
    if not names:
        return run
    return replace(
        run,
        reads=tuple(replace(each, urn=names.get(each.urn, each.urn)) for each in run.reads),
        writes=tuple(replace(each, urn=names.get(each.urn, each.urn)) for each in run.writes),
        edges=tuple(merging.renamed_edge(each, names) for each in run.edges),
    )


def _urns(run: Run) -> set[DatasetUrn]:
    named = {each.urn for each in (*run.reads, *run.writes)}
    return named | {urn for edge in run.edges for urn in (edge.source, edge.target)}


def _stored_assets(datasets: Mapping[DatasetUrn, Dataset]) -> dict[str, list[DatasetUrn]]:
    """Group the stored datasets by the asset they hold."""
    stored: dict[str, list[DatasetUrn]] = {}
    for urn in sorted(datasets):
        if datasets[urn].asset_key and not urn.startswith(ASSET_SCHEME):
            stored.setdefault(datasets[urn].asset_key, []).append(urn)
    return stored


def _rename_datasets(
    datasets: Mapping[DatasetUrn, Dataset], names: Mapping[DatasetUrn, DatasetUrn]
) -> dict[DatasetUrn, Dataset]:
    """Replace ``asset://key`` by the one stored dataset of that asset, whose columns win."""
    known: dict[DatasetUrn, Dataset] = {}
    for urn in sorted(datasets, key=lambda urn: urn in names):
        real = names.get(urn, urn)
        known[real] = _fill(known[real], datasets[urn]) if real in known else replace(datasets[urn], urn=real)
    return known


def _fill(known: Dataset, other: Dataset) -> Dataset:
    return replace(known, columns=known.columns or other.columns, asset_key=known.asset_key or other.asset_key)


def _renamed(urns: Iterable[DatasetUrn], names: Mapping[DatasetUrn, DatasetUrn]) -> tuple[DatasetUrn, ...]:
    return tuple(sorted({names.get(urn, urn) for urn in urns}))


def _asset_links(
    stored: Mapping[str, list[DatasetUrn]], datasets: Mapping[DatasetUrn, Dataset], edges: Iterable[Edge]
) -> set[Edge]:
    """Tie an asset kept in several stores to each of them, column by column where names agree."""
    used = {urn for edge in edges for urn in (edge.source, edge.target) if urn.startswith(ASSET_SCHEME)}
    links: set[Edge] = set()
    for alias in sorted(used & datasets.keys()):
        for urn in stored.get(alias.removeprefix(ASSET_SCHEME), ()):
            names = {each.name for each in datasets[alias].columns} & {each.name for each in datasets[urn].columns}
            links |= {
                Edge(
                    source=urn, source_column=name, target=alias, target_column=name,
                    kind="DIRECT", subtype="IDENTITY", method="schema",
                )
                for name in names or {""}
            }  # fmt: skip
    return links


def _part_links(jobs: Mapping[str, Job], datasets: Iterable[DatasetUrn]) -> set[Edge]:
    """Link what lies in a folder or bucket to it, where a job reads it as a whole (a sync of the lake)."""
    wholes = {urn for job in jobs.values() for urn in job.reads}
    return {
        Edge(source=part, target=whole, kind="DIRECT", subtype=PART_LINK, method="declared")
        for whole in wholes
        for part in datasets
        if part != whole and part.startswith(whole.rstrip("/") + "/")
    }


def _column_names(graph: Graph) -> set[str]:
    return {column_urn(urn, column.name) for urn, dataset in graph.datasets.items() for column in dataset.columns}


def _ends(text: str, name: str) -> bool:
    return bool(text) and (text == name or text.endswith(("/" + name, "." + name)))


def columns_of(schema: Mapping[str, object]) -> tuple[Column, ...]:
    """Turn a name-to-type mapping (a polars schema) into columns, in its order."""
    return tuple(Column(name=name, type=str(dtype)) for name, dtype in schema.items())
