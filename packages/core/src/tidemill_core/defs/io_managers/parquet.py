"""The Parquet IO manager: frames of assets as Parquet objects in the lake, or in any store by URL."""

import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from pydantic import Field

from tidemill_core.defs.failures import dagster_errors
from tidemill_core.defs.io_managers import frames, layout
from tidemill_core.defs.io_managers.lineage import announce
from tidemill_core.defs.metadata import materialization
from tidemill_core.defs.resources import ObjectStoreResource
from tidemill_core.errors import ObjectNotFound, PermanentError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from tidemill_core.storage._base import ObjectStore

_READERS = 8
_HEADS = 4
"""Up to this many partitions are looked for one by one; more by one listing."""


class ParquetIOManager(dg.ConfigurableIOManager, ObjectStoreResource):
    """Stores polars DataFrames and LazyFrames and pyarrow Tables as Parquet, and loads what is annotated.

    An asset ``[domain, dataset]`` becomes ``domain/dataset.parquet``, a partition
    ``domain/dataset/<key>.parquet``. A write is seen whole or not at all. A LazyFrame is
    written by the streaming engine, and as an input it is a scan: only the columns and
    row groups that are used are read.

    Metadata of an input: ``columns`` (a list) reads only those, ``allow_missing_partitions``
    skips partitions that were not written.
    """

    compression: Literal["zstd", "lz4", "snappy", "gzip", "uncompressed"] = Field(
        default="zstd", description="Codec of the column chunks."
    )
    row_group_rows: int = Field(default=0, description="Rows per row group; 0 leaves it to the writer.")

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write an asset, or each of its partitions when a mapping by partition key is given; None stores nothing."""
        if obj is None:
            return
        with dagster_errors():
            place = layout.place_of(context)
            store = self.open()
            began = time.monotonic()
            written = [self._write(store, place.objects[key], value) for key, value in _parts(place, obj).items()]
            rows, size = sum(each.rows for each in written), sum(each.bytes for each in written)
            schema = written[0].schema
            context.add_output_metadata(
                materialization(
                    rows=None if place.is_partitioned else rows,
                    partition_rows=rows if place.is_partitioned else None,
                    schema=schema,
                    bytes=size,
                    seconds=time.monotonic() - began,
                    uri=written[0].uri if len(written) == 1 else store.uri(place.base),
                )
            )
            announce(context, "wrote", _dataset(store, place), schema=schema, rows=rows, bytes=size)

    def load_input(self, context: dg.InputContext) -> Any:
        """Load an asset or its partitions as the input is annotated; a dict is by partition key."""
        with dagster_errors():
            kind, is_dict = frames.wanted(layout.annotation(context))
            place = layout.place_of(context)
            if is_dict and not place.is_partitioned:
                raise PermanentError(f"{place.base} has no partitions to make a dict of")
            store = self.open()
            facts = context.definition_metadata or {}
            columns = list(facts["columns"]) if facts.get("columns") else None
            found = _present(store, place, skip_missing=bool(facts.get("allow_missing_partitions")))
            announce(context, "read", _dataset(store, place), columns=columns or ())
            if is_dict:
                return {key: _load(store, found[key], kind, columns) for key in found}
            return _load_all(store, list(found.values()), kind, columns)

    def _write(self, store: "ObjectStore", key: str, value: Any) -> "_Written":
        import pyarrow.parquet as pq

        with _temporary() as file:
            self._to_file(value, file)
            footer = pq.read_metadata(file)
            info = store.put(key, file, content_type="application/vnd.apache.parquet")
            schema = footer.schema.to_arrow_schema()
            return _Written(rows=footer.num_rows, bytes=info.size_bytes, schema=schema, uri=store.uri(key))

    def _to_file(self, value: Any, file: Path) -> None:
        kind = frames.kind_of(value)
        group = self.row_group_rows or None
        if kind == "lazy":
            value.sink_parquet(file, compression=self.compression, row_group_size=group)
        elif kind == "frame":
            value.write_parquet(file, compression=self.compression, row_group_size=group)
        else:
            import pyarrow.parquet as pq

            codec = "none" if self.compression == "uncompressed" else self.compression
            pq.write_table(value, file, compression=codec, row_group_size=group)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    rows: int
    bytes: int
    schema: "pa.Schema"
    uri: str


def _parts(place: layout.Place, obj: Any) -> Mapping[str | None, Any]:
    """Match what an asset returned to the objects it belongs in.

    Raises:
        PermanentError: Several partitions ran at once and their frames cannot be told apart.
    """
    if isinstance(obj, Mapping):
        unknown = sorted(str(key) for key in obj.keys() - place.objects.keys())
        if unknown:
            raise PermanentError(f"{place.base}: these keys are not partitions of this run: {', '.join(unknown)}")
        if obj:
            return obj
        raise PermanentError(f"{place.base}: the mapping of partitions is empty")
    if len(place.objects) > 1:
        raise PermanentError(
            f"{place.base}: one frame was returned for {len(place.objects)} partitions; return a dict by partition key"
        )
    return {next(iter(place.objects)): obj}


def _present(store: "ObjectStore", place: layout.Place, *, skip_missing: bool) -> dict[str | None, str]:
    """Find the objects of the wanted partitions.

    Raises:
        ObjectNotFound: One is missing and may not be, or all are.
    """
    keys = list(place.objects.values())
    missing = set(_missing(store, place.base, keys))
    if missing and not (skip_missing and len(missing) < len(keys)):
        first = min(missing)
        what = f"{first} ({len(missing)} of {len(keys)} partitions are missing)" if len(keys) > 1 else first
        raise ObjectNotFound(store.url, what)
    return {name: key for name, key in place.objects.items() if key not in missing}


def _missing(store: "ObjectStore", base: str, keys: list[str]) -> Iterable[str]:
    if len(keys) > _HEADS:
        there = {info.key for info in store.list(f"{base}/")}
        return [key for key in keys if key not in there]
    return [key for key in keys if not _exists(store, key)]


def _exists(store: "ObjectStore", key: str) -> bool:
    try:
        store.head(key)
    except ObjectNotFound:
        return False
    return True


def _load_all(store: "ObjectStore", keys: list[str], kind: frames.Kind, columns: list[str] | None) -> Any:
    """Load partitions as one frame; several are read at once."""
    if kind != "table":
        scans = [_load(store, key, "lazy", columns) for key in keys]
        return frames.as_kind(frames.concatenated(scans, "lazy"), kind)
    with ThreadPoolExecutor(_READERS) as pool:
        return frames.concatenated(list(pool.map(lambda key: _load(store, key, kind, columns), keys)), kind)


def _load(store: "ObjectStore", key: str, kind: frames.Kind, columns: list[str] | None) -> Any:
    if kind == "table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        return pq.read_table(pa.BufferReader(store.get(key)), columns=columns)
    scan = _scan(store, key)
    return frames.as_kind(scan.select(columns) if columns else scan, kind)


def _scan(store: "ObjectStore", key: str) -> "pl.LazyFrame":
    """Scan an object where it lies; only a store that polars cannot reach is read into memory."""
    import polars as pl

    if store.url.startswith("memory://"):
        return pl.scan_parquet(store.get(key))
    return pl.scan_parquet(store.uri(key), glob=False, hive_partitioning=False, **store.reader_options())


def _dataset(store: "ObjectStore", place: layout.Place) -> str:
    return store.uri(place.base if place.is_partitioned else place.base + layout.SUFFIX)


@contextmanager
def _temporary() -> Any:
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        yield Path(folder) / "part.parquet"
