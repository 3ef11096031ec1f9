"""Values that tasks hand on: JSON, dates, decimals and bytes, kept with their type; their text in commands."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from math import isfinite
from typing import Any
from zoneinfo import ZoneInfo

from tidemill_core.dag.errors import BadOutputs

LIMIT_BYTES = 256 * 1024
"""What the outputs of one step may take as JSON: they stand in the event log, which every reader of a run loads."""
_TYPE, _VALUE = "$tidemill", "value"
"""Keys of the object that stands for a value JSON has no form for."""
_KEPT = "JSON values, date, datetime, Decimal and bytes are kept"
_HINTS = {
    "Timestamp": "; use .to_pydatetime()",
    "DataFrame": "; a table goes through an IO manager or a store, hand on its key",
    "Series": "; use .to_list()",
    "Table": "; a table goes through an IO manager or a store, hand on its key",
    "ndarray": "; use .tolist()",
    "set": "; use sorted(...)",
    "PosixPath": "; use str(...)",
    "UUID": "; use str(...)",
}


def encode(value: Any, *, where: str) -> Any:
    """Write a value as JSON that `decode` turns back into the same value and type.

    Args:
        value: None, bool, int, float, str, date, datetime, Decimal, bytes, or lists and mappings
            (with text keys) of them. Tuples arrive as lists; subclasses of str, int and float as those.
        where: Task and output, for the message.

    Raises:
        BadOutputs: The value, or one inside it, is of another type; says where.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else _tagged("float", str(float(value)))
    for kind in (str, int):
        if isinstance(value, kind):
            return kind(value)
    write = _WRITE.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, list | tuple):
        return [encode(each, where=f"{where}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, Mapping):
        return _encoded_mapping(value, where)
    name = type(value).__name__
    raise BadOutputs(f"{where} is a {type(value).__module__}.{name}; {_KEPT}{_HINTS.get(name, '')}")


def _encoded_mapping(value: Mapping[Any, Any], where: str) -> Any:
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None:
        raise BadOutputs(f"{where} has the key {wrong!r}; the keys of a mapping must be texts")
    found = {str(key): encode(each, where=f"{where}.{key}") for key, each in value.items()}
    # An object that looks like one of ours is wrapped, so that reading cannot take it for a date.
    return _tagged("object", found) if _TYPE in found else found


def _tagged(kind: str, value: Any) -> dict[str, Any]:
    return {_TYPE: kind, _VALUE: value}


def _write_datetime(value: datetime) -> dict[str, Any]:
    found = _tagged("datetime", value.isoformat())
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        found |= {"zone": value.tzinfo.key, "fold": value.fold}
    return found


def _read_datetime(found: Mapping[str, Any]) -> datetime:
    value = datetime.fromisoformat(found[_VALUE])
    if "zone" not in found:
        return value
    return value.replace(tzinfo=ZoneInfo(found["zone"]), fold=found["fold"])


_WRITE: dict[type, Callable[[Any], dict[str, Any]]] = {
    date: lambda value: _tagged("date", value.isoformat()),
    datetime: _write_datetime,
    Decimal: lambda value: _tagged("decimal", str(value)),
    bytes: lambda value: _tagged("bytes", base64.b64encode(value).decode("ascii")),
}
_READ: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "date": lambda found: date.fromisoformat(found[_VALUE]),
    "datetime": _read_datetime,
    "decimal": lambda found: Decimal(found[_VALUE]),
    "bytes": lambda found: base64.b64decode(found[_VALUE]),
    "float": lambda found: float(found[_VALUE]),
    "object": lambda found: {key: decode(each) for key, each in found[_VALUE].items()},
}


def decode(value: Any) -> Any:
    """Turn what `encode` wrote back into the value."""
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    read = _READ.get(value.get(_TYPE, ""))
    return read(value) if read else {key: decode(each) for key, each in value.items()}


def encode_outputs(values: Mapping[str, Any], *, task: str) -> dict[str, Any]:
    """Write the outputs of a task.

    Raises:
        BadOutputs: A value cannot be kept, or together they take more than `LIMIT_BYTES` as JSON.
    """
    found = {name: encode(value, where=f"task {task!r}: output {name!r}") for name, value in values.items()}
    sizes = {name: len(json.dumps(each)) for name, each in found.items()}
    if sum(sizes.values()) > LIMIT_BYTES:
        name = max(sizes, key=lambda each: sizes[each])
        raise BadOutputs(
            f"task {task!r}: output {name!r} takes {sizes[name] / 1024:.0f} KiB as JSON, and all "
            f"outputs of a task may take {LIMIT_BYTES // 1024} KiB; write the data through an IO manager or to "
            "a store, and return its key"
        )
    return found


def as_text(value: Any, *, where: str) -> str:
    """Write a value into a command, an argument or a variable of the environment.

    Texts stay as they are, dates are ISO 8601, all else is JSON (`true`, `null`, `[1, 2]`).

    Raises:
        BadOutputs: The value is bytes, or holds something that JSON cannot hold.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        raise BadOutputs(f"{where} is bytes, which have no text; hand them to a callable, or write them to a store")
    if isinstance(value, date | Decimal):
        return _plain(value)
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except TypeError as error:
        raise BadOutputs(f"{where} holds a value that has no text: {error}") from error


def _plain(value: Any) -> str:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} ({value!r:.60})")
