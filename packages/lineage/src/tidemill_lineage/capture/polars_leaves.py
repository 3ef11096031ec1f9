"""Tell which input a leaf of a polars plan is, by what it reads: buffers of a frame, or paths of files."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from tidemill_lineage.capture.watch.files import urn_of
from tidemill_lineage.errors import UnsupportedPlan
from tidemill_lineage.model import DatasetUrn

_KEY_COLUMNS = 32
"""Enough columns to tell two frames apart."""


def leaf_key(node: Any) -> Hashable | None:
    """Identify what a leaf node reads; None if it is no leaf we know.

    Two plans over the same frame or the same files have equal keys.
    """
    kind = type(node).__name__
    if kind == "DataFrameScan":
        return ("frame", *_frame_key(node.df))
    if kind == "Scan":
        return ("files", str(node.scan_type[0]), tuple(map(str, node.paths)), _row_range(node.file_options))
    if kind == "PythonScan":
        return ("python", id(node.options[0]))
    return None


def column_keys(node: Any, names: Iterable[str]) -> dict[str, Hashable]:
    """Identify each column that projection pushdown left a leaf to read.

    The optimiser puts stubs in the place of a frame's unused columns, so a whole frame cannot be
    told in an optimised plan; its used columns can.

    Args:
        node: A leaf.
        names: Its columns, for a leaf that reads all of them.
    """
    kind = type(node).__name__
    if kind == "DataFrameScan":
        wanted = set(names if node.projection is None else node.projection)
        columns = _columns(node.df)
        return {each.name: ("frame", *_column_key(each)) for each in columns if each.name in wanted}
    key = leaf_key(node)
    read = {"Scan": lambda: node.file_options.with_columns, "PythonScan": lambda: node.options[1]}.get(kind)
    if key is None or read is None:
        raise UnsupportedPlan(f"leaf {kind} is not known")
    wanted_names = read()
    return {name: (key, name) for name in (names if wanted_names is None else wanted_names)}


def scanned_urns(node: Any) -> tuple[DatasetUrn, ...]:
    """Name the files that a scan reads by itself; many files of one folder are that folder."""
    if type(node).__name__ != "Scan":
        return ()
    return tuple(sorted(_one_name(map(str, node.paths))))


def _one_name(paths: Iterable[str]) -> set[DatasetUrn]:
    urns = {urn for path in paths if (urn := urn_of(path)) is not None}
    return urns if len(urns) == 1 else {urn.rsplit("/", 1)[0] for urn in urns}


def _row_range(options: Any) -> tuple[str, str]:
    return str(options.n_rows), str(options.row_index)


def _columns(frame: Any) -> list[Any]:
    import polars as pl

    return pl.DataFrame._from_pydf(frame).get_columns()  # noqa: SLF001  # the plan holds the inner frame


def _frame_key(frame: Any) -> tuple[Hashable, ...]:
    columns = _columns(frame)
    size = (len(columns), len(columns[0]) if columns else 0)
    return (*size, *(_column_key(each) for each in columns[:_KEY_COLUMNS]))


def frame_key(frame: Any) -> Hashable:
    """Identify a DataFrame as its leaf in a plan is identified."""
    return ("frame", *_frame_key(frame._df))  # noqa: SLF001  # what a plan's leaf holds


def chunk_keys(frame: Any) -> dict[str, list[Hashable]]:
    """Identify the buffers of each column, chunk by chunk, whatever rows of them it shows.

    Args:
        frame: The inner frame of a leaf, or of a DataFrame.
    """
    found: dict[str, list[Hashable]] = {}
    for column in _columns(frame):
        chunks = _chunks(column)
        # without addresses nothing can be told, and an empty list is "not known"
        found[column.name] = [_base(each) for each in chunks if len(each)] if chunks is not None else []
    return found


def _column_key(column: Any) -> tuple[Hashable, ...]:
    """Addresses of a column's buffers: kept by rename, select and alias, and by the plan's own scan."""
    chunks = _chunks(column)
    if chunks is None:
        return column.name, str(column.dtype), len(column)
    return column.name, str(column.dtype), tuple(_addresses(each) for each in chunks)


def _chunks(column: Any) -> list[Any] | None:
    """The Arrow chunks that share a column's memory; None for a type that Arrow cannot show without a copy."""
    import polars as pl
    import pyarrow as pa

    if column.dtype == pl.Categorical:
        # its strings are translated for Arrow each time; the codes below are shared
        column = column.to_physical()
    if column.dtype.is_object() or column.dtype == pl.Null or _holds_categories(column.dtype):
        return None
    try:
        return list(pa.chunked_array(column).chunks)
    except (pa.ArrowException, NotImplementedError, TypeError, AttributeError):
        return None


def _holds_categories(dtype: Any) -> bool:
    return dtype.is_nested() and "Categorical" in str(dtype)


def _base(chunk: Any) -> Hashable:
    return str(chunk.type), tuple(each.address if each else 0 for each in chunk.buffers()[1:])


def _addresses(chunk: Any) -> Hashable:
    return chunk.offset, len(chunk), tuple(each.address if each else 0 for each in chunk.buffers())
