"""Which rows of a table belong to a partition: the SQL condition for a run's partition keys."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from tidemill_core.errors import ConfigError

if TYPE_CHECKING:
    from tidemill_core.postgres import ColumnType

Condition = tuple[str, list[Any]]
Expression = str | Mapping[str, str]
_MULTI: type[dg.MultiPartitionsDefinition] = dg.MultiPartitionsDefinition


def conditions(
    context: dg.InputContext | dg.OutputContext,
    expression: Expression | None,
    columns: "Mapping[str, ColumnType]",
    *,
    each: bool,
) -> dict[str | None, Condition | None]:
    """Make the conditions for the partitions that a context asks for.

    Args:
        context: Of an asset.
        expression: The asset's ``partition_expr``: a column, or a column by dimension.
        columns: The table's columns, which decide how a time is written.
        each: One condition for each partition key, instead of one for all.

    Returns:
        Condition by partition key; under None the one for all, which is None without partitions.

    Raises:
        ConfigError: The asset has partitions, and its ``partition_expr`` is missing or does
            not fit; or it has none, and `each` of them is asked for.
    """
    if not context.has_asset_partitions:
        if each:
            raise ConfigError(f"{context.asset_key.to_user_string()} has no partitions to make a dict of")
        return {None: None}
    keys = list(context.asset_partition_keys)
    definition = context.asset_partitions_def
    name = context.asset_key.to_user_string()
    made = {key: _condition(definition, key, expression, columns, name) for key in keys}
    if each:
        return {key: made[key] for key in keys}
    if isinstance(definition, dg.TimeWindowPartitionsDefinition) and len(keys) > 1:
        window = context.asset_partitions_time_window
        return {None: _in_window(window, _column(expression, None, name), columns)}
    texts = " OR ".join(f"({text})" for text, _ in made.values()) or "false"
    return {None: (texts, [value for _, values in made.values() for value in values])}


def _condition(
    definition: dg.PartitionsDefinition[Any],
    key: str,
    expression: Expression | None,
    columns: "Mapping[str, ColumnType]",
    name: str,
) -> Condition:
    if isinstance(definition, _MULTI):
        parts = definition.get_partition_key_from_str(key).keys_by_dimension
        inner = {each.name: each.partitions_def for each in definition.partitions_defs}
        made = [
            _single(inner[dimension], value, _column(expression, dimension, name), columns)
            for dimension, value in sorted(parts.items())
        ]
        return " AND ".join(text for text, _ in made), [value for _, values in made for value in values]
    return _single(definition, key, _column(expression, None, name), columns)


def _single(
    definition: dg.PartitionsDefinition[Any], key: str, column: str, columns: "Mapping[str, ColumnType]"
) -> Condition:
    from tidemill_core.postgres import quote

    if isinstance(definition, dg.TimeWindowPartitionsDefinition):
        return _in_window(definition.time_window_for_partition_key(key), column, columns)
    return f"{quote(column)}::text = %s", [key]


def _in_window(window: dg.TimeWindow, column: str, columns: "Mapping[str, ColumnType]") -> Condition:
    from tidemill_core.postgres import quote

    base = columns[column].base if column in columns else "timestamptz"
    bounds = [_as_column(moment, base, column) for moment in (window.start, window.end)]
    return f"{quote(column)} >= %s AND {quote(column)} < %s", bounds


def _as_column(moment: datetime, base: str, column: str) -> Any:
    """Write a window's bound as its column does: without a zone, it is the partition's local time.

    Raises:
        ConfigError: The local time comes twice, so that the column cannot tell two partitions apart.
    """
    if base == "date":
        return moment.date()
    if base != "timestamp":
        return moment
    if _comes_twice(moment) and (moment.fold or _comes_twice(moment - timedelta(microseconds=1))):
        raise ConfigError(
            f"column {column!r} has no time zone, and a partition begins or ends at {moment:%Y-%m-%d %H:%M}, a local "
            f"time that comes twice in {moment.tzinfo} (summer time ends); make the column timestamptz"
        )
    return moment.replace(tzinfo=None)


def _comes_twice(moment: datetime) -> bool:
    """Whether the local time is there a second time, with another offset, because clocks are set back."""
    return moment.replace(fold=0).utcoffset() > moment.replace(fold=1).utcoffset()  # type: ignore[operator]  # aware


def _column(expression: Expression | None, dimension: str | None, name: str) -> str:
    if dimension is None and isinstance(expression, str):
        return expression
    if dimension is not None and isinstance(expression, Mapping) and dimension in expression:
        return expression[dimension]
    wanted = f"a mapping that names the column of {dimension!r}" if dimension else "the name of a column"
    raise ConfigError(f"{name} is partitioned: its metadata 'partition_expr' must be {wanted}")
