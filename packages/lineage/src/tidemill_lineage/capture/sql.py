"""Read column edges from SQL: values by projection, and what WHERE, JOIN, GROUP BY and ORDER BY decide.

A query is qualified against the catalog (table -> column -> type) with sqlglot and walked scope by
scope, so that a CTE or a subquery is followed to its base tables. Without a catalog, a column that
cannot be placed makes an edge from each table in scope as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidemill_lineage.capture import flow, sql_derived, sql_rewrites, sql_statements
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.sql_statements import Written
from tidemill_lineage.delivery.folding import united
from tidemill_lineage.errors import CaptureError
from tidemill_lineage.model import Column, Dataset, DatasetUrn, Edge, Run

Catalog = Mapping[str, Mapping[str, str]]
"""``table`` or ``schema.table`` -> column -> type."""


def capture_sql(
    sql: str,
    *,
    output: DatasetUrn | None = None,
    tables: Mapping[str, DatasetUrn] | None = None,
    catalog: Catalog | None = None,
    dialect: str = "postgres",
    columns: Sequence[str] | None = None,
    job: str = "sql",
    run_id: str = "sql",
    at: float = 0.0,
) -> Run:
    """Find the edges of a query, INSERT, CREATE TABLE AS, UPDATE, MERGE or DELETE, or of a script of them.

    Temporary tables and views that a script makes are read through.

    Args:
        sql: One statement or several.
        output: URN of the result of the last; default that of the table the statement writes.
        tables: URN of each table, by the name the query uses; default ``table://name``.
        catalog: Columns of the tables; needed for ``*`` and for unqualified columns in a join.
        dialect: As sqlglot names it.
        columns: Real names of the output columns, by position, where the engine chooses them.
        job: Name of the job.
        run_id: Run it belongs to.
        at: When, in seconds since the epoch.

    Raises:
        CaptureError: The SQL cannot be parsed, or is no query.
    """
    parsed = sql_statements.statements(sql, dialect)
    found = [each for each in map(sql_statements.written, parsed) if each is not None]
    if not found:
        kinds = ", ".join(each.key.upper() for each in parsed) or "empty"
        raise CaptureError(f"a {kinds} statement has no query to trace")
    reader = _Reader({name.lower(): urn for name, urn in (tables or {}).items()}, catalog or {}, dialect)
    script = _Script(reader, tables or {}, output, job)
    for number, each in enumerate(found):
        script.run(each, columns if number == len(found) - 1 else None, is_last=number == len(found) - 1)
    return Run(
        id=run_id,
        job=job,
        started_at=at,
        ended_at=at,
        reads=tuple(reader.datasets(urn) for urn in sorted(reader.names)),
        writes=united([script.writes]),
        edges=tuple(sorted(script.edges)),
    )


def sql_flows(sql: str, *, catalog: Catalog, dialect: str) -> Iterator[tuple[str, Flow]]:
    """Read each statement of a script as a flow between names of tables, ``table://name``.

    Yields:
        The table that a statement writes, empty for a query, and the flow. Later statements are read through it.

    Raises:
        CaptureError: The SQL cannot be parsed, or a column cannot be placed.
    """
    reader = _Reader({}, catalog, dialect)
    script = _Script(reader, {}, None, "")
    for each in filter(None, map(sql_statements.written, sql_statements.statements(sql, dialect))):
        found = _by_name([script.named(each, reader.read(query), None) for query in each.queries])
        yield each.table, found
        if each.table:
            reader.passing(each.table, found)


class _Script:
    """The statements of a script, one after the other; what is written to a passing table is read through."""

    def __init__(self, reader: _Reader, tables: Mapping[str, DatasetUrn], output: DatasetUrn | None, job: str) -> None:
        self.reader, self.tables, self.output, self.job = reader, tables, output, job
        self.writes: list[Dataset] = []
        self.edges: set[Edge] = set()

    def run(self, each: Written, columns: Sequence[str] | None, *, is_last: bool) -> None:
        """Read one statement.

        Raises:
            CaptureError: It writes nowhere, or the columns do not fit.
        """
        found = [self.named(each, self.reader.read(query), columns) for query in each.queries]
        whole = _by_name(found)
        if each.is_passing and not (is_last and self.output):
            self.reader.passing(each.table, whole)
            return
        written = _urn(each.table, self.tables) if each.table else each.file or None
        target = (self.output if is_last else None) or written
        if target is None:
            raise CaptureError("the query writes to no table: say what its result is with `output`")
        names = list(whole.columns)
        self.edges |= set(flow.edges(whole, target=target, names=names, method="sql", job=self.job))
        self.writes.append(Dataset(urn=target, columns=tuple(Column(name=name) for name in names)))

    def named(self, each: Written, found: Flow, columns: Sequence[str] | None) -> Flow:
        if each.names == ("",):
            return replace(found, columns={})
        names = list(columns or each.names or found.columns)
        known = list(self.reader.columns_of(each.table)) if each.by_position else []
        if not columns and not each.names and len(known) >= len(names):
            # an INSERT without a list fills the table's columns in order
            names = known[: len(names)]
        if found.spread:
            # how many columns there are is not known: those that are listed may each be any
            missing = flow.act(found.spread, "TRANSFORMATION?")
            wanted = list(columns or each.names or known)
            if not wanted:
                return found
            return replace(found, columns={name: found.columns.get(name, missing) for name in wanted}, spread={})
        if len(names) != len(found.columns):
            raise CaptureError(f"the query has {len(found.columns)} columns, {len(names)} names were given")
        return replace(found, columns=dict(zip(names, found.columns.values(), strict=True)))


def _by_name(found: Sequence[Flow]) -> Flow:
    """Unite what several queries write to one table, column by column."""
    names = dict.fromkeys(name for each in found for name in each.columns)
    return Flow(
        {name: flow.combine(each.columns.get(name, {}) for each in found) for name in names},
        flow.combine(each.rows for each in found),
        frozenset().union(*(each.inputs for each in found)),
        spread=flow.combine(each.spread for each in found),
    )


class _Reader:
    """Reads one qualified query; remembers which base tables it met."""

    def __init__(self, tables: Mapping[str, DatasetUrn], catalog: Catalog, dialect: str) -> None:
        self.tables, self.dialect = tables, dialect
        self.catalog = {name.lower(): dict(columns) for name, columns in catalog.items()}
        self.names: dict[DatasetUrn, str] = {}
        self.partial: dict[int, Flow] = {}
        self.made: dict[str, Flow] = {}

    def passing(self, name: str, found: Flow) -> None:
        """Remember a temporary table or a view, so that later statements are read through it."""
        self.made[name] = found
        self.catalog[name] = dict.fromkeys(found.columns, "text")

    def columns_of(self, name: str) -> dict[str, str]:
        """The columns that the catalog lists of a table."""
        return self._columns(name)

    def read(self, query: Any) -> Flow:
        from sqlglot.errors import SqlglotError
        from sqlglot.optimizer.scope import build_scope

        query = sql_rewrites.rewritten(query.copy(), self._starred)
        try:
            qualified = self._qualified(query.copy())
        except SqlglotError:
            # a subquery over a table that the catalog does not list: it may be correlated, or not
            placed = query.copy()
            _place_in_single_tables(placed)
            try:
                qualified = self._qualified(placed)
            except SqlglotError as error:
                raise CaptureError(f"the query cannot be resolved: {str(error).splitlines()[0]}") from error
        scope = build_scope(qualified)
        if scope is None:
            raise CaptureError("the query has no SELECT")
        return self.scope(scope, {})

    def _starred(self, query: Any) -> list[str] | None:
        """The columns of a query of ``*``; None where its sources are not known."""
        from sqlglot.errors import SqlglotError

        try:
            found = [each.alias_or_name for each in self._qualified(query).selects]
        except SqlglotError:
            return None
        return None if any(name in ("", "*") or name.startswith(sql_rewrites.SPREAD) for name in found) else found

    def _qualified(self, query: Any) -> Any:
        from sqlglot.optimizer.qualify import qualify

        return qualify(
            query, schema=self._schema(), dialect=self.dialect, validate_qualify_columns=False,
            identify=False, quote_identifiers=False, expand_alias_refs=True,
            # a catalog may be older than the table, or know nothing: what it does not know we place ourselves
            allow_partial_qualification=True,
        )  # fmt: skip

    def datasets(self, urn: DatasetUrn) -> Dataset:
        columns = self._columns(self.names.get(urn, ""))
        return Dataset(urn=urn, columns=tuple(Column(name=name, type=kind) for name, kind in columns.items()))

    def _schema(self) -> dict[str, Any]:
        """Nest ``schema.table`` as sqlglot wants it; all names must be equally deep."""
        depth = max((name.count(".") for name in self.catalog), default=0)
        nested: dict[str, Any] = {}
        for name, columns in self.catalog.items():
            parts = name.split(".")
            parts = ["public"] * (depth + 1 - len(parts)) + parts
            here = nested
            for part in parts:
                here = here.setdefault(part, {})
            here.update(columns)
        return nested

    def _columns(self, name: str) -> dict[str, str]:
        return self.catalog.get(name) or self.catalog.get(name.rpartition(".")[2]) or {}

    def scope(self, scope: Any, outer: Mapping[str, Flow]) -> Flow:
        """Find the flow of a scope; `outer` are the sources a correlated subquery may also name."""
        from sqlglot import exp

        if id(scope) in self.partial:  # a recursive CTE names itself
            return self.partial[id(scope)]
        self.partial[id(scope)] = Flow({})
        try:
            if isinstance(scope.expression, exp.SetOperation):
                return self._set_operation(scope, outer)
            if isinstance(scope.expression, exp.Select):
                return self._select(scope, outer)
            return self._derived(scope, outer)
        finally:
            del self.partial[id(scope)]

    def _select(self, scope: Any, outer: Mapping[str, Flow]) -> Flow:
        sources = {**outer}
        for name, source in scope.sources.items():
            if name in scope.selected_sources or name not in outer:
                sources[name] = self._source(source, sources)
        own = [sources[name] for name in scope.selected_sources if name in sources]
        inputs: frozenset[DatasetUrn] = frozenset().union(*(each.inputs for each in own))
        nested = {id(each.expression): each for each in scope.subquery_scopes}
        read = _Expressions(self, sources, nested, inputs)
        read.own = {name: sources[name] for name in scope.selected_sources if name in sources}
        columns: dict[str, Influences] = {}
        spread: list[Influences] = []
        for index, projection in enumerate(scope.expression.selects):
            name = projection.alias_or_name or f"_col_{index}"
            if name == "*" or name.startswith(sql_rewrites.SPREAD):
                spread.append(self._spread(projection.unalias(), read, own))
                continue
            columns[name if name not in columns else f"{name}_{index}"] = read.value(projection.unalias())
        read.aliases = columns
        rows = [each.rows for each in own] + list(read.deciding(scope.expression))
        return Flow(columns, flow.combine(rows), inputs, spread=flow.combine(spread))

    def _spread(self, node: Any, read: _Expressions, own: Sequence[Flow]) -> Influences:
        """What reaches the columns that a star stands for, where they cannot be listed."""
        from sqlglot import exp

        if isinstance(node, exp.Column) and node.name.startswith(sql_rewrites.SPREAD):
            return flow.combine(each.spread for each in own)
        if isinstance(node, exp.Star):
            return flow.combine(map(_anything_of, own))
        if isinstance(node, exp.Column) and node.name == "*":
            source = read.sources.get(node.table)
            if source is not None:
                return _anything_of(source)
            # not a table: the fields of a struct
            return flow.act(read.value(exp.column(node.table)), _VALUE)
        return read.value(node)

    def _derived(self, scope: Any, outer: Mapping[str, Flow]) -> Flow:
        """A table made in FROM; it may name the tables before it."""
        from sqlglot import exp

        node = scope.expression
        nested = {id(each.expression): each for each in scope.subquery_scopes}
        read = _Expressions(self, outer, nested, frozenset())
        if isinstance(node, exp.Values):
            return sql_derived.of_values(node, read.value)
        if isinstance(node, exp.Lateral) and isinstance(node.this, exp.Subquery):
            return self._lateral(node, scope, outer)
        arguments = node.expressions if isinstance(node, exp.Unnest) else node.this.iter_expressions()
        return sql_derived.of_function(node, arguments, read.value)

    def _lateral(self, node: Any, scope: Any, outer: Mapping[str, Flow]) -> Flow:
        """A subquery in FROM that may name the tables before it."""
        inner = next((each for each in scope.traverse() if each.expression is node.this.unnest()), None)
        if inner is None:
            inputs = frozenset[DatasetUrn]().union(*(each.inputs for each in outer.values()))
            return Flow({}, {}, inputs)
        found = self.scope(inner, outer)
        names = sql_derived.names_of(node) or list(found.columns)
        return replace(found, columns=dict(zip(names, found.columns.values(), strict=False)))

    def _source(self, source: Any, outer: Mapping[str, Flow]) -> Flow:
        from sqlglot import exp

        if isinstance(source, exp.Table) and isinstance(source.this, exp.Func):
            file = sql_derived.file_of(source.this)
            if file is not None:
                self.names[file] = file
                return replace(flow.base(file, ()), is_table=True)
            read = _Expressions(self, outer, {}, frozenset())
            return sql_derived.of_function(source, source.this.iter_expressions(), read.value)
        if isinstance(source, exp.Table):
            name = sql_statements.name_of(source)
            if name in self.made:
                return self.made[name]
            urn = _urn(name, self.tables)
            self.names[urn] = name
            return replace(flow.base(urn, self._columns(name)), is_table=True)
        return self.scope(source, outer)

    def _set_operation(self, scope: Any, outer: Mapping[str, Flow]) -> Flow:
        """Unite two queries by position; all but UNION ALL compare whole rows."""
        from sqlglot import exp

        left, right = scope.set_operation_scopes
        found = self.scope(left, outer)
        for _ in range(_RECURSION_ROUNDS if isinstance(scope.expression.parent, exp.CTE) else 1):
            self.partial[id(scope)] = found
            found = _united(found, self.scope(right, outer), scope.expression)
        order = scope.expression.args.get("order")
        if order is None:
            return found
        # names of the result, or ALL
        by = [found.columns[each.name] for each in order.find_all(exp.Column) if each.name in found.columns]
        return replace(
            found, rows=flow.combine([found.rows, flow.act(flow.combine(by or found.columns.values()), "SORT")])
        )


def _place_in_single_tables(query: Any) -> None:
    """Give unqualified columns the one table of their SELECT: a name is looked up there first."""
    from sqlglot import exp

    for select in query.find_all(exp.Select):
        source = select.args.get("from_") or select.args.get("from")
        if source is None or select.args.get("joins") or select.args.get("laterals"):
            continue
        if not isinstance(source.this, exp.Table):
            continue
        aliases = {each.alias for each in select.selects if each.alias}
        for column in select.find_all(exp.Column):
            if not column.table and column.parent_select is select and column.name not in aliases:
                column.set("table", exp.to_identifier(source.this.alias_or_name))


class _Expressions:
    """Reads the expressions of one scope."""

    def __init__(
        self, reader: _Reader, sources: Mapping[str, Flow], nested: Mapping[int, Any], inputs: frozenset[DatasetUrn]
    ) -> None:
        self.reader, self.sources, self.nested, self.inputs = reader, sources, nested, inputs
        self.aliases: Mapping[str, Influences] = {}
        self.own: Mapping[str, Flow] = {}

    def value(self, node: Any) -> Influences:
        """Say what reaches the value of an expression."""
        from sqlglot import exp

        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.TableColumn) and node.name in self.sources:
            return flow.act(flow.combine(self.sources[node.name].columns.values()), "TRANSFORMATION")
        if id(node) in self.nested or isinstance(node, exp.Query):
            return self._subquery(node)
        if isinstance(node, (exp.Paren, exp.Alias)):
            return self.value(node.this)
        if isinstance(node, exp.Count) and isinstance(node.this, exp.Star):
            return {(urn, ""): frozenset({"AGGREGATION"}) for urn in self.inputs}
        return flow.combine(flow.act(self.value(child), role) for child, role in _roles(node))

    def deciding(self, select: Any) -> Iterator[Influences]:
        """Yield what each clause of a SELECT does to its rows."""
        from sqlglot import exp

        for name, subtype in _CLAUSES:
            clause = select.args.get(name)
            if clause is not None:
                parts = [*clause.iter_expressions(), *_meant_by_all(select, clause)]
                yield flow.act(flow.combine(map(self.value, parts)), subtype)
        for join in select.args.get("joins") or ():
            on = join.args.get("on")
            if on is not None:
                yield flow.act(self.value(on), "JOIN")
            elif not join.args.get("using"):
                yield {(urn, ""): frozenset({"JOIN"}) for urn in self.inputs}
        distinct = select.args.get("distinct")
        if distinct is not None:
            wanted = distinct.args.get("on")
            parts = wanted.expressions if isinstance(wanted, exp.Tuple) else select.selects
            yield flow.act(flow.combine(map(self.value, parts)), "GROUP_BY")

    def _column(self, node: Any) -> Influences:
        if not node.table and node.name in self.aliases:
            return self.aliases[node.name]
        source = self.sources.get(node.table) if node.table else self._placed(node.name)
        if source is not None:
            found = source.columns.get(node.name)
            if found is not None:
                return found
            if len(source.inputs) == 1 and source.is_table:  # newer than the catalog, or the catalog does not list it
                return {(next(iter(source.inputs)), node.name): frozenset({"IDENTITY"})}
            if source.columns and not source.inputs:  # a table made in FROM, named by its alias
                return flow.act(flow.combine(source.columns.values()), "TRANSFORMATION")
            return _anything_of(source)
        return {(urn, ""): frozenset({"TRANSFORMATION"}) for urn in self.inputs}

    def _placed(self, name: str) -> Flow | None:
        """Find the one source that an unqualified column can be of; None where it may be of several."""
        outer = {each: flow for each, flow in self.sources.items() if each not in self.own}
        for sources in (self.own, outer):
            having = [each for each in sources.values() if name in each.columns]
            if len(having) == 1:
                return having[0]
            # only a table whose columns are not listed may have it unseen
            unlisted = [each for each in sources.values() if each.is_table and not each.columns]
            if not having and len(unlisted) == 1:
                return unlisted[0]
            if having or unlisted:
                return None
        only = [each for each in self.own.values() if each.is_table]
        return only[0] if len(only) == 1 else None

    def _subquery(self, node: Any) -> Influences:
        """A subquery as a value: its columns flow, and what decides its rows decides the value."""
        inner = node.unnest() if hasattr(node, "unnest") else node
        scope = self.nested.get(id(inner)) or self.nested.get(id(node))
        if scope is None:
            return {(urn, ""): frozenset({"TRANSFORMATION"}) for urn in self.inputs}
        found = self.reader.scope(scope, self.sources)
        return flow.combine([*found.columns.values(), found.rows])


_RECURSION_ROUNDS = 3
"""Passes over a recursive CTE; each carries influences one step further, and columns settle at once."""

_VALUE = "TRANSFORMATION"
_CLAUSES = (("where", "FILTER"), ("group", "GROUP_BY"), ("having", "FILTER"), ("qualify", "FILTER"), ("order", "SORT"))


def _meant_by_all(select: Any, clause: Any) -> list[Any]:
    """What ``GROUP BY ALL`` and ``ORDER BY ALL`` stand for."""
    from sqlglot import exp

    if isinstance(clause, exp.Group) and clause.args.get("all"):
        return [each.unalias() for each in select.selects if not each.find(exp.AggFunc)]
    if isinstance(clause, exp.Order) and any(
        isinstance(each.this, exp.Var) and each.this.name.upper() == "ALL" for each in clause.expressions
    ):
        return [each.unalias() for each in select.selects]
    return []


def _anything_of(source: Flow) -> Influences:
    """What may reach a column of a source that is not listed."""
    if source.spread and not source.is_table:
        return flow.act(source.spread, "TRANSFORMATION?")
    return {(urn, ""): frozenset({"TRANSFORMATION?"}) for urn in source.inputs}


def _united(left: Flow, right: Flow, operation: Any) -> Flow:
    from sqlglot import exp

    if operation.args.get("by_name"):
        names = dict.fromkeys([*left.columns, *right.columns])
        columns = {name: flow.combine([left.columns.get(name, {}), right.columns.get(name, {})]) for name in names}
    else:
        pairs = zip(left.columns.items(), right.columns.values(), strict=False)
        columns = {name: flow.combine([mine, theirs]) for (name, mine), theirs in pairs}
    rows = [left.rows, right.rows]
    if operation.args.get("distinct") or not isinstance(operation, exp.Union):
        rows.append(flow.act(flow.combine([*left.columns.values(), *right.columns.values()]), "GROUP_BY"))
    spread = flow.combine([left.spread, right.spread])
    return Flow(columns, flow.combine(rows), left.inputs | right.inputs, spread=spread)


def _roles(node: Any) -> Iterator[tuple[Any, str]]:
    """Yield the parts of an expression, and what each does to its value."""
    from sqlglot import exp

    if isinstance(node, exp.Window):
        yield from _window_roles(node)
    elif isinstance(node, (exp.Case, exp.If)):
        yield from _case_roles(node)
    elif isinstance(node, exp.Filter):
        yield node.this, "AGGREGATION"
        yield node.expression, "FILTER"
    elif isinstance(node, (exp.In, exp.Exists)):
        yield from ((each, "FILTER" if isinstance(each, exp.Query) else _VALUE) for each in node.iter_expressions())
    else:
        role = "AGGREGATION" if isinstance(node, exp.AggFunc) else _VALUE
        yield from ((each, role) for each in node.iter_expressions())


def _window_roles(node: Any) -> Iterator[tuple[Any, str]]:
    yield node.this, "AGGREGATION"
    for part in (*(node.args.get("partition_by") or ()), node.args.get("order")):
        if part is not None:
            yield part, "WINDOW"


def _case_roles(node: Any) -> Iterator[tuple[Any, str]]:
    """A CASE or IF: conditions decide, results flow; `CASE x WHEN` decides by x too."""
    from sqlglot import exp

    if isinstance(node, exp.Case) and node.this is not None:
        yield node.this, "CONDITIONAL"
    for each in node.args.get("ifs", ()) if isinstance(node, exp.Case) else [node]:
        yield each.this, "CONDITIONAL"
        if each.args.get("true") is not None:
            yield each.args["true"], _VALUE
    for name in ("default", "false"):
        if node.args.get(name) is not None:
            yield node.args[name], _VALUE


def _urn(name: str, tables: Mapping[str, DatasetUrn]) -> DatasetUrn:
    known = {each.lower(): urn for each, urn in tables.items()}
    return known.get(name) or known.get(name.rpartition(".")[2]) or f"table://{name}"
