"""The one rule by which runs become a graph, whatever the batching and the order of arrival.

Everything a run says is an *entry* of a *subject*: the edges of one job to one target, the columns of
one dataset, what one job touched in one run. Entries of one run on one subject add up; of several
runs the one that spoke last is in force. Older ones are kept for a while, because a part of theirs
that arrives late may make them the newest: so the state is a set that only ever grows by union, and
any order of arrival gives the same.

A failed run says nothing. A run that wrote nothing it can explain, and read nothing, is idle and says
nothing of its target either. A job that reads other sources than before drops those it stopped reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from tidemill_lineage.model import ASSET_SCHEME, Dataset, DatasetUrn, Edge, Kind, Method, Run, asset_urn, stable_urn

KEPT_RUNS = 16
"""Runs remembered a subject: as many runs of one job may overlap in time without their order mattering."""

JOB_LINK = "JOB"
"""Subtype of the edges that only say: one job read this and wrote that."""

Subject = tuple[str, str, str]
"""What is spoken of: EDGES job target, TOUCHED job run, COLUMNS urn, ASSET urn."""
EDGES, TOUCHED, COLUMNS, ASSET = "edges", "touched", "columns", "asset"

Key = tuple[str, ...]
READ: Key = ("read",)
"""Behind a column's name: a reader told it, in the words of its own library."""
Body = Mapping[Key, tuple[float | int | str, ...]]
"""What is said; a column's value is where it was first placed and when its type was last told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one run said of one subject, and when it last did."""

    run: str
    at: float
    body: Body


State = Mapping[Subject, tuple[Entry, ...]]
"""Subject -> entries, the newest first."""


def facts(run: Run) -> Iterator[tuple[Subject, Entry]]:
    """Take a run apart into entries; a failed run has none."""
    if run.state == "FAIL":
        return
    said: dict[DatasetUrn, dict[Key, tuple[()]]] = {stable_urn(each.urn): {} for each in run.writes}
    touched: dict[Key, tuple[()]] = {}
    for how, datasets in (("read", run.reads), ("wrote", run.writes)):
        for each in datasets:
            touched[how, stable_urn(each.urn), each.asset_key] = ()
    for edge in run.edges:
        source, target = stable_urn(edge.source), stable_urn(edge.target)
        key = (source, edge.source_column, edge.target_column, edge.kind, edge.subtype, edge.method)
        said.setdefault(target, {})[key] = ()
        touched["read", source, ""] = touched["wrote", target, ""] = ()
    for target, body in said.items():
        yield (EDGES, run.job, target), Entry(run=run.id, at=run.ended_at, body=body)
    yield (TOUCHED, run.job, run.id), Entry(run=run.id, at=run.ended_at, body=touched)
    for each in run.reads:
        yield from _described(each, run, READ)
    for each in run.writes:
        yield from _described(each, run, ())


def _described(dataset: Dataset, run: Run, role: Key) -> Iterator[tuple[Subject, Entry]]:
    urn = stable_urn(dataset.urn)
    if dataset.columns:
        body: dict[Key, tuple[float | int | str, ...]] = {
            (each.name, *role): (run.ended_at, place, run.ended_at if each.type else -1.0, each.type)
            for place, each in enumerate(dataset.columns)
        }
        yield (COLUMNS, urn, ""), Entry(run=run.id, at=run.ended_at, body=body)
    if dataset.asset_key:
        yield (ASSET, urn, ""), Entry(run=run.id, at=run.ended_at, body={(dataset.asset_key,): ()})


def grouped(runs: Iterable[Run]) -> dict[Subject, list[Entry]]:
    """Gather what runs say, by subject."""
    found: dict[Subject, list[Entry]] = {}
    for run in runs:
        for subject, entry in facts(run):
            found.setdefault(subject, []).append(entry)
    return found


def united(known: Iterable[Entry], more: Iterable[Entry]) -> tuple[Entry, ...]:
    """Unite entries of one subject, and keep the newest runs."""
    found: dict[str, Entry] = {}
    for entry in (*known, *more):
        old = found.get(entry.run)
        found[entry.run] = entry if old is None else _added(old, entry)
    newest = sorted(found.values(), key=lambda entry: (entry.at, entry.run), reverse=True)
    # many readers may follow one writer: what it told is kept however many they are
    written = next((entry for entry in newest if _is_written(entry)), None) if len(newest) > KEPT_RUNS else None
    kept = newest[:KEPT_RUNS]
    return tuple(kept if written is None or written in kept else [*kept, written])


def _is_written(entry: Entry) -> bool:
    """Whether it is of columns, and a writer told it."""
    return any(len(key) == 1 for key in entry.body)


def _added(old: Entry, new: Entry) -> Entry:
    body = dict(old.body)
    for key, value in new.body.items():
        known = body.get(key)
        body[key] = value if known is None or not value else _placed(known, value)
    return Entry(run=old.run, at=max(old.at, new.at), body=body)


def _placed(left: tuple[float | int | str, ...], right: tuple[float | int | str, ...]) -> tuple[float | int | str, ...]:
    """Of a column told twice: its first place, and its last type."""
    return (*min(left[:2], right[:2]), *max(left[2:], right[2:]))


def advanced(state: State, runs: Iterable[Run]) -> dict[Subject, tuple[Entry, ...]]:
    """Add runs to a state."""
    after = dict(state)
    for subject, entries in grouped(runs).items():
        after[subject] = united(after.get(subject, ()), entries)
    spoken = {(subject[1], entry.run) for subject, entries in after.items() if subject[0] == EDGES for entry in entries}
    newest = _newest_touches(after)
    return {s: e for s, e in after.items() if s[0] != TOUCHED or (s[1], s[2]) in spoken or s in newest}


def _newest_touches(state: State) -> set[Subject]:
    """A job that only reads has no edges to remember it by: its newest runs are kept."""
    jobs: dict[str, list[tuple[float, str, Subject]]] = {}
    for subject, entries in state.items():
        if subject[0] == TOUCHED:
            jobs.setdefault(subject[1], []).append((entries[0].at, entries[0].run, subject))
    return {each[2] for found in jobs.values() for each in sorted(found, reverse=True)[:KEPT_RUNS]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """What a job touched in one run, with assets named by where they are stored."""

    reads: frozenset[DatasetUrn]
    writes: frozenset[DatasetUrn]
    names: Mapping[DatasetUrn, DatasetUrn]
    """``asset://key`` -> the one stored dataset of that asset among them."""
    aliases: frozenset[DatasetUrn] = frozenset()
    """``asset://key`` of each asset that is stored in one of them or in several."""


NOTHING_TOUCHED = Touch(reads=frozenset(), writes=frozenset(), names={})


def touch_of(entries: Iterable[Entry]) -> Touch:
    """Read a TOUCHED subject."""
    body: dict[Key, tuple[float | int | str, ...]] = {}
    for entry in entries:
        body |= entry.body
    stored: dict[DatasetUrn, set[DatasetUrn]] = {}
    for _, urn, key in body:
        if key and not urn.startswith(ASSET_SCHEME):
            stored.setdefault(asset_urn(key), set()).add(urn)
    names = {alias: next(iter(urns)) for alias, urns in stored.items() if len(urns) == 1}
    parts = {how: frozenset(names.get(urn, urn) for each, urn, _ in body if each == how) for how in ("read", "wrote")}
    return Touch(reads=parts["read"], writes=parts["wrote"], names=names, aliases=frozenset(stored))


def in_force(entries: Iterable[Entry], touches: Mapping[str, Touch]) -> Entry | None:
    """Choose the entry of an EDGES subject that holds: the newest that is not idle."""
    for entry in entries:
        touched = touches.get(entry.run, NOTHING_TOUCHED)
        if entry.body or touched.reads - touched.writes:
            return entry
    return None


def edges_in_force(job: str, target: DatasetUrn, entry: Entry, touched: Touch) -> list[Edge]:
    """Spell out what an entry says, and the links of its job where it says nothing finer."""
    names = touched.names
    real = names.get(target, target)
    found = [_edge(key, real, job, entry, names) for key in entry.body]
    if not entry.body:
        sources = sorted(touched.reads - touched.writes - {real})
        found = [_edge((each, "", "", "DIRECT", JOB_LINK, "declared"), real, job, entry, {}) for each in sources]
    # a whole dataset says nothing of itself: an alias of the target was declared as its input
    return [each for each in found if each.source != each.target or each.source_column or each.target_column]


def last_said(edges: Iterable[Edge]) -> set[Edge]:
    """Keep, of edges that differ only in run and time, the one that was said last.

    A set alone would keep whichever came first: an asset and the dataset that stores it are two
    subjects, and may yield the same edge at two times.
    """
    found: dict[Edge, Edge] = {}
    for edge in edges:
        known = found.get(edge)
        if known is None or (known.at, known.run) < (edge.at, edge.run):
            found[edge] = edge
    return set(found.values())


def _edge(key: Key, target: DatasetUrn, job: str, entry: Entry, names: Mapping[DatasetUrn, DatasetUrn]) -> Edge:
    source, source_column, target_column, kind, subtype, method = key
    real: DatasetUrn = names.get(source, source)
    told_kind: Kind = "DIRECT" if kind == "DIRECT" else "INDIRECT"
    told_method: Method = method  # type: ignore[assignment]  # it was one when it was told
    return Edge(
        source=real, source_column=source_column, target=target, target_column=target_column, kind=told_kind,
        subtype=subtype, method=told_method, job=job, run=entry.run, at=entry.at,
    )  # fmt: skip


def columns_in_force(entries: Iterable[Entry]) -> tuple[tuple[str, str], ...]:
    """Read a COLUMNS subject: names and types as the last writer told them.

    What a reader says, in its own library's words, counts where no writer told anything: of a dataset
    that nobody here writes, for columns added behind the writer's back, for types that it did not know.
    """
    told = list(entries)
    written, read = ([_of_role(entry, role) for entry in told] for role in ((), READ))
    last, seen = _first(written), _first(read)
    names = sorted(last, key=lambda name: (last[name][:2], name))
    written_at = max((last[name][0] for name in names), default=-1.0)
    names += sorted(
        (name for name in seen if name not in last and seen[name][0] > written_at),  # type: ignore[operator]
        key=lambda name: (seen[name][:2], name),
    )
    return tuple((name, _type(name, written) or _type(name, read)) for name in names)


Told = Mapping[str, tuple[float | int | str, ...]]


def _of_role(entry: Entry, role: Key) -> Told:
    return {key[0]: value for key, value in entry.body.items() if key[1:] == role}


def _first(told: Iterable[Told]) -> Told:
    return next((each for each in told if each), {})


def _type(name: str, told: Iterable[Told]) -> str:
    return next((str(each[name][3]) for each in told if name in each and each[name][3]), "")


def asset_in_force(entries: Iterable[Entry]) -> str:
    """Read an ASSET subject."""
    return next((max(entry.body)[0] for entry in entries), "")


def plain(entry: Entry) -> list[object]:
    """Turn an entry into plain JSON values, in one order."""
    return [entry.run, entry.at, [[list(key), list(value)] for key, value in sorted(entry.body.items())]]


def parsed(value: list[object]) -> Entry:
    """Turn plain JSON values into an entry.

    Raises:
        TypeError: They are something else.
        ValueError: As above.
    """
    run, at, body = value
    if not isinstance(run, str) or not isinstance(at, (int, float)) or not isinstance(body, list):
        raise TypeError(f"{value!r:.80} is no entry")
    return Entry(run=run, at=at, body={tuple(key): tuple(said) for key, said in body})


def renamed_edge(edge: Edge, names: Mapping[DatasetUrn, DatasetUrn]) -> Edge:
    """Replace URNs in an edge."""
    if edge.source in names or edge.target in names:
        return replace(edge, source=names.get(edge.source, edge.source), target=names.get(edge.target, edge.target))
    return edge
