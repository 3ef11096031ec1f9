"""What readers may ask: filters, order, page; checked against the spec and written as SQL with bound values.

    ?origin=eq.JFK&temp=gte.50&order=-time_hour,origin&limit=20&after=CURSOR

Values are typed by the stream's fields. A cursor is the sort values of the last row,
signed, so that a page costs the same wherever it is and cannot be forged.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal

import orjson

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.errors import BadQuery
from tidemill_ingest_api.records.kinds import KINDS

Operator = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "like", "contains", "is"]
COMPARISONS: Mapping[str, str] = {"eq": "=", "ne": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS: tuple[str, ...] = (*COMPARISONS, "in", "like", "contains", "is")
DEFAULT_LIMIT, MAX_LIMIT, MAX_VALUES, MAX_TEXT = 100, 1000, 200, 1000
_MAC_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """One condition; `values` are canonical."""

    column: str
    operator: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One sort column."""

    column: str
    is_descending: bool = False
    is_nullable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """A checked question; `order` always ends with the whole primary key, `after` are its values in the last row."""

    filters: tuple[Filter, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int = DEFAULT_LIMIT
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a database writes what SQL leaves open."""

    placeholder: str
    adapt: Callable[[Any], Any]


def build_filter(stream: StreamConfig, column: str, operator: str, values: Sequence[str]) -> Filter:
    """Check one condition and type its values.

    Raises:
        BadQuery: The column, the operator or a value is not allowed.
    """
    allowed = filterable(stream)
    if column not in allowed:
        raise BadQuery(f"{column!r} cannot be filtered on; allowed: {', '.join(allowed)}")
    if operator not in OPERATORS:
        raise BadQuery(f"unknown operator {operator!r}; known: {', '.join(OPERATORS)}")
    kind = KINDS[stream.fields[column].type]
    if operator in {"like", "contains"} and not kind.is_text:
        raise BadQuery(f"{operator} needs a text column, {column!r} is {kind.name}")
    if operator == "is":
        if tuple(values) not in {("null",), ("not_null",)}:
            raise BadQuery(f"write {column}=is.null or {column}=is.not_null")
        return Filter(column=column, operator=operator, values=tuple(values))
    if len(values) > MAX_VALUES or (operator != "in" and len(values) != 1) or not values:
        raise BadQuery(f"{operator} takes {'1 to 200 values' if operator == 'in' else 'one value'}")
    return Filter(column=column, operator=operator, values=tuple(_parse(column, kind.parse, value) for value in values))


def parse_filter(stream: StreamConfig, column: str, text: str) -> Filter:
    """Read ``operator.value``, such as ``gte.50`` or ``in.(JFK,"a,b")``.

    Raises:
        BadQuery: It cannot be read or is not allowed.
    """
    operator, dot, value = text.partition(".")
    if not dot or operator not in OPERATORS:
        raise BadQuery(f"write {column}=OPERATOR.VALUE, such as {column}=eq.{text[:40]}; known: {', '.join(OPERATORS)}")
    values = _list(column, value) if operator == "in" else [value]
    return build_filter(stream, column, operator, values)


def parse_order(stream: StreamConfig, text: str | None) -> tuple[Order, ...]:
    """Read ``-time_hour,origin``; the primary key is added so that the order is total.

    Raises:
        BadQuery: A column is unknown or not sortable.
    """
    allowed = sortable(stream)
    found: list[Order] = []
    for part in filter(None, (text or "").split(",")):
        column = part.lstrip("-+")
        if column not in allowed:
            raise BadQuery(f"{column!r} cannot be sorted by; allowed: {', '.join(allowed)}")
        if column in {each.column for each in found}:
            raise BadQuery(f"{column!r} is named twice in the order")
        is_key = column in stream.primary_key
        found.append(Order(column=column, is_descending=part.startswith("-"), is_nullable=not is_key))
    named = {each.column for each in found}
    down = bool(found) and all(each.is_descending for each in found)
    rest = [Order(column=k, is_descending=down, is_nullable=False) for k in stream.primary_key if k not in named]
    return (*found, *rest)


def parse_key(stream: StreamConfig, parts: Sequence[str]) -> tuple[Any, ...]:
    """Type the values of a primary key, in its order.

    Raises:
        BadQuery: Their number or a value is wrong.
    """
    names = stream.primary_key
    if len(parts) != len(names):
        raise BadQuery(f"a key of {stream.name!r} has {len(names)} parts ({','.join(names)}), {len(parts)} given")
    return tuple(
        _parse(name, KINDS[stream.fields[name].type].parse, part) for name, part in zip(names, parts, strict=True)
    )


def filterable(stream: StreamConfig) -> list[str]:
    """Fields that may be filtered on."""
    return list(dict.fromkeys([*stream.primary_key, *stream.serve.filters]))


def sortable(stream: StreamConfig) -> list[str]:
    """Fields that may be sorted by."""
    return list(dict.fromkeys([*stream.primary_key, *stream.serve.sort]))


def parse_limit(text: str | None, *, maximum: int = MAX_LIMIT) -> int:
    """Read a page size.

    Raises:
        BadQuery: It is no number from 1 to `maximum`.
    """
    if text is None or text == "":
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= maximum):  # noqa: PLR2004
        raise BadQuery(f"limit must be a number from 1 to {maximum}")
    return int(text)


def sign_cursor(secret: bytes, stream: StreamConfig, select: Select, last: bytes) -> str:
    """Make the cursor that continues after the encoded record `last`."""
    record = orjson.loads(last)
    payload = orjson.dumps([record[each.column] for each in select.order])
    return urlsafe_b64encode(_mac(secret, stream, select, payload) + payload).rstrip(b"=").decode()


def apply_cursor(secret: bytes, stream: StreamConfig, select: Select, cursor: str) -> Select:
    """Continue `select` after a cursor.

    Raises:
        BadQuery: The cursor is not ours, or belongs to another question.
    """
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (NotBase64, ValueError):
        raise BadQuery("this cursor is not one of ours") from None
    mac, payload = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(secret, stream, select, payload)):
        raise BadQuery("this cursor is not ours, or belongs to another table, filter or order; start at the first page")
    values = orjson.loads(payload)
    kinds = [KINDS[stream.fields[each.column].type] for each in select.order]
    after = tuple(
        None if value is None else value if isinstance(value, int | float | bool) else kind.parse(value)
        for value, kind in zip(values, kinds, strict=True)
    )
    return replace(select, after=after)


def where(select: Select, quote: Callable[[str], str], dialect: Dialect) -> tuple[str, list[Any]]:
    """Write ``WHERE ... ORDER BY ... LIMIT`` and its parameters."""
    terms: list[str] = []
    params: list[Any] = []
    for each in select.filters:
        text, values = _condition(each, quote(each.column), dialect)
        terms.append(text)
        params.extend(values)
    if select.after is not None:
        text, values = _keyset(select.order, select.after, quote, dialect)
        terms.append(text)
        params.extend(values)
    sql = f" WHERE {' AND '.join(terms)}" if terms else ""
    if select.order:
        sql += " ORDER BY " + ", ".join(_order(each, quote) for each in select.order)
    return f"{sql} LIMIT {int(select.limit)}", params


def _condition(each: Filter, column: str, dialect: Dialect) -> tuple[str, list[Any]]:
    mark, values = dialect.placeholder, [dialect.adapt(value) for value in each.values]
    match each.operator:
        case "is":
            return f"{column} IS {'NULL' if values == ['null'] else 'NOT NULL'}", []
        case "in":
            return f"{column} IN ({', '.join([mark] * len(values))})", values
        case "like":
            return f"{column} LIKE {mark} ESCAPE '\\'", [_escaped(values[0]).replace("*", "%")]
        case "contains":
            return f"{column} LIKE {mark} ESCAPE '\\'", [f"%{_escaped(values[0])}%"]
        case operator:
            return f"{column} {COMPARISONS[operator]} {mark}", values


def _keyset(
    order: Sequence[Order], after: Sequence[Any], quote: Callable[[str], str], dialect: Dialect
) -> tuple[str, list[Any]]:
    """Rows after `after`: one row comparison where an index can serve it, else spelt out, nulls last ascending."""
    mark = dialect.placeholder
    if len({each.is_descending for each in order}) == 1 and not any(each.is_nullable for each in order):
        columns = ", ".join(quote(each.column) for each in order)
        sign = "<" if order[0].is_descending else ">"
        return f"({columns}) {sign} ({', '.join([mark] * len(order))})", [dialect.adapt(value) for value in after]
    branches, params = [], []
    for index, each in enumerate(order):
        beyond = _beyond(each, after[index], quote(each.column), mark)
        if beyond is None:
            continue
        terms = []
        for earlier, value in zip(order[:index], after[:index], strict=True):
            terms.append(f"{quote(earlier.column)} IS NULL" if value is None else f"{quote(earlier.column)} = {mark}")
            params += [] if value is None else [dialect.adapt(value)]
        branches.append(" AND ".join([*terms, beyond]))
        params += [dialect.adapt(after[index])] * beyond.count(mark)
    return "(" + " OR ".join(f"({branch})" for branch in branches) + ")", params


def _beyond(order: Order, value: Any, column: str, mark: str) -> str | None:
    if value is None:
        return f"{column} IS NOT NULL" if order.is_descending else None
    if order.is_descending:
        return f"{column} < {mark}"
    return f"({column} > {mark} OR {column} IS NULL)" if order.is_nullable else f"{column} > {mark}"


def _order(order: Order, quote: Callable[[str], str]) -> str:
    direction = "DESC" if order.is_descending else "ASC"
    nulls = (" NULLS FIRST" if order.is_descending else " NULLS LAST") if order.is_nullable else ""
    return f"{quote(order.column)} {direction}{nulls}"


def _mac(secret: bytes, stream: StreamConfig, select: Select, payload: bytes) -> bytes:
    question = repr((stream.name, select.filters, select.order)).encode()
    return hmac.digest(secret, question + b"\x00" + payload, sha256)[:_MAC_BYTES]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _parse(column: str, parse: Callable[[str], Any], text: str) -> Any:
    if len(text) > MAX_TEXT:
        raise BadQuery(f"the value of {column!r} is longer than {MAX_TEXT} characters")
    try:
        return parse(text)
    except (ValueError, TypeError) as error:
        raise BadQuery(f"{text[:40]!r} is no value of {column!r}: {error}") from None


def _list(column: str, text: str) -> list[str]:
    if not (text.startswith("(") and text.endswith(")")):
        raise BadQuery(f"write {column}=in.(a,b)")
    return list(_split_quoted(text[1:-1]))


def _split_quoted(text: str) -> Iterable[str]:
    part, is_quoted = "", False
    for char in text:
        if char == '"':
            is_quoted = not is_quoted
        elif char == "," and not is_quoted:
            yield part
            part = ""
        else:
            part += char
    yield part
