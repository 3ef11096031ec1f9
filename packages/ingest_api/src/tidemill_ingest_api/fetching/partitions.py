"""The parts that a stream is read in: values, rows of a parent, windows of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import orjson
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api.config import StreamConfig, WindowConfig
from tidemill_ingest_api.paging._base import text_of
from tidemill_ingest_api.records.kinds import KINDS
from tidemill_ingest_api.stores._base import Store, TableSpec
from tidemill_ingest_api.stores.query import Select, parse_order

log = get_logger(__name__)
_CHUNK = 1000
_UNIT_S = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One part: `key` names its state, `values` replace ``{name}``."""

    key: str = ""
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A range of time, its end not counted in."""

    start: datetime
    end: datetime

    def halves(self, config: WindowConfig) -> tuple[Window, Window] | None:
        """Split in two; None where a bound cannot be written finer."""
        unit = _unit(config)
        middle = self.start + (self.end - self.start) / 2
        middle = _floor(middle, unit)
        if not self.start < middle < self.end:
            return None
        return Window(start=self.start, end=middle), Window(start=middle, end=self.end)


def value_partitions(stream: StreamConfig) -> list[Partition]:
    """List every combination of the declared values; one without values where none are declared."""
    names = list(stream.partitions)
    combined = product(*stream.partitions.values())
    return [_partition(dict(zip(names, values, strict=True))) for values in combined]


def parent_partitions(
    stream: StreamConfig, parent: StreamConfig, spec: TableSpec, store: Store
) -> Iterator[Mapping[str, str]]:
    """Give the values of every row of the parent's table, in the order of its key; rows with a null are left out."""
    order = parse_order(parent, None)
    after: tuple[Any, ...] | None = None
    while True:
        docs = store.select(spec, Select(order=order, limit=_CHUNK, after=after))
        for doc in map(orjson.loads, docs):
            values = {name: doc.get(name) for name in stream.parent_fields}
            empty = [name for name, value in values.items() if value is None or value == ""]
            if empty:
                log.warning("parent_row_left_out", stream=stream.name, parent=parent.name, empty=", ".join(empty))
                continue
            yield {f"parent.{name}": text_of(value) for name, value in values.items()}
        if len(docs) < _CHUNK:
            return
        after = _key(parent, orjson.loads(docs[-1]))


def partitions(
    stream: StreamConfig, parent: StreamConfig | None, spec: TableSpec | None, store: Store
) -> Iterator[Partition]:
    """Give the parts of a stream, each once.

    Args:
        stream: What is read.
        parent: Its parent, where it has one, and `spec` is that one's table.
        spec: The parent's table.
        store: Holds the parent's rows.
    """
    for declared in value_partitions(stream):
        if parent is None or spec is None:
            yield declared
            continue
        seen: set[str] = set()
        for values in parent_partitions(stream, parent, spec, store):
            found = _partition({**declared.values, **values})
            if found.key not in seen:  # several rows may share the fields that are used
                seen.add(found.key)
                yield found


def first_window(config: WindowConfig, reached: str | None, now: datetime) -> Window:
    """Say which range is still to be read.

    Args:
        config: The declared range.
        reached: Up to where it was read, as kept; None before the first run.
        now: Ends a range without an end.
    """
    begin = config.start
    if reached is not None:
        begin = max(begin, datetime.fromisoformat(reached) - timedelta(seconds=config.lag_s))
    unit = _unit(config)
    end = _ceil(config.end or now, unit)
    return Window(start=min(_floor(begin, unit), end), end=end)


def windows(config: WindowConfig, whole: Window) -> Iterator[Window]:
    """Cut a range into windows of the declared length; the last may be shorter."""
    number = config.step.rstrip("smindh")
    step = timedelta(seconds=int(number) * _UNIT_S[config.step.removeprefix(number)])
    at = whole.start
    while at < whole.end:
        yield Window(start=at, end=min(at + step, whole.end))
        at += step


def window_values(config: WindowConfig, window: Window) -> dict[str, str]:
    """Write a window's bounds as the API reads them."""
    end = window.end - _unit(config) if config.inclusive_end else window.end
    return {"window.start": _written(config, window.start), "window.end": _written(config, end)}


def _written(config: WindowConfig, moment: datetime) -> str:
    match config.format:
        case "date":
            return moment.date().isoformat()
        case "epoch_s":
            return str(int(moment.timestamp()))
        case "epoch_ms":
            return str(round(moment.timestamp() * 1000))
        case _:
            return moment.isoformat().replace("+00:00", "Z")


def _unit(config: WindowConfig) -> timedelta:
    if config.format == "date":
        return _DAY
    return timedelta(milliseconds=1) if config.format == "epoch_ms" else timedelta(seconds=1)


def _floor(moment: datetime, unit: timedelta) -> datetime:
    zero = datetime(1970, 1, 1, tzinfo=UTC)
    return zero + (moment - zero) // unit * unit


def _ceil(moment: datetime, unit: timedelta) -> datetime:
    low = _floor(moment, unit)
    return low if low == moment else low + unit


def _partition(values: Mapping[str, str]) -> Partition:
    key = orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS).decode() if values else ""
    return Partition(key=key, values=values)


def _key(stream: StreamConfig, doc: Mapping[str, Any]) -> tuple[Any, ...]:
    values: Sequence[Any] = [doc[name] for name in stream.primary_key]
    kinds = [KINDS[stream.fields[name].type] for name in stream.primary_key]
    return tuple(
        value if isinstance(value, int | float | bool) else kind.parse(value)
        for value, kind in zip(values, kinds, strict=True)
    )


__all__ = ["Partition", "Window", "first_window", "partitions", "value_partitions", "window_values", "windows"]
