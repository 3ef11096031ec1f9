"""Questions read from the tables of a stored graph: only the edges that an answer walks over are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import orjson

from tidemill_lineage.graph import PART_LINK
from tidemill_lineage.merging import JOB_LINK
from tidemill_lineage.model import ASSET_SCHEME, Column, Dataset, DatasetUrn, Edge, asset_urn
from tidemill_lineage.queries import Lineage, Node

_EDGES = """
SELECT s.urn, e.source_column, t.urn, e.target_column, e.kind, e.subtype, e.method, f.job, f.run, f.at
FROM edges e JOIN datasets s ON s.id = e.source JOIN datasets t ON t.id = e.target
JOIN in_force f ON f.subject = e.subject
"""
_TO = f"{_EDGES} WHERE e.target IN (SELECT id FROM datasets WHERE urn IN (?, ?))"  # noqa: S608  # constants only
_FROM = f"{_EDGES} WHERE e.source IN (SELECT id FROM datasets WHERE urn IN (?, ?))"  # noqa: S608  # as above
_FINER = f"""
SELECT s.urn, t.urn, e.source_column, e.target_column FROM edges e JOIN in_force f ON f.subject = e.subject
JOIN datasets s ON s.id = e.source JOIN datasets t ON t.id = e.target
WHERE t.urn IN (?, ?) AND e.subtype <> '{JOB_LINK}' AND (f.job = ? OR s.urn IN (?, ?))
"""  # noqa: S608  # as above
_COLUMNS = """
SELECT e.source_column FROM edges e JOIN datasets d ON d.id = e.source WHERE d.urn IN (?, ?) UNION
SELECT e.target_column FROM edges e JOIN datasets d ON d.id = e.target WHERE d.urn IN (?, ?)
"""
_NEAR = 20_000
"""Names looked at for a "did you mean"."""

Rows = Callable[[str, Sequence[object]], list[tuple[Any, ...]]]


class StoredQueries(Lineage):
    """Asks the tables.

    Args:
        rows: Runs a query.
    """

    def __init__(self, rows: Rows) -> None:
        self._ask = rows
        self._forget()

    def dataset(self, urn: DatasetUrn) -> Dataset | None:
        """Find a dataset; one that is only another name of a stored one is not found."""
        if self._real(urn) != urn:
            return None
        rows = self._ask("SELECT urn, asset_key, columns FROM datasets WHERE urn = ?", (urn,))
        if not rows:
            return None
        found = self.as_dataset(*rows[0])
        if not found.columns and (alias := self._alias(urn)) is not None:
            rows = self._ask("SELECT urn, asset_key, columns FROM datasets WHERE urn = ?", (alias,))
            found = Dataset(urn=urn, columns=self.as_dataset(*rows[0]).columns, asset_key=found.asset_key)
        return found

    def candidates(self, name: str) -> list[DatasetUrn]:
        """Find the datasets of an asset key, else those whose URN or asset key ends so."""
        exact = [row[0] for row in self._ask("SELECT urn FROM datasets WHERE asset_key = ?", (name,))]
        if not exact and name:
            ends = ("/" + name, "." + name)
            size = -len(name) - 1
            exact = [row[0] for row in self._ask(
                "SELECT urn FROM datasets WHERE substr(urn, ?) IN (?, ?) OR asset_key = ? OR substr(asset_key, ?) "
                "IN (?, ?)", (size, *ends, name, size, *ends))]  # fmt: skip
        return sorted({self._real(urn) for urn in exact})

    def near_names(self, name: str) -> list[str]:
        """Some names of datasets."""
        del name
        rows = self._ask("SELECT urn, asset_key FROM datasets LIMIT ?", (_NEAR,))
        return [each for row in rows for each in row if each]

    def incoming(self, node: Node) -> Sequence[Edge]:
        """Edges to a dataset, or only those that reach one of its columns."""
        urn, column = node
        found = self._edges_to(urn, column)
        if urn.startswith(ASSET_SCHEME) and self._is_used(urn):
            stored = self._stored(urn.removeprefix(ASSET_SCHEME))
            links = [link for each in stored for link in self._links(each, urn)]
            found += [link for link in links if not column or link.target_column in ("", column)]
        return found + self._parts(urn)

    def outgoing(self, node: Node) -> Sequence[Edge]:
        """Edges from a dataset, or only those that one of its columns has a part in."""
        urn, column = node
        found = self._edges_from(urn, column)
        key = self._asset_key(urn)
        if key and not urn.startswith(ASSET_SCHEME) and self._alias(urn) is None:
            alias = asset_urn(key)
            if self.dataset(alias) is not None and self._is_used(alias):
                found += [link for link in self._links(urn, alias) if not column or link.source_column in ("", column)]
        return found + self._wholes(urn)

    def edge_columns(self, urn: DatasetUrn) -> set[str]:
        """Columns of a dataset that edges name."""
        names = self._names(urn)
        rows = self._ask(_COLUMNS, (*names, *names))
        linked = {c for link in self._asset_links(urn) for c in (link.source_column, link.target_column)}
        return ({row[0] for row in rows} | linked) - {""}

    @staticmethod
    def as_dataset(urn: DatasetUrn, asset_key: str, columns: str) -> Dataset:
        """Make a dataset of a row."""
        told = tuple(Column(name=name, type=kind) for name, kind in orjson.loads(columns))
        return Dataset(urn=urn, columns=told, asset_key=asset_key)

    def node(self, name: str) -> Node:
        """Find the one node that a name means; a question begins, so nothing remembered holds any more."""
        self._forget()
        return super().node(name)

    def _forget(self) -> None:
        self._stores: dict[str, list[DatasetUrn]] = {}
        self._keys: dict[DatasetUrn, str | None] = {}

    def _asset_key(self, urn: DatasetUrn) -> str | None:
        """The asset key of a dataset; None if there is no such dataset."""
        if urn not in self._keys:
            rows = self._ask("SELECT asset_key FROM datasets WHERE urn = ?", (urn,))
            self._keys[urn] = rows[0][0] if rows else None
        return self._keys[urn]

    def _stored(self, key: str) -> list[DatasetUrn]:
        """The stored datasets of an asset."""
        if key not in self._stores:
            rows = self._ask("SELECT urn FROM datasets WHERE asset_key = ? AND asset_key <> '' ORDER BY urn", (key,))
            self._stores[key] = [row[0] for row in rows if not row[0].startswith(ASSET_SCHEME)]
        return self._stores[key]

    def _real(self, urn: DatasetUrn) -> DatasetUrn:
        """What a dataset is called: an asset by the one place where it is stored."""
        if not urn.startswith(ASSET_SCHEME):
            return urn
        stored = self._stored(urn.removeprefix(ASSET_SCHEME))
        return stored[0] if len(stored) == 1 else urn

    def _alias(self, urn: DatasetUrn) -> DatasetUrn | None:
        """The other name under which edges may know a dataset."""
        key = self._asset_key(urn)
        if not key or urn.startswith(ASSET_SCHEME) or len(self._stored(key)) != 1:
            return None
        alias = asset_urn(key)
        return alias if self._asset_key(alias) is not None else None

    def _names(self, urn: DatasetUrn) -> list[DatasetUrn]:
        """The two names of a dataset, the same twice where it has one."""
        alias = self._alias(urn)
        return [urn, urn if alias is None else alias]

    def _edges_to(self, urn: DatasetUrn, column: str) -> list[Edge]:
        if not column:
            return self._held(self._ask(_TO, self._names(urn)))
        return self._held(self._ask(f"{_TO} AND e.target_column IN ('', ?)", (*self._names(urn), column)))

    def _edges_from(self, urn: DatasetUrn, column: str) -> list[Edge]:
        if not column:
            return self._held(self._ask(_FROM, self._names(urn)))
        return self._held(self._ask(f"{_FROM} AND e.source_column IN ('', ?)", (*self._names(urn), column)))

    def _held(self, rows: Iterable[tuple[Any, ...]]) -> list[Edge]:
        return [edge for row in rows if self._holds(edge := self._edge(row))]

    def _edge(self, row: tuple[Any, ...]) -> Edge:
        source, source_column, target, target_column, kind, subtype, method, job, run, at = row
        return Edge(
            source=self._real(source), source_column=source_column, target=self._real(target),
            target_column=target_column, kind=kind, subtype=subtype, method=method, job=job, run=run, at=at,
        )  # fmt: skip

    def _holds(self, edge: Edge) -> bool:
        """Leave out what says nothing, and the links of jobs where something finer is said."""
        if edge.source == edge.target and not edge.source_column and not edge.target_column:
            return False
        if edge.subtype != JOB_LINK:
            return True
        targets, sources = self._names(edge.target), self._names(edge.source)
        rows = self._ask(_FINER, (*targets, edge.job, *sources))
        return all(self._real(s) == self._real(t) and not a and not b for s, t, a, b in rows)

    def _is_used(self, urn: DatasetUrn) -> bool:
        """Whether any edge in force names an alias."""
        return bool(self._edges_from(urn, "") or self._edges_to(urn, ""))

    def _links(self, stored: DatasetUrn, alias: DatasetUrn) -> Iterator[Edge]:
        """Tie an asset kept in several stores to one of them, column by column where names agree."""
        mine, theirs = self.dataset(stored), self.dataset(alias)
        names = _column_names(mine) & _column_names(theirs)
        for name in sorted(names or {""}):
            yield Edge(
                source=stored, source_column=name, target=alias, target_column=name,
                kind="DIRECT", subtype="IDENTITY", method="schema",
            )  # fmt: skip

    def _asset_links(self, urn: DatasetUrn) -> list[Edge]:
        alias = urn if urn.startswith(ASSET_SCHEME) else asset_urn(self._asset_key(urn) or "")
        stored = self._stored(alias.removeprefix(ASSET_SCHEME))
        if len(stored) < 2 or self._asset_key(alias) is None or not self._is_used(alias):  # noqa: PLR2004  # one is a rename
            return []
        return [link for each in stored if urn in (alias, each) for link in self._links(each, alias)]

    def _wholes(self, part: DatasetUrn) -> list[Edge]:
        """Links to the folders and buckets that hold a dataset and are read as a whole."""
        heads = {part[:at] for at, sign in enumerate(part) if sign == "/"}
        wholes = {head + "/" * more for head in heads for more in range(3)}
        return [_part_edge(part, whole) for whole in sorted(wholes) if whole != part and self._is_read(whole)]

    def _parts(self, whole: DatasetUrn) -> list[Edge]:
        """Links from what lies in a folder or bucket that is read as a whole."""
        if not self._is_read(whole):
            return []
        base = whole.rstrip("/") + "/"
        # "0" is the sign after "/"
        rows = self._ask("SELECT urn FROM datasets WHERE urn > ? AND urn < ? ORDER BY urn", (base, base[:-1] + "0"))
        parts = (row[0] for row in rows)
        return [_part_edge(part, whole) for part in parts if part != whole and self._real(part) == part]

    def _is_read(self, urn: DatasetUrn) -> bool:
        if self._asset_key(urn) is None or self._real(urn) != urn:
            return False
        query = "SELECT 1 FROM reads r JOIN datasets d ON d.id = r.dataset WHERE d.urn IN (?, ?) LIMIT 1"
        return bool(self._ask(query, self._names(urn)))


def _part_edge(part: DatasetUrn, whole: DatasetUrn) -> Edge:
    return Edge(source=part, target=whole, kind="DIRECT", subtype=PART_LINK, method="declared")


def _column_names(dataset: Dataset | None) -> set[str]:
    return {each.name for each in dataset.columns} if dataset else set()
