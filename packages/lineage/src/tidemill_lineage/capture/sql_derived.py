"""Tables made in FROM: VALUES, UNNEST, LATERAL, table functions and readers of files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.model import DatasetUrn

_READERS = frozenset({
    "read_parquet", "parquet_scan", "read_csv", "read_csv_auto", "read_json", "read_json_auto", "read_ndjson",
})  # fmt: skip

Value = Callable[[Any], Influences]


def of_values(node: Any, value: Value) -> Flow:
    """The columns of ``VALUES (...), (...)``, by position."""
    rows = [each.expressions for each in node.expressions if hasattr(each, "expressions")]
    width = max(map(len, rows), default=0)
    names = names_of(node) or [f"column{number + 1}" for number in range(width)]
    columns = {
        name: flow.combine(value(row[number]) for row in rows if number < len(row)) for number, name in enumerate(names)
    }
    return Flow(columns)


def of_function(node: Any, arguments: Iterable[Any], value: Value) -> Flow:
    """The columns of a function in FROM: its arguments flow into each, and decide how many rows there are."""
    found = flow.act(flow.combine(map(value, arguments)), "TRANSFORMATION")
    alias = node.args.get("alias")
    names = names_of(node) or ([alias.name] if alias is not None and alias.name else ["value"])
    return Flow(dict.fromkeys(names, found), flow.act(found, "FILTER"))


def names_of(node: Any) -> list[str]:
    """The column names that an alias gives, as in ``AS t(x, y)``."""
    alias = node.args.get("alias")
    columns = alias.args.get("columns") if alias is not None else None
    return [getattr(each, "name", str(each)) for each in columns or ()]


def file_of(function: Any) -> DatasetUrn | None:
    """The file that a reader function reads, as a dataset; None for another function."""
    from sqlglot import exp

    name = (function.name if isinstance(function, exp.Anonymous) else function.sql_name()).lower()
    literal = function.find(exp.Literal)
    if name not in _READERS or literal is None or not literal.is_string:
        return None
    path = literal.name
    return path if "://" in path else Path(path).absolute().as_uri()
