"""The lineage graph as a value: merge runs into it, and ask it questions. No file, no server."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tidemill_lineage.errors import GraphError
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
    split_column,
    stable_urn,
)

JOB_LINK = "JOB"
"""Subtype of the edges that only say: one job read this and wrote that."""
PART_LINK = "PART"
"""Subtype of the edges from a dataset to a folder or bucket that holds it and is read as a whole."""


@dataclass(frozen=True)
class Graph:
    """Datasets, jobs and edges, each sorted by name; equal inputs give an equal graph."""

    datasets: Mapping[DatasetUrn, Dataset] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()

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

    def resolve(self, name: str) -> str:
        """Find the one dataset or column that `name` means: a URN, an asset key or an unambiguous end of either.

        Raises:
            GraphError: Nothing, or more than one thing, has this name.
        """
        dataset, column = split_column(name)
        urn = self._resolve_dataset(stable_urn(dataset))
        known = {each.name for each in self.datasets[urn].columns} | self._edge_columns(urn)
        if column and column not in known:
            raise GraphError(f"{urn} has no column {column!r}; known: {', '.join(sorted(known)) or 'none'}")
        return column_urn(urn, column)

    def _resolve_dataset(self, name: str) -> DatasetUrn:
        if name in self.datasets:
            return name
        exact = [urn for urn, each in self.datasets.items() if each.asset_key == name]
        found = exact or [urn for urn, each in self.datasets.items() if _ends(urn, name) or _ends(each.asset_key, name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise GraphError(f"{name!r} means more than one dataset: {', '.join(found)}; give the whole URN")
        raise GraphError(f"no dataset is called {name!r}; `tidemill lineage show` lists them")

    def _edge_columns(self, urn: DatasetUrn) -> set[str]:
        found = {edge.target_column for edge in self._incoming.get(urn, ())}
        return (found | {edge.source_column for edge in self._outgoing.get(urn, ())}) - {""}

    def upstream(self, name: str, *, depth: int | None = None) -> list[str]:
        """List what a dataset or column is made from, nearest first, with names sorted at each distance."""
        return [each for level in self._levels(self.resolve(name), self._sources, depth) for each in level]

    def downstream(self, name: str, *, depth: int | None = None) -> list[str]:
        """List what depends on a dataset or column, nearest first, with names sorted at each distance."""
        return [each for level in self._levels(self.resolve(name), self._targets, depth) for each in level]

    def impact(self, name: str) -> dict[str, str]:
        """Say what changes with a column: every column downstream, with DIRECT if values flow all the way.

        Returns:
            Column (or dataset) names, sorted; the value is ``DIRECT`` or ``INDIRECT``.
        """
        start = self.resolve(name)
        direct = {each for level in self._levels(start, self._direct_targets, None) for each in level}
        reached = {each for level in self._levels(start, self._targets, None) for each in level}
        return {each: "DIRECT" if each in direct else "INDIRECT" for each in sorted(reached)}

    def path(self, source: str, target: str) -> list[Edge]:
        """Find a shortest chain of edges from one dataset or column to another.

        Returns:
            The edges in order of flow; empty when nothing connects the two.
        """
        start, goal = self.resolve(source), self.resolve(target)
        came: dict[str, tuple[str, Edge] | None] = {start: None}
        queue = deque([start])
        while queue and goal not in came:
            here = queue.popleft()
            for there, edge in self._targets(here):
                if there not in came:
                    came[there] = (here, edge)
                    queue.append(there)
        chain: list[Edge] = []
        step = came.get(goal)
        while step is not None:
            chain.append(step[1])
            step = came[step[0]]
        return chain[::-1]

    def orphans(self) -> list[DatasetUrn]:
        """List datasets that no edge touches and no job both reads or writes: probably mistyped names."""
        used = {urn for job in self.jobs.values() for urn in (*job.reads, *job.writes)}
        touched = {urn for edge in self.edges for urn in (edge.source, edge.target)}
        return [urn for urn in self.datasets if urn not in used | touched]

    def _sources(self, name: str) -> Iterator[tuple[str, Edge]]:
        dataset, column = split_column(name)
        for edge in self._incoming.get(dataset, ()):
            if not column or edge.target_column in ("", column):
                yield (column_urn(edge.source, edge.source_column) if column else edge.source), edge

    def _targets(self, name: str) -> Iterator[tuple[str, Edge]]:
        dataset, column = split_column(name)
        for edge in self._outgoing.get(dataset, ()):
            if not column or edge.source_column in ("", column):
                yield from ((each, edge) for each in self._named_targets(edge, as_columns=bool(column)))

    def _direct_targets(self, name: str) -> Iterator[tuple[str, Edge]]:
        """Follow values only: counting the rows of a dataset carries no column's values on."""
        is_column = bool(split_column(name)[1])
        for each, edge in self._targets(name):
            counts_rows = is_column and not edge.source_column and edge.method in ("plan", "probe", "sql")
            if edge.kind == "DIRECT" and not counts_rows:
                yield each, edge

    def _named_targets(self, edge: Edge, *, as_columns: bool) -> list[str]:
        """Spell out "every column of the target" so that a walk by column goes on from each."""
        if not as_columns:
            return [edge.target]
        if edge.target_column:
            return [column_urn(edge.target, edge.target_column)]
        columns = {each.name for each in self.datasets[edge.target].columns} | self._edge_columns(edge.target)
        return [column_urn(edge.target, each) for each in sorted(columns)] or [edge.target]

    @staticmethod
    def _levels(
        start: str, neighbours: Callable[[str], Iterable[tuple[str, Edge]]], depth: int | None
    ) -> Iterator[list[str]]:
        seen, level, far = {start}, [start], 0
        while level and (depth is None or far < depth):
            found = {there for here in level for there, _ in neighbours(here)} - seen
            seen |= found
            level, far = sorted(found), far + 1
            if level:
                yield level


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
    """Fold runs into a graph, in the order they ended.

    A failed run changes nothing. A run that found edges between a source and a target replaces what
    its job had said of that pair before; pairs it says nothing of (no new file, nothing to do) stay.

    Returns:
        A new graph; merging the same runs again returns an equal one.
    """
    done = sorted((run for run in runs if run.state == "COMPLETE"), key=lambda run: (run.ended_at, run.id, run.job))
    done = with_stable_names(done)
    datasets, jobs = dict(graph.datasets), dict(graph.jobs)
    described: dict[DatasetUrn, str] = {}
    for run in done:
        for dataset in (*run.reads, *run.writes):
            known = datasets.get(dataset.urn)
            datasets[dataset.urn] = _merge_dataset(known, dataset, more=described.get(dataset.urn) == run.id)
            if dataset.columns:
                described[dataset.urn] = run.id
        for urn in _urns(run):
            datasets.setdefault(urn, Dataset(urn=urn))
        jobs[run.job] = _merge_job(jobs.get(run.job, Job(name=run.job)), run)
    stored = _stored_assets(datasets)
    names = {asset_urn(key): urns[0] for key, urns in stored.items() if len(urns) == 1}
    found = _merge_edges((edge for edge in graph.edges if not _is_derived(edge)), done, names)
    renamed_sets = _rename_datasets(datasets, names)
    renamed_jobs = {
        name: Job(name=name, reads=_renamed(job.reads, names), writes=_renamed(job.writes, names))
        for name, job in sorted(jobs.items())
    }
    found |= _asset_links(stored, renamed_sets, found)
    found |= _job_links(renamed_jobs, found)
    found |= _part_links(renamed_jobs, renamed_sets)
    return Graph(dict(sorted(renamed_sets.items())), renamed_jobs, tuple(sorted(found)))


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


def renamed(run: Run, names: Mapping[DatasetUrn, DatasetUrn]) -> Run:
    """Replace URNs everywhere in a run."""
    if not names:
        return run
    return replace(
        run,
        reads=tuple(replace(each, urn=names.get(each.urn, each.urn)) for each in run.reads),
        writes=tuple(replace(each, urn=names.get(each.urn, each.urn)) for each in run.writes),
        edges=tuple(_rename_edge(each, names) for each in run.edges),
    )


def _urns(run: Run) -> set[DatasetUrn]:
    named = {each.urn for each in (*run.reads, *run.writes)}
    return named | {urn for edge in run.edges for urn in (edge.source, edge.target)}


def _merge_edges(edges: Iterable[Edge], runs: Iterable[Run], names: Mapping[DatasetUrn, DatasetUrn]) -> set[Edge]:
    """Let the last run that spoke of a (job, source, target) decide its edges."""
    pairs: dict[tuple[str, DatasetUrn, DatasetUrn], set[Edge]] = defaultdict(set)
    for edge in edges:
        here = _rename_edge(edge, names)
        pairs[here.job, here.source, here.target].add(here)
    owner: dict[tuple[str, DatasetUrn, DatasetUrn], str] = {}
    for run in runs:
        for edge in run.edges:
            here = replace(_rename_edge(edge, names), job=run.job)
            pair = (here.job, here.source, here.target)
            if owner.get(pair) != run.id:  # the first word of a new run on this pair
                pairs[pair], owner[pair] = set(), run.id
            pairs[pair].add(here)
    # a whole dataset says nothing of itself: an alias of the target was declared as its input
    return {e for found in pairs.values() for e in found if e.source != e.target or e.source_column or e.target_column}


def _rename_edge(edge: Edge, names: Mapping[DatasetUrn, DatasetUrn]) -> Edge:
    return replace(edge, source=names.get(edge.source, edge.source), target=names.get(edge.target, edge.target))


def _is_derived(edge: Edge) -> bool:
    """Whether `merge` made this edge itself; it is made anew each time."""
    return edge.method == "schema" or edge.subtype in (JOB_LINK, PART_LINK)


def _merge_dataset(old: Dataset | None, new: Dataset, *, more: bool) -> Dataset:
    """The newest run's columns win, in one run they add up (`more`), and a run that names none keeps those known."""
    if old is None:
        return new
    known = {each.name: each for each in old.columns}
    told = {each.name: each if each.type else known.get(each.name, each) for each in new.columns}
    columns = tuple(((known | told) if more else told or known).values())
    return Dataset(urn=new.urn, columns=columns, asset_key=new.asset_key or old.asset_key)


def _merge_job(job: Job, run: Run) -> Job:
    reads = {*job.reads, *(each.urn for each in run.reads), *(edge.source for edge in run.edges)}
    writes = {*job.writes, *(each.urn for each in run.writes), *(edge.target for edge in run.edges)}
    return Job(name=job.name, reads=tuple(sorted(reads)), writes=tuple(sorted(writes)))


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


def _job_links(jobs: Mapping[str, Job], edges: set[Edge]) -> set[Edge]:
    """Link what a job read to what it wrote, as wholes, where the job said nothing finer of the target."""
    said = {(edge.job, edge.target) for edge in edges}
    joined = {(edge.source, edge.target) for edge in edges}
    return {
        Edge(source=source, target=target, kind="DIRECT", subtype=JOB_LINK, method="declared", job=job.name)
        for job in jobs.values()
        for target in job.writes
        if (job.name, target) not in said
        for source in job.reads
        if source != target and source not in job.writes and (source, target) not in joined
    }


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
