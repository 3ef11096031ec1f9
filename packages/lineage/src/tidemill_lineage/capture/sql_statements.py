"""What a statement writes, as queries: UPDATE, MERGE and DELETE are read as the SELECTs that they amount to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill_core.plugins import did_you_mean

from tidemill_lineage.errors import CaptureError
from tidemill_lineage.model import DatasetUrn

_TEMPLATE = re.compile(r"\{\{|\{%|\$\{")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A table, and the queries whose columns go into its columns of the same name.

    Attributes:
        table: Name of the table; empty for a query that writes none.
        queries: What is written.
        names: Columns that the statement lists, for a query whose columns go by position.
        by_position: Without a list, the query's columns go to the table's in order.
        is_passing: A temporary table or a view: later statements read through it.
    """

    table: str
    queries: tuple[Any, ...]
    names: tuple[str, ...] = ()
    by_position: bool = False
    is_passing: bool = False
    file: DatasetUrn = ""
    """The file that a COPY writes."""


def statements(sql: str, dialect: str) -> list[Any]:
    """Parse a script.

    Raises:
        CaptureError: It cannot be parsed, is a template, or the dialect is unknown.
    """
    import sqlglot

    _refuse_template(sql)
    known = sorted(each.value for each in sqlglot.Dialects if each.value)
    if dialect.split(",", maxsplit=1)[0].strip().lower() not in known:
        raise CaptureError(f"unknown SQL dialect {dialect!r}{did_you_mean(dialect, known)}")
    try:
        return [_understood(each, dialect) for each in sqlglot.parse(sql, dialect=dialect) if each is not None]
    except sqlglot.errors.SqlglotError as error:
        raise CaptureError(f"the SQL cannot be parsed: {str(error).splitlines()[0]}") from error


def _understood(statement: Any, dialect: str) -> Any:
    """A statement that the parser knows; one that writes data and is not known is refused, not left out in silence."""
    import sqlglot
    from sqlglot import exp

    if not isinstance(statement, exp.Command):
        return statement
    text = f"{statement.name} {statement.args.get('expression') or ''}"
    if not _WRITES.match(text):
        return statement
    # CREATE TABLE ... AS PIVOT ... is known when the PIVOT stands in brackets
    written = _PIVOTED.sub(r"\1 SELECT * FROM (\2", text.rstrip("; \n")) + ")"  # noqa: S608  # parsed, never run
    found = sqlglot.parse_one(written, dialect=dialect) if _PIVOTED.search(text) else None
    if found is None or isinstance(found, exp.Command):
        raise CaptureError(f"a statement that writes data cannot be read: {text[:80]!r}")
    return found


_WRITES = re.compile(
    r"\s*(CREATE\b.*\b(TABLE|VIEW)\b.*\bAS\b|INSERT\b|MERGE\b|UPDATE\b|COPY\b)", re.IGNORECASE | re.DOTALL
)
_PIVOTED = re.compile(r"\b(AS|INTO\s+[\w.\"]+)\s+((?:UN)?PIVOT\b)", re.IGNORECASE)


def _refuse_template(sql: str) -> None:
    """Refuse what is still a template: guessing what it expands to would invent lineage."""
    for found in _TEMPLATE.finditer(sql):
        # an odd number of quotes before it: it stands in a text, where it is only text
        if sql.count("'", 0, found.start()) % 2 == 0:
            line = sql.count("\n", 0, found.start()) + 1
            place = f"line {line}, column {found.start() - sql.rfind(chr(10), 0, found.start())}"
            raise CaptureError(f"the SQL holds a template ({found[0]} at {place}): render it, and pass what it gives")


def written(statement: Any) -> Written | None:
    """Take a statement apart; None if it moves no data."""
    from sqlglot import exp

    if isinstance(statement, exp.Query):
        into = statement.args.get("into")
        statement.set("into", None)
        table = name_of(into.this) if into is not None else ""
        is_passing = into is not None and bool(into.args.get("temporary"))
        return Written(table=table, queries=(statement,), is_passing=is_passing)
    readers = {exp.Pivot: _alone, exp.Copy: _copy, exp.Update: _update, exp.Merge: _merge, exp.Delete: _delete}
    reader = readers.get(type(statement))
    if reader is not None:
        return reader(statement)
    query = statement.args.get("expression")
    if isinstance(statement, (exp.Insert, exp.Create)) and isinstance(query, (exp.Query, exp.Pivot)):
        return _insert(statement, query)
    if isinstance(statement, exp.Create) and statement.kind in ("TABLE", "VIEW") and query is not None:
        raise CaptureError(f"what {name_of(_table_of(statement))} is made of cannot be read: {query.sql()[:80]!r}")
    return None


def _table_of(statement: Any) -> Any:
    from sqlglot import exp

    return statement.this.this if isinstance(statement.this, exp.Schema) else statement.this


def _alone(statement: Any) -> Written:
    """``PIVOT ...`` and ``UNPIVOT ...`` by themselves."""
    return Written(table="", queries=(statement,))


def _insert(statement: Any, query: Any) -> Written:
    from sqlglot import exp

    for with_ in (statement.args.get("with_"), statement.args.get("with")):
        if with_ is not None and isinstance(query, exp.Query) and not query.ctes:
            query.set("with_", with_)
    target = statement.this
    listed = tuple(each.name for each in target.expressions) if isinstance(target, exp.Schema) else ()
    is_insert = isinstance(statement, exp.Insert)
    table = target.this if isinstance(target, exp.Schema) else target
    passing = not is_insert and (statement.kind == "VIEW" or statement.find(exp.TemporaryProperty) is not None)
    return Written(
        table=name_of(table), queries=(query,), names=listed if is_insert else (), by_position=is_insert,
        is_passing=passing,
    )  # fmt: skip


def _copy(statement: Any) -> Written:
    """``COPY t FROM 'file'``, ``COPY t TO 'file'``, ``COPY (query) TO 'file'``.

    Raises:
        CaptureError: The other side is no file.
    """
    from sqlglot import exp

    files = [each for each in statement.args.get("files") or () if isinstance(each, exp.Literal) and each.is_string]
    if not files:
        raise CaptureError("this COPY goes through the client or a program: what is on the other side is not known")
    target = statement.this
    table = target.this if isinstance(target, exp.Schema) else target
    listed = tuple(each.name for each in target.expressions) if isinstance(target, exp.Schema) else ()
    if statement.args.get("kind"):
        reader = exp.Table(this=exp.Anonymous(this="read_csv", expressions=[each.copy() for each in files]))
        query = exp.Select(expressions=[exp.Star()]).from_(reader)
        return Written(table=name_of(table), queries=(query,), names=listed, by_position=True)
    if isinstance(table, exp.Table):
        columns: list[Any] = [exp.column(name) for name in listed]
        query = exp.Select(expressions=columns or [exp.Star()]).from_(table.copy())
        return Written(table="", queries=(query,), file=file_urn(files[0].name))
    return Written(table="", queries=(table.unnest(),), file=file_urn(files[0].name))


def file_urn(path: str) -> DatasetUrn:
    """A file as a dataset."""
    return path if "://" in path else Path(path).absolute().as_uri()


def _update(statement: Any) -> Written:
    select = _select(_assigned(statement.expressions), statement.this)
    source = statement.args.get("from_") or statement.args.get("from")
    if source is not None:
        _join(select, source.this)
    _narrow(select, statement)
    return Written(table=name_of(statement.this), queries=(select,))


def _delete(statement: Any) -> Written:
    from sqlglot import exp

    select = _select([exp.alias_(exp.Literal.number(1), "deleted")], statement.this)
    for source in statement.args.get("using") or ():
        _join(select, source)
    _narrow(select, statement)
    # no column gets a value: which rows are left is all that changes
    return Written(table=name_of(statement.this), queries=(select,), names=("",))


def _merge(statement: Any) -> Written:
    queries = []
    for when in statement.args["whens"].expressions:
        values = list(_when(when.args.get("then")))
        if values:
            select = _select(values, statement.this)
            _join(select, statement.args["using"], on=statement.args.get("on"))
            if when.args.get("condition") is not None:
                select.where(when.args["condition"].copy(), copy=False)
            queries.append(select)
    return Written(table=name_of(statement.this), queries=tuple(queries))


def _when(then: Any) -> Iterator[Any]:
    """The values that one branch of a MERGE writes, under the names of their columns."""
    from sqlglot import exp

    if isinstance(then, exp.Update):
        yield from _assigned(then.expressions)
    elif isinstance(then, exp.Insert) and then.this is not None and then.expression is not None:
        for column, value in zip(then.this.expressions, then.expression.expressions, strict=False):
            yield exp.alias_(value.copy(), column.name)


def _assigned(pairs: Any) -> list[Any]:
    from sqlglot import exp

    return [exp.alias_(each.expression.copy(), each.this.name) for each in pairs if isinstance(each, exp.EQ)]


def _select(values: list[Any], table: Any) -> Any:
    from sqlglot import exp

    return exp.Select(expressions=values).from_(table.copy())


def _join(select: Any, source: Any, *, on: Any = None) -> None:
    joined = source.copy()
    more = joined.args.get("joins") or []
    joined.set("joins", None)
    select.join(
        joined, on=on.copy() if on is not None else None, join_type="" if on is not None else "cross", copy=False
    )
    for each in more:
        select.append("joins", each)


def _narrow(select: Any, statement: Any) -> None:
    where = statement.args.get("where")
    if where is not None:
        select.where(where.this.copy(), copy=False)
    with_ = statement.args.get("with_") or statement.args.get("with")
    if with_ is not None:
        select.set("with_", with_.copy())


def name_of(table: Any) -> str:
    """The name of a table, folded."""
    return ".".join(part.name for part in table.parts).lower()
