"""PIVOT, UNPIVOT, COLUMNS, stars and COPY: right column by column, or the whole dataset and said so; never made up."""

from __future__ import annotations

from typing import Any

import duckdb
import pytest
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.errors import CaptureError
from tidemill_lineage.model import Run

CATALOG = {
    "x": {"id": "int", "k": "int", "a": "int", "b": "int", "s": "STRUCT(f INT, g INT)"},
    "t": {"id": "int", "a": "int"},
}
OUT = "o://out"


def read(sql: str, *, known: bool = True, output: str | None = OUT, dialect: str = "duckdb") -> Run:
    return capture_sql(sql, output=output, catalog=CATALOG if known else {}, dialect=dialect)


def direct(run: Run) -> set[tuple[str, str, str]]:
    return {(e.source_column, e.target_column, e.method) for e in run.edges if e.kind == "DIRECT"}


def indirect(run: Run) -> set[tuple[str, str, str]]:
    return {(e.source_column, e.target_column, e.subtype) for e in run.edges if e.kind == "INDIRECT"}


def names(run: Run) -> list[str]:
    return [column.name for column in run.writes[-1].columns]


EXACT: dict[str, tuple[str, list[str], set[tuple[str, str]]]] = {
    "unpivot": (
        "UNPIVOT (SELECT id, a, b FROM x) ON a, b INTO NAME n VALUE v", ["id", "n", "v"],
        {("id", "id"), ("a", "v"), ("b", "v")},
    ),
    "unpivot in from": (
        "SELECT * FROM (SELECT id, a, b FROM x) UNPIVOT (v FOR n IN (a, b))", ["id", "n", "v"],
        {("id", "id"), ("a", "v"), ("b", "v")},
    ),
    "pivot with its values": (
        "PIVOT x ON k IN (0, 1) USING sum(a) GROUP BY id", ["id", "0", "1"], {("id", "id"), ("a", "0"), ("a", "1")},
    ),
    "pivot with an alias": (
        "PIVOT x ON k IN (0, 1) USING sum(a) AS t GROUP BY id", ["id", "0_t", "1_t"],
        {("id", "id"), ("a", "0_t"), ("a", "1_t")},
    ),
    "pivot in from": (
        "SELECT p.* FROM (SELECT id, k, a FROM x) PIVOT (sum(a) FOR k IN (0, 1)) AS p", ["id", "0", "1"],
        {("id", "id"), ("a", "0"), ("a", "1")},
    ),
    "columns of all": ("SELECT COLUMNS(*) FROM t", ["id", "a"], {("id", "id"), ("a", "a")}),
    "columns by a pattern": (
        "SELECT id, COLUMNS('^[ab]$') + 1 FROM x", ["id", "a", "b"], {("id", "id"), ("a", "a"), ("b", "b")},
    ),
    "columns inside a function": ("SELECT min(COLUMNS(*)) FROM t", ["id", "a"], {("id", "id"), ("a", "a")}),
    "columns but some": ("SELECT COLUMNS(* EXCLUDE (id)) FROM t", ["a"], {("a", "a")}),
    "columns of a subquery": (
        "SELECT COLUMNS(*) FROM (SELECT id, a * 2 AS z FROM x)", ["id", "z"], {("id", "id"), ("a", "z")},
    ),
    "group by all": ("SELECT k, sum(a) AS t FROM x GROUP BY ALL", ["k", "t"], {("k", "k"), ("a", "t")}),
    "union by name": (
        "SELECT id, a FROM x UNION ALL BY NAME SELECT b AS a, k AS id FROM x", ["id", "a"],
        {("id", "id"), ("k", "id"), ("a", "a"), ("b", "a")},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_columns_that_can_be_known_are_known_and_named_as_the_engine_names_them(name: str) -> None:
    sql, columns, wanted = EXACT[name]

    run = read(sql)

    con = duckdb.connect()
    con.execute("CREATE TABLE x AS SELECT 1 AS id, 0 AS k, 3 AS a, 4 AS b, {'f': 1, 'g': 2} AS s")
    con.execute("CREATE TABLE t AS SELECT 1 AS id, 2 AS a")
    assert con.sql(sql).columns == columns
    assert names(run) == columns
    assert {(source, target) for source, target, _ in direct(run)} == wanted
    assert {method for *_, method in direct(run)} == {"sql"}


def test_what_a_pivot_is_on_decides_which_column_a_value_goes_to() -> None:
    assert {("k", "0", "CONDITIONAL"), ("id", "", "GROUP_BY")} <= indirect(read(EXACT["pivot with its values"][0]))


def test_rows_without_a_value_are_left_out_of_an_unpivot() -> None:
    assert {("a", "", "FILTER"), ("b", "", "FILTER")} <= indirect(read(EXACT["unpivot"][0]))


@pytest.mark.parametrize("clause", ["GROUP BY ALL", "GROUP BY k"])
def test_groups_decide_however_they_are_written(clause: str) -> None:
    assert ("k", "", "GROUP_BY") in indirect(read(f"SELECT k, sum(a) AS t FROM x {clause}"))


@pytest.mark.parametrize(
    "sql", ["SELECT id, a FROM x ORDER BY ALL", "SELECT id, a FROM x UNION ALL SELECT id, a FROM x ORDER BY a"]
)
def test_an_order_decides_however_it_is_written(sql: str) -> None:
    assert ("a", "", "SORT") in indirect(read(sql))


SPREAD: dict[str, tuple[str, bool, str]] = {
    "pivot of values in the data": ("PIVOT x ON k USING sum(a) GROUP BY id", True, "a"),
    "the same in a CTE": ("WITH p AS (PIVOT x ON k USING sum(a) GROUP BY id) SELECT * FROM p", True, "a"),
    "fields of a struct": ("SELECT s.* FROM x", True, "s"),
    "a star without a catalog": ("SELECT * FROM x", False, ""),
    "columns without a catalog": ("SELECT COLUMNS(*) FROM x", False, ""),
    "columns by a function": ("SELECT COLUMNS(lambda c: c LIKE 'a%') FROM x", True, ""),
    "pivot in from, no catalog": ("SELECT * FROM x PIVOT (sum(a) FOR k IN (0, 1))", False, ""),
    "unpivot of a star": ("UNPIVOT x ON COLUMNS(* EXCLUDE (id)) INTO NAME n VALUE v", True, ""),
}


@pytest.mark.parametrize("name", SPREAD)
def test_columns_that_cannot_be_listed_are_not_made_up_and_their_edge_says_so(name: str) -> None:
    sql, known, source = SPREAD[name]

    run = read(sql, known=known)

    assert (source, "", "assumed") in direct(run)
    assert not [each for each in names(run) if each.startswith("_") or each == "*"]


def test_columns_that_were_not_listed_stay_so_in_the_query_around_them() -> None:
    run = read("SELECT id, q.* FROM (SELECT id, s.* FROM x) q")

    assert ("id", "id", "sql") in direct(run)
    assert ("s", "", "assumed") in direct(run)


def test_an_insert_of_a_star_without_a_catalog_of_its_source_joins_each_column_to_the_whole() -> None:
    run = read("INSERT INTO t SELECT * FROM elsewhere", output=None)

    assert direct(run) == {("", "id", "assumed"), ("", "a", "assumed")}


@pytest.mark.parametrize("dialect", ["duckdb", "postgres"])
def test_copy_to_a_file_is_what_was_selected(dialect: str) -> None:
    run = read("COPY (SELECT id, a FROM x WHERE b > 1) TO 's3://lake/o.csv'", output=None, dialect=dialect)

    assert run.writes[0].urn == "s3://lake/o.csv"
    assert direct(run) == {("id", "id", "sql"), ("a", "a", "sql")}
    assert indirect(run) == {("b", "", "FILTER")}


def test_copy_of_some_columns_to_a_file() -> None:
    run = read("COPY x (id, a) TO '/data/o.csv'", output=None)

    assert (run.writes[0].urn, names(run)) == ("file:///data/o.csv", ["id", "a"])


@pytest.mark.parametrize("columns", ["", " (id, a)"])
def test_copy_from_a_file_joins_each_column_to_the_file(columns: str) -> None:
    run = read(f"COPY t{columns} FROM 's3://lake/f.csv'", output=None)

    assert {edge.source for edge in run.edges} == {"s3://lake/f.csv"}
    assert direct(run) == {("", "id", "assumed"), ("", "a", "assumed")}


def test_copy_through_the_client_is_refused_and_says_why() -> None:
    with pytest.raises(CaptureError, match="through the client or a program"):
        read("COPY t FROM STDIN", output=None)


def test_a_table_made_of_a_pivot_is_read_through() -> None:
    script = (
        'CREATE TEMP TABLE p AS PIVOT x ON k IN (0, 1) USING sum(a) GROUP BY id; INSERT INTO t SELECT id, "0" FROM p'
    )

    found: Any = direct(read(script, output=None))

    assert found == {("id", "id", "sql"), ("a", "a", "sql")}


def test_a_statement_that_writes_and_cannot_be_parsed_is_refused_not_left_out() -> None:
    with pytest.raises(CaptureError, match="cannot be read"):
        read("CREATE TABLE q AS SUMMARIZE x; INSERT INTO t SELECT id, a FROM q", output=None)
