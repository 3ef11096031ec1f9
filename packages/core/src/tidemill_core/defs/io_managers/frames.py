"""Frames by annotation: polars DataFrame and LazyFrame, pyarrow Table; polars and pyarrow load when used."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from tidemill_core.errors import PermanentError

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Kind = Literal["frame", "lazy", "table"]

_KINDS: dict[tuple[str, str], Kind] = {
    ("polars", "DataFrame"): "frame",
    ("polars", "LazyFrame"): "lazy",
    ("pyarrow", "Table"): "table",
}


class FrameRefused(PermanentError):
    """A value or an annotation is none of the kinds of frame that are stored."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: use polars.DataFrame, polars.LazyFrame or pyarrow.Table")


def kind_of(value: object) -> Kind:
    """Name the kind of a value.

    Raises:
        FrameRefused: It is no frame.
    """
    found = _kind(type(value))
    if found is None:
        raise FrameRefused(f"an asset returned {type(value).__module__}.{type(value).__qualname__}")
    return found


def wanted(annotation: object) -> tuple[Kind, bool]:
    """Read an input's annotation: the kind of frame (DataFrame when there is none), and whether a dict of them.

    Raises:
        FrameRefused: It asks for something else.
    """
    if get_origin(annotation) in {dict, Mapping}:
        return wanted(get_args(annotation)[1])[0], True
    found = _kind(annotation)
    if found:
        return found, False
    if annotation in {Any, None, object} or not isinstance(annotation, type):
        return "frame", False
    if annotation is dict:
        return "frame", True
    raise FrameRefused(f"an input is annotated as {annotation.__module__}.{annotation.__qualname__}")


def _kind(annotation: object) -> Kind | None:
    module = getattr(annotation, "__module__", "") or ""
    return _KINDS.get((module.partition(".")[0], getattr(annotation, "__name__", "")))


def as_kind(lazy: "pl.LazyFrame", kind: Kind) -> Any:
    """Turn a scan into what was asked for."""
    if kind == "lazy":
        return lazy
    frame = lazy.collect()
    return frame if kind == "frame" else frame.to_arrow()


def from_table(table: "pa.Table", kind: Kind) -> Any:
    """Turn an Arrow table into what was asked for."""
    if kind == "table":
        return table
    import polars as pl

    frame = pl.DataFrame(table)
    return frame.lazy() if kind == "lazy" else frame


def concatenated(parts: Sequence[Any], kind: Kind) -> Any:
    """Put partitions under each other; columns that some lack are filled with nulls."""
    if len(parts) == 1:
        return parts[0]
    if kind == "table":
        import pyarrow as pa

        return pa.concat_tables(parts, promote_options="permissive")
    import polars as pl

    return pl.concat(parts, how="diagonal_relaxed")


def arrow_reader(value: Any, *, batch_rows: int = 50_000) -> "pa.RecordBatchReader":
    """Read any frame as a stream of Arrow batches; a LazyFrame is run in the streaming engine as it is read."""
    import pyarrow as pa

    kind = kind_of(value)
    if kind == "table":
        return pa.RecordBatchReader.from_batches(value.schema, value.to_batches(max_chunksize=batch_rows))
    if kind == "frame":
        return arrow_reader(value.to_arrow(), batch_rows=batch_rows)
    import polars as pl

    schema = pl.DataFrame(schema=value.collect_schema()).to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        for frame in value.collect_batches(chunk_size=batch_rows, maintain_order=True):
            yield from frame.to_arrow().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
