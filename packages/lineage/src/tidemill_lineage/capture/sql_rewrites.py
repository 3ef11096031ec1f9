"""PIVOT, UNPIVOT and COLUMNS(...) as the SELECTs that they amount to.

Where the columns of a result hang on data (PIVOT without IN) or on a catalog that is not there, they are not made up:
they stand under one marked name, `SPREAD`, whose influences reach columns that cannot be listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SPREAD = "__spread_"
"""How the name of a projection begins that stands for columns that cannot be listed."""

Names = Callable[[Any], list[str] | None]
"""The columns of a SELECT's sources, in order; None where they are not known."""


def rewritten(query: Any, names: Names) -> Any:
    """Replace what the reader does not know by what it does.

    Args:
        query: A parsed query; it is changed.
        names: Says what ``SELECT *`` of a query gives.
    """
    from sqlglot import exp

    if isinstance(query, exp.Pivot):
        return rewritten(_statement(query), names)
    for pivot in list(query.find_all(exp.Pivot)):
        if isinstance(pivot.parent, (exp.CTE, exp.Subquery)) and pivot.arg_key == "this":
            pivot.replace(_statement(pivot))
    for source in list(query.find_all(exp.Table, exp.Subquery)):
        if source.args.get("pivots"):
            _replace_source(source)
    for select in reversed(list(query.find_all(exp.Select))):
        if any(each.find(exp.Columns) for each in select.expressions):
            select.set("expressions", list(_expanded(select, names)))
    return query


def _statement(pivot: Any) -> Any:
    """``PIVOT t ON c USING f(v)`` and ``UNPIVOT t ON a, b INTO NAME n VALUE v``."""
    if pivot.args.get("unpivot"):
        into = pivot.args.get("into")
        name = into.this.name if into is not None else "name"
        value = into.expressions[0].name if into is not None and into.expressions else "value"
        return _unpivoted(pivot.this, list(pivot.expressions), name, value)
    group = pivot.args.get("group")
    wanted = [_named_values(each) for each in pivot.expressions]
    made = list(pivot.args.get("using") or ())
    labels = _labels(wanted[0][1], made) if len(wanted) == 1 and wanted[0][1] is not None else None
    return _pivoted(pivot.this, [each for each, _ in wanted], made, group.expressions if group else None, labels)


def _replace_source(source: Any) -> None:
    """``FROM t PIVOT (...)`` and ``FROM t UNPIVOT (...)``."""
    from sqlglot import exp

    inner, pivots = source.copy(), source.args["pivots"]
    alias = next((each.args["alias"] for each in pivots if each.args.get("alias")), source.args.get("alias"))
    inner.set("pivots", None)
    inner.set("joins", None)
    made: Any = inner
    for pivot in pivots:
        select = _from_clause(made, pivot)
        made = exp.Subquery(this=select, alias=exp.TableAlias(this=exp.to_identifier(f"_pivot_{len(pivots)}")))
    made.set("alias", alias.copy() if alias is not None else exp.TableAlias(this=exp.to_identifier("_pivot")))
    made.set("joins", source.args.get("joins"))
    source.replace(made)


def _from_clause(source: Any, pivot: Any) -> Any:
    fields = pivot.args.get("fields") or []
    if pivot.args.get("unpivot"):
        first = fields[0]
        return _unpivoted(source, list(first.expressions), first.this.name, pivot.expressions[0].name)
    group = pivot.args.get("group")
    labels = [each.name for each in pivot.args.get("columns") or ()] or None
    return _pivoted(
        source, [each.this for each in fields], list(pivot.expressions), group.expressions if group else None, labels
    )


def _unpivoted(source: Any, columns: list[Any], name: str, value: str) -> Any:
    """Columns under one another: all of them flow into the value, and rows without one are dropped."""
    from sqlglot import exp

    plain = [each.unalias() if isinstance(each, exp.Alias) else each for each in columns]
    if not all(isinstance(each, exp.Column) for each in plain):
        # which columns they are is not known here
        return exp.Select(expressions=[exp.alias_(exp.Star(), f"{SPREAD}unpivot")]).from_(_as_source(source))
    together = exp.Coalesce(this=plain[0].copy(), expressions=[each.copy() for each in plain[1:]])
    kept = exp.Star(except_=[exp.to_identifier(each.name) for each in plain])
    labels = exp.alias_(exp.Literal.string(""), name)
    select = exp.Select(expressions=[kept, labels, exp.alias_(together, value)]).from_(_as_source(source))
    return select.where(exp.Not(this=exp.Is(this=together.copy(), expression=exp.Null())))


def _pivoted(source: Any, on: list[Any], made: list[Any], group: Sequence[Any] | None, labels: list[str] | None) -> Any:
    """Values spread over columns: which column one goes to is decided by `on`."""
    from sqlglot import exp

    used = [each for part in (*on, *made) for each in part.find_all(exp.Column)]
    kept: list[Any] = [each.copy() for each in group] if group is not None else [
        exp.Star(except_=[exp.to_identifier(name) for name in dict.fromkeys(each.name for each in used)])
    ]  # fmt: skip
    values = [each.unalias() for each in made] or [exp.Count(this=exp.Star())]
    chosen = [exp.If(this=_any_of(on), true=each.copy()) for each in values]
    if labels is not None and len(labels) % len(chosen) == 0:
        spread = [exp.alias_(chosen[at % len(chosen)].copy(), label, quoted=True) for at, label in enumerate(labels)]
    else:
        spread = [exp.alias_(each, f"{SPREAD}{at}") for at, each in enumerate(chosen)]
    select = exp.Select(expressions=[*kept, *spread]).from_(_as_source(source))
    by = [each.copy() for each in group] if group is not None else None
    select.set("group", exp.Group(expressions=by) if by is not None else exp.Group(all=True))
    return select


def _any_of(on: list[Any]) -> Any:
    from sqlglot import exp

    return exp.Coalesce(this=on[0].copy(), expressions=[each.copy() for each in on[1:]])


def _named_values(part: Any) -> tuple[Any, list[str] | None]:
    """What a PIVOT is on, and its values where they are listed."""
    from sqlglot import exp

    if isinstance(part, exp.In):
        listed = [each.alias_or_name for each in part.expressions]
        return part.this, listed if all(listed) else None
    return part, None


def _labels(values: list[str], made: list[Any]) -> list[str] | None:
    """DuckDB's names of the new columns; None where they hang on how it spells an expression."""
    if len(made) <= 1 and not (made and made[0].alias):
        return list(values)
    if all(each.alias for each in made):
        return [f"{value}_{each.alias}" for value in values for each in made]
    return None


def _as_source(source: Any) -> Any:
    from sqlglot import exp

    found = source.copy()
    return found.subquery("_pivoted") if isinstance(found, exp.Query) and not isinstance(found, exp.Subquery) else found


def _expanded(select: Any, names: Names) -> Iterator[Any]:
    """A projection with ``COLUMNS(...)`` for each column that it means, under that column's name."""
    from sqlglot import exp

    known = _known(select, names)
    for number, projection in enumerate(select.expressions):
        columns = projection.find(exp.Columns)
        if columns is None:
            yield projection
            continue
        meant = _meant(columns.this, known) if known is not None else None
        if meant is None:
            yield exp.alias_(exp.Star(), f"{SPREAD}columns_{number}")
            continue
        for name in meant:
            one = projection.unalias().copy()
            column = exp.column(exp.to_identifier(name))
            if isinstance(one, exp.Columns):
                one = column
            else:
                for each in list(one.find_all(exp.Columns)):
                    each.replace(column.copy())
            yield exp.alias_(one, projection.alias or name)


def _known(select: Any, names: Names) -> list[str] | None:
    from sqlglot import exp

    probe = select.copy()
    probe.set("expressions", [exp.Star()])
    for clause in ("where", "group", "having", "qualify", "order", "limit", "distinct", "windows"):
        probe.set(clause, None)
    return names(probe)


def _meant(what: Any, known: list[str]) -> list[str] | None:
    from sqlglot import exp

    if isinstance(what, exp.Star):
        left_out = {each.name for each in what.args.get("except_") or what.args.get("except") or ()}
        return [name for name in known if name not in left_out]
    if isinstance(what, exp.Literal) and what.is_string:
        try:
            pattern = re.compile(what.name)
        except re.error:  # RE2 knows what Python does not
            return None
        return [name for name in known if pattern.search(name)]
    return None
