"""Where frames lie and which kind is wanted, without a run."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_core.defs.io_managers import frames, layout


@given(names=st.lists(st.text(max_size=12), min_size=2, max_size=2, unique=True))
def test_two_names_never_lie_at_one_place(names: list[str]) -> None:
    assert layout.safe(names[0]) != layout.safe(names[1])


@given(name=st.text(min_size=1, max_size=30))
def test_a_name_is_one_ascii_segment_that_no_glob_or_store_reads_otherwise(name: str) -> None:
    made = layout.safe(name)

    assert made.isascii()
    assert not set(made) & set("/\\*?[]{}%#\0\n\"'<>|")
    assert not made.startswith(".")


@given(day=st.text("ab|/", min_size=1, max_size=4), origin=st.text("ab=/.", min_size=1, max_size=4))
def test_dimensions_are_in_order_of_their_names(day: str, origin: str) -> None:
    key = dg.MultiPartitionKey({"origin": origin, "day": day})

    assert layout.partition_path(key) == f"day={layout.safe(day)}/origin={layout.safe(origin)}.parquet"


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (pl.DataFrame, ("frame", False)),
        (pl.LazyFrame, ("lazy", False)),
        (pa.Table, ("table", False)),
        (dict[str, pl.LazyFrame], ("lazy", True)),
        (Mapping[str, pa.Table], ("table", True)),
        (dict, ("frame", True)),
        (dict[str, Any], ("frame", True)),
        (Any, ("frame", False)),
        (None, ("frame", False)),
    ],
)
def test_an_annotation_tells_the_kind_and_whether_by_partition(annotation: Any, expected: tuple[str, bool]) -> None:
    assert frames.wanted(annotation) == expected


@pytest.mark.parametrize("annotation", [int, str, pa.RecordBatch, pl.Series, dict[str, int]])
def test_an_annotation_of_something_else_is_refused(annotation: Any) -> None:
    with pytest.raises(frames.FrameRefused, match="an input is annotated as"):
        frames.wanted(annotation)


@pytest.mark.parametrize("kind", ["frame", "lazy", "table"])
def test_every_kind_streams_as_the_same_arrow(kind: str) -> None:
    frame = pl.DataFrame({"a": range(10), "b": ["x"] * 10, "c": [[1]] * 10})
    value = {"frame": frame, "lazy": frame.lazy(), "table": frame.to_arrow()}[kind]

    batches = list(frames.arrow_reader(value, batch_rows=4))

    assert sum(batch.num_rows for batch in batches) == 10
    assert pl.DataFrame(pa.Table.from_batches(batches)).equals(frame)
    assert {batch.schema for batch in batches} == {frame.to_arrow().schema}


def test_a_lazy_frame_is_not_run_before_its_batches_are_read() -> None:
    ran: list[int] = []

    def note(frame: pl.DataFrame) -> pl.DataFrame:
        ran.append(1)
        return frame

    lazy = pl.LazyFrame({"a": [1]}).map_batches(note, schema={"a": pl.Int64})
    reader = frames.arrow_reader(lazy)

    assert reader.schema.names == ["a"]
    assert ran == []
    assert reader.read_all().num_rows == 1
    assert ran == [1]
