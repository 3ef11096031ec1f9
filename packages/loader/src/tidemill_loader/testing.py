"""The conformance suite that every file format passes: subclass it, and say how a file is made.

class TestCsv(FormatSuite):
name, suffix = "csv", ".csv"

def encode(self, table): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa
from tidemill_core.storage import ObjectStore, open_store

from tidemill_loader.config import LoadConfig
from tidemill_loader.formats import FORMATS, Format, format_for
from tidemill_loader.formats._base import BadRow
from tidemill_loader.sources import SourceFile, find_files

if TYPE_CHECKING:
    from pathlib import Path

TABLE = pa.table({"id": list(range(1_000)), "name": [None if at % 7 == 0 else f"né{at}" for at in range(1_000)]})
"""What a format's file holds in the suite."""


class FormatSuite:
    """What a load relies on in a format."""

    name: str
    suffix: str

    def encode(self, table: pa.Table) -> bytes:
        """Write a table of two columns, ``id`` (integers) and ``name`` (text with nulls), as a file."""
        raise AssertionError(f"{type(self).__name__} must say how {table.schema.names} are written")

    def _source(self, data: bytes, store: ObjectStore | None = None) -> SourceFile:
        store = store or open_store(f"memory://format-suite-{uuid4().hex}")
        store.put(f"a{self.suffix}", data)
        base = store.url.rstrip("/")
        (source,) = find_files([f"{base}/*{self.suffix}"])
        return source

    def _format(self, **options: Any) -> Format:
        return FORMATS.get(self.name)(LoadConfig(files="x", table="t", **options))

    def _rows(self, reader: Format, source: SourceFile) -> list[tuple[Any, ...]]:
        schema, bad = reader.schema(source), list[BadRow]()
        rows: list[tuple[Any, ...]] = []
        for unit in reader.units(source):
            for batch in reader.batches(source, unit, schema, bad.append):
                columns = [batch.column(name).cast(pa.string()).to_pylist() for name in schema.names]
                rows += zip(*columns, strict=True)
        assert bad == []
        return rows

    def test_the_file_name_tells_the_format(self) -> None:
        """A suffix leads to this format."""
        assert format_for("auto", f"x/a{self.suffix}") == self.name

    def test_every_suffix_it_names_leads_to_it(self) -> None:
        """What the format claims is found by ``auto``, in any case of its letters, plain and compressed."""
        suffixes = FORMATS.get(self.name).suffixes

        found = {
            format_for("auto", f"x/A{written}{compression}")
            for suffix in suffixes
            for written in (suffix, suffix.upper())
            for compression in ("", ".gz")
        }

        assert suffixes
        assert all(suffix.startswith(".") for suffix in suffixes)
        assert found == {self.name}

    def test_columns_are_found_with_their_types(self) -> None:
        """The schema has every column, in order, nullable where the file has nulls."""
        schema = self._format().schema(self._source(self.encode(TABLE)))

        assert schema.names == ["id", "name"]
        assert schema.field("id").type == pa.int64()
        assert schema.field("name").nullable

    def test_every_row_comes_once_and_in_order(self) -> None:
        """All units together are the file."""
        expected = [(str(row["id"]), row["name"]) for row in TABLE.to_pylist()]

        rows = self._rows(self._format(), self._source(self.encode(TABLE)))

        assert rows == expected

    def test_a_local_file_reads_as_a_remote_one(self, tmp_path: Path) -> None:
        """The store makes no difference."""
        data = self.encode(TABLE)
        remote, local = self._source(data), self._source(data, open_store(str(tmp_path)))

        assert self._rows(self._format(), local) == self._rows(self._format(), remote)

    def test_units_know_their_rows_or_say_that_they_do_not(self) -> None:
        """Row counts, where there are any, add up."""
        units = self._format().units(self._source(self.encode(TABLE)))

        rows = [unit.rows for unit in units]
        assert len({unit.index for unit in units}) == len(units)
        assert None in rows or sum(row or 0 for row in rows) == TABLE.num_rows

    def test_only_the_columns_asked_for_are_read(self) -> None:
        """A skipped column costs nothing and does no harm."""
        reader, source = self._format(columns={"name": {"skip": True}}), self._source(self.encode(TABLE))
        schema = pa.schema([reader.schema(source).field("id")])

        batches = [
            batch for unit in reader.units(source) for batch in reader.batches(source, unit, schema, lambda _: None)
        ]

        assert {tuple(batch.schema.names) for batch in batches} == {("id",)}
        assert sum(batch.num_rows for batch in batches) == TABLE.num_rows

    def test_a_table_without_rows_has_no_rows(self) -> None:
        """An empty file is no error."""
        rows = self._rows(self._format(), self._source(self.encode(TABLE.slice(0, 0))))

        assert rows == []
