"""Which operations of DuckDB are watched, and what a relation is made of: its SQL text says it.

A query names Python variables as tables, so the caller's frame says what they are. DuckDB looks for them in the
frame that calls it; the doors call from a frame that shows the user's variables.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow
from tidemill_lineage.capture.watch import files
from tidemill_lineage.capture.watch.op import Door, Op, current, method_door, watched
from tidemill_lineage.capture.watch.seen import Seen
from tidemill_lineage.capture.watch.trail import Trail, is_tabular, names_of

_QUERIES = ("sql", "query", "from_query", "execute", "query_df")
_SOURCES = ("from_df", "from_arrow", "register")
_FETCHED = [
    "df",
    "fetchdf",
    "fetch_df",
    "to_df",
    "arrow",
    "fetch_arrow_table",
    "to_arrow_table",
    "pl",
    "fetchall",
    "fetchone",
    "fetchmany",
    "fetchnumpy",
    "to_dicts",
    "iter_rows",
    "torch",
    "tf",
    "fetch_record_batch",
    "to_arrow_reader",
]
_HELD = re.compile(r'"?(__duckdb_source_\w+)"?')
_NAMED = re.compile(
    r'(?:WITH|,)\s+("?)(\w+)\1\s+AS\s+(?:NOT\s+MATERIALIZED\s+)?\(\s*SELECT \* FROM "?(__duckdb_source_\w+)"?',
    re.IGNORECASE,
)
_WORD = re.compile(r'(?:\b(?:from|join|into|update|table|using)\s+|,\s*)"?([A-Za-z_]\w*)"?', re.IGNORECASE)


def doors() -> Mapping[str, list[Door]]:
    """The doors of the DuckDB that is loaded."""
    import duckdb

    relation, connection = duckdb.DuckDBPyRelation, duckdb.DuckDBPyConnection
    found: list[Door | None] = []
    for owner in (connection, duckdb):
        for name in _QUERIES:
            original = getattr(owner, name, None)
            if original is not None and (owner is duckdb or name in dir(owner)):
                found.append(Door(owner, name, _querying(original, name, is_method=owner is connection)))
        for name in _SOURCES:
            original = getattr(owner, name, None)
            if original is not None:
                found.append(Door(owner, name, watched(original, name, _source, is_method=owner is connection)))
    found += [method_door(owner, name, _fetched) for owner in (relation, connection) for name in _FETCHED]
    return {"entry": [*(each for each in found if each is not None), *files.duckdb_doors(relation)]}


def seen_of(trail: Trail, relation: Any) -> Seen:
    """What a relation holds, by its SQL text.

    Raises:
        CaptureError: The text cannot be read.
    """
    return _of_text(trail, relation.sql_query(), tuple(relation.columns))


def _of_text(trail: Trail, text: str, columns: tuple[str, ...]) -> Seen:
    from tidemill_lineage.capture.sql import sql_flows

    known = _tables_in(trail, text)
    catalog = {name: dict.fromkeys(map(str, seen.names), "") for name, seen in known.items()}
    *_, (_, found) = sql_flows(text, catalog=catalog, dialect="duckdb")
    whole = flow.substituted(found, _as_flows(known))
    values = tuple(whole.columns.values())
    if len(values) != len(columns):
        everything = flow.act(flow.combine([*values, *(seen.whole() for seen in known.values())]), "TRANSFORMATION?")
        return Seen(columns, (everything or trail.everything(),) * len(columns), whole.rows)
    return Seen(columns, values, whole.rows)


def _tables_in(trail: Trail, text: str) -> dict[str, Seen]:
    names = {*_HELD.findall(text), *_WORD.findall(text)}
    return {name.lower(): trail.tables[name.lower()] for name in names if name.lower() in trail.tables}


def _as_flows(known: Mapping[str, Seen]) -> dict[str, Flow]:
    return {f"table://{name}": seen.to_flow() for name, seen in known.items()}


def _querying(original: Callable[..., Any], name: str, *, is_method: bool) -> Callable[..., Any]:
    """Call from a frame that shows the user's variables, which a query may name as tables."""

    @functools.wraps(original)
    def door(*args: Any, **kwargs: Any) -> Any:
        trail = current.get()
        frame = sys._getframe(1)  # noqa: SLF001  # its variables are the tables of a query
        token = current.set(None)
        try:
            result = _called(original, args, kwargs, frame)
        finally:
            current.reset(token)
        if trail is not None:
            _asked(trail, args[1:] if is_method else args, kwargs, result, frame, name)
        return result

    return door


def _called(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], frame: Any) -> Any:
    shown = {**frame.f_locals, "__tidemill_call__": functools.partial(original, *args, **kwargs)}
    return eval(_CALL, frame.f_globals, shown)  # noqa: S307  # our own text; only its frame's variables are the user's


_CALL = compile("__tidemill_call__()", "<tidemill lineage>", "eval")


def _asked(trail: Trail, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, frame: Any, name: str) -> None:
    """Learn what a query's tables are, and what it gives."""
    try:
        text = next((each for each in (*args, *kwargs.values()) if isinstance(each, str)), "")
        if name == "query_df":
            given = dict(zip(("df", "virtual_table_name", "sql_query"), args, strict=False)) | kwargs
            text = given["sql_query"]
            _know(trail, given["virtual_table_name"], given["df"])
        for word in dict.fromkeys(_WORD.findall(text)):
            value = frame.f_locals.get(word, frame.f_globals.get(word))
            if is_tabular(value):
                _know(trail, word, value)
        if type(result).__name__ == "DuckDBPyRelation":
            for _, word, held in _NAMED.findall(result.sql_query()):
                if word.lower() in trail.tables:
                    trail.tables[held.lower()] = trail.tables[word.lower()]
        elif text:
            _executed(trail, text, result)
    except Exception as error:  # noqa: BLE001  # SQL that is not known here; what it gives is assumed
        trail.faults.append(error)
        if type(result).__name__ == "DuckDBPyConnection":
            trail.note(result, Seen(("",), (trail.left() or trail.everything(),)))


def _know(trail: Trail, name: str, value: Any) -> None:
    trail.tables[name.lower()] = trail.table(value)


def _executed(trail: Trail, text: str, connection: Any) -> None:
    """A script: tables it makes are known to later ones; the last query is what the connection then holds."""
    from tidemill_lineage.capture.sql import sql_flows

    known = _tables_in(trail, text)
    catalog = {name: dict.fromkeys(map(str, seen.names), "") for name, seen in known.items()}
    flows = _as_flows(known)
    for table, found in sql_flows(text, catalog=catalog, dialect="duckdb"):
        whole = flow.substituted(found, flows)
        seen = Seen(tuple(whole.columns), tuple(whole.columns.values()), whole.rows)
        if table:
            trail.tables[table] = seen
            flows[f"table://{table}"] = seen.to_flow()
        else:
            trail.note(connection, seen)


def _source(op: Op) -> None:
    """`from_df` and the like: a relation over a frame; `register`: a frame under a name."""
    values = [*op.args, *op.kwargs.values()]
    frame = next((each for each in values if is_tabular(each)), None)
    if frame is None:
        return
    if op.name == "register":
        name = next(each for each in values if isinstance(each, str))
        _know(op.trail, name, frame)
        return
    seen = op.trail.table(frame)
    for held in _HELD.findall(op.result.sql_query()):
        op.trail.tables[held.lower()] = seen
    op.trail.note(op.result, seen.picked(tuple(op.result.columns), lambda _: seen.all()))


def _fetched(op: Op) -> Seen | Mapping[Any, frozenset[str]] | None:
    """What leaves DuckDB, as a frame of another library or as rows."""
    names = names_of(op.result)
    if names is None:
        return op.seen.whole()
    fits = len(names) == len(op.seen.names)
    seen = op.seen.renamed(names) if fits else op.seen.picked(names, lambda _: op.seen.all())
    module = type(op.result).__module__.partition(".")[0]
    op.trail.come_in(module)
    if module == "polars":
        op.trail.explain(op.result, seen)
        return None
    if module == "pyarrow":
        op.trail.remember(op.result, seen)
    return seen
