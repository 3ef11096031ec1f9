"""SQL as it is written: statements that change tables, scripts, tables made in FROM, and no catalog."""

from __future__ import annotations

import pytest
from tidemill_lineage import capture_sql
from tidemill_lineage.errors import CaptureError

CATALOG = {
    "src": {"id": "int", "email": "text", "tags": "text[]", "n": "int"},
    "tgt": {"id": "int", "mail": "text", "extra": "int"},
    "third": {"id": "int", "w": "int"},
}


def edges(sql: str, kind: str = "DIRECT", **more: object) -> set[tuple[str, str, str]]:
    given: dict[str, object] = {"catalog": CATALOG} | more
    return {
        (edge.source.removeprefix("table://"), edge.source_column, edge.target_column)
        for edge in capture_sql(sql, **given).edges  # type: ignore[arg-type]
        if edge.kind == kind
    }


CHANGES = {
    "UPDATE tgt SET mail = s.email, extra = s.n + tgt.extra FROM src s WHERE s.id = tgt.id": {
        ("src", "email", "mail"), ("src", "n", "extra"), ("tgt", "extra", "extra"),
    },
    "UPDATE tgt SET mail = upper(mail) WHERE extra > 3": {("tgt", "mail", "mail")},
    "UPDATE tgt SET mail = (SELECT max(email) FROM src WHERE src.id = tgt.id)": {("src", "email", "mail")},
    "WITH s AS (SELECT id, email AS e FROM src) UPDATE tgt SET mail = s.e FROM s WHERE s.id = tgt.id": {
        ("src", "email", "mail"),
    },
    "MERGE INTO tgt USING src s ON tgt.id = s.id WHEN MATCHED AND s.n > 1 THEN UPDATE SET mail = s.email "
    "WHEN NOT MATCHED THEN INSERT (id, extra) VALUES (s.id, s.n)": {
        ("src", "email", "mail"), ("src", "id", "id"), ("src", "n", "extra"),
    },
    "INSERT INTO tgt SELECT id, email FROM src": {("src", "id", "id"), ("src", "email", "mail")},
    "INSERT INTO tgt (mail) SELECT email FROM src": {("src", "email", "mail")},
    "INSERT INTO unknown SELECT id, email FROM src": {("src", "id", "id"), ("src", "email", "email")},
    "SELECT id, email INTO made FROM src": {("src", "id", "id"), ("src", "email", "email")},
    "DELETE FROM tgt USING src s WHERE s.id = tgt.id AND s.n > 3": set(),
}  # fmt: skip


@pytest.mark.parametrize("sql", CHANGES)
def test_what_a_statement_writes_comes_from_these_columns(sql: str) -> None:
    assert CHANGES[sql] == edges(sql)


def test_what_a_delete_decides_by_is_indirect() -> None:
    found = edges("DELETE FROM tgt USING src s WHERE s.id = tgt.id AND s.n > 3", "INDIRECT")

    assert {("src", "id", ""), ("src", "n", "")} <= found


def test_the_conditions_of_a_merge_are_indirect() -> None:
    sql = "MERGE INTO tgt USING src s ON tgt.id = s.id WHEN MATCHED AND s.n > 1 THEN UPDATE SET mail = s.email"

    assert {("src", "id", ""), ("src", "n", "")} <= edges(sql, "INDIRECT")


SCRIPTS = {
    "CREATE TEMP TABLE t AS SELECT id AS k, email FROM src; INSERT INTO tgt (id) SELECT k FROM t": {("src", "id", "id")},
    "CREATE VIEW v AS SELECT id, n * 2 AS d FROM src; CREATE TEMP TABLE t AS SELECT d FROM v; "
    "UPDATE tgt SET extra = t.d FROM t": {("src", "n", "extra")},
    "CREATE TEMP TABLE t AS SELECT * FROM src; DROP TABLE IF EXISTS x; INSERT INTO tgt (mail) SELECT t.email FROM t": {
        ("src", "email", "mail"),
    },
    "SELECT id AS k INTO TEMP t FROM src; INSERT INTO tgt (id) SELECT * FROM t": {("src", "id", "id")},
}  # fmt: skip


@pytest.mark.parametrize("sql", SCRIPTS)
def test_a_script_is_read_through_its_temporary_tables_and_views(sql: str) -> None:
    run = capture_sql(sql, catalog=CATALOG)

    assert SCRIPTS[sql] == edges(sql)
    assert ["table://tgt"] == [each.urn for each in run.writes]
    assert ["table://src"] == [each.urn for each in run.reads if each.urn != "table://tgt"]


def test_a_script_that_writes_two_tables_writes_both() -> None:
    run = capture_sql("INSERT INTO a SELECT id FROM src; INSERT INTO b SELECT id FROM a", catalog=CATALOG)

    assert ["table://a", "table://b"] == [each.urn for each in run.writes]
    assert {(e.source, e.target) for e in run.edges} == {("table://src", "table://a"), ("table://a", "table://b")}


DERIVED = {
    "SELECT t.x FROM src CROSS JOIN UNNEST(src.tags) AS t(x)": {("src", "tags", "x")},
    "SELECT l.m FROM third, LATERAL (SELECT max(src.n) AS m FROM src WHERE src.id = third.id) l": {("src", "n", "m")},
    "SELECT g.v FROM src, generate_series(1, src.n) AS g(v)": {("src", "n", "v")},
    "SELECT v.n FROM src JOIN (VALUES (1, 'x')) v(id, n) ON v.id = src.id": set(),
    "SELECT v.b FROM src, LATERAL (VALUES (src.id, src.n)) v(a, b)": {("src", "n", "b")},
}  # fmt: skip


@pytest.mark.parametrize("sql", DERIVED)
def test_a_table_made_in_from_takes_no_columns_from_its_neighbour(sql: str) -> None:
    assert DERIVED[sql] == edges(sql, output="t://o")


def test_a_function_that_reads_a_file_is_that_file() -> None:
    found = edges("SELECT a FROM read_parquet('s3://lake/x.parquet')", output="t://o", dialect="duckdb", catalog={})

    assert found == {("s3://lake/x.parquet", "a", "a")}


UNKNOWN = {
    "SELECT a + b AS c FROM t": {("t", "a", "c"), ("t", "b", "c")},
    "WITH c AS (SELECT name FROM t) SELECT name FROM c": {("t", "name", "name")},
    "WITH c AS (SELECT a AS x FROM t) SELECT * FROM c": {("t", "a", "x")},
    "SELECT q.x FROM (SELECT a AS x FROM t) q JOIN u ON u.k = q.x": {("t", "a", "x")},
    "SELECT a FROM t WHERE a IN (SELECT DISTINCT a FROM u)": {("t", "a", "a")},
    "SELECT a FROM t JOIN u ON t.k = u.k": {("t", "", "a"), ("u", "", "a")},
}  # fmt: skip


@pytest.mark.parametrize("sql", UNKNOWN)
def test_without_a_catalog_what_can_be_placed_is_and_the_rest_joins_wholes(sql: str) -> None:
    assert UNKNOWN[sql] == edges(sql, output="t://o", catalog={})


def test_a_column_newer_than_the_catalog_is_no_error() -> None:
    assert edges("SELECT src.fresh FROM src", output="t://o") == {("src", "fresh", "fresh")}


@pytest.mark.parametrize("sql", ["DROP TABLE x", "", "VACUUM"])
def test_what_moves_no_data_is_refused(sql: str) -> None:
    with pytest.raises(CaptureError, match="has no query to trace"):
        capture_sql(sql)


def test_an_unknown_dialect_names_the_nearest() -> None:
    with pytest.raises(CaptureError, match="unknown SQL dialect 'postgre'; did you mean 'postgres'"):
        capture_sql("SELECT 1", dialect="postgre", output="t://o")


@pytest.mark.parametrize("template", ["{{ ref('src') }}", "{% if x %} src {% endif %}", "${table}"])
def test_a_template_is_refused_with_its_place(template: str) -> None:
    with pytest.raises(CaptureError, match="at line 2, column 6"):
        capture_sql(f"SELECT id\nFROM {template}", output="t://o")


def test_what_looks_like_a_template_in_a_text_is_a_text() -> None:
    assert edges("SELECT id || '{{ x }}' AS q FROM src", output="t://o") == {("src", "id", "q")}
