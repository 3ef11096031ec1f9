"""pyarrow steps: whatever a change of an input column changes must be covered, and most of it column by column."""

from __future__ import annotations

import importlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

oracle: Any = importlib.import_module(".values_oracle", __package__) if __package__ else None
FLOOR = 0.95
"""Share of the influences that must have an edge between columns; the rest have one from the whole dataset."""


def make(columns: Any) -> pa.Table:
    return pa.table(columns)


def read(result: Any) -> dict[str, list[Any]]:
    return result.to_pydict()


STEPS: dict[str, Any] = {
    "select": lambda x, y: x.select(["id", "a"]),
    "drop": lambda x, y: x.drop_columns(["s", "n"]),
    "rename": lambda x, y: x.select(["id", "a"]).rename_columns(["id", "q"]),
    "append": lambda x, y: x.select(["id"]).append_column("z", pc.add(x["a"], x["b"])),
    "set": lambda x, y: x.select(["id", "a"]).set_column(1, "a", pc.multiply(x["b"], 2)),
    "filter expression": lambda x, y: x.filter(pc.field("a") > 4).select(["id", "b"]),
    "filter mask": lambda x, y: x.filter(pc.greater(x["a"], 4)).select(["id", "b"]),
    "take": lambda x, y: x.take(pc.sort_indices(x["b"])).select(["id", "a"]),
    "slice": lambda x, y: x.slice(2, 5).select(["id", "b"]),
    "sort": lambda x, y: x.sort_by([("b", "ascending"), ("id", "ascending")]).select(["id", "a"]),
    "join": lambda x, y: x.select(["id", "k"]).join(y.select(["k", "c"]), "k").sort_by("id"),
    "join other keys": lambda x, y: x.select(["id", "a"]).join(y.select(["k", "w"]), "a", "k").sort_by("id"),
    "group": lambda x, y: x.group_by("k").aggregate([("a", "sum"), ("b", "max")]).sort_by("k"),
    "group count": lambda x, y: x.group_by("k").aggregate([([], "count_all")]).sort_by("k"),
    "concat": lambda x, y: pa.concat_tables([x.select(["k", "a"]), y.select(["k", "a"])]),
    "if else": lambda x, y: pa.table({"id": x["id"], "z": pc.if_else(pc.greater(x["b"], 3), x["a"], x["k"])}),
    "cast": lambda x, y: x.select(["id"]).append_column("z", x["a"].cast(pa.string())),
    "string": lambda x, y: pa.table({"z": pc.utf8_upper(x["s"]), "id": x["id"]}),
    "fill null": lambda x, y: pa.table({"z": x["n"].fill_null(0), "id": x["id"]}),
    "coalesce": lambda x, y: pa.table({"z": pc.coalesce(x["n"], pc.cast(x["a"], pa.float64()))}),
    "is in": lambda x, y: x.filter(pc.is_in(x["k"], value_set=y["k"].combine_chunks())).select(["id"]),
    "scalar": lambda x, y: x.filter(pc.greater(x["a"], pc.mean(x["b"]))).select(["id"]),
    "python scalar": lambda x, y: x.filter(pc.greater(x["a"], pc.mean(x["b"]).as_py())).select(["id"]),
    "unique": lambda x, y: pa.table({"u": x["k"].unique()}),
    "drop null": lambda x, y: x.drop_null().select(["id", "a"]),
    "total": lambda x, y: pa.table({"t": [pc.sum(x["a"]).as_py()]}),
    "pylist": lambda x, y: pa.table({"id": x["id"], "z": [v * 2 for v in x["a"].to_pylist()]}),
    "cumulative": lambda x, y: pa.table({"z": pc.cumulative_sum(x["a"])}),
    "chain": lambda x, y: (
        x.filter(pc.field("a") > 1).join(y.select(["k", "c"]), "k").group_by("k").aggregate([("c", "sum")]).sort_by("k")
    ),
    "record batch": lambda x, y: pa.Table.from_batches([x.to_batches()[0]]).select(["a"]),
    "through pandas": lambda x, y: pa.Table.from_pandas(x.to_pandas()[["id", "a"]]),
}


def test_influences_are_covered_and_most_of_them_by_column() -> None:
    found = oracle.score(STEPS, make, read)

    assert found.uncovered == []
    assert found.faults == []
    assert found.without_columns == []
    assert found.share >= FLOOR, found.dataset_only
    assert found.false_direct <= 0.25, found.direct_false
