"""Run the shop's queries on SQLite, change each base column, run again: what changed must be covered."""

from __future__ import annotations

import random
import sqlite3
from typing import Any

import pytest
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.model import Run

CATALOG = {
    "city": {"city_id": "int", "city_name": "text", "region_id": "int"},
    "customer": {"customer_id": "int", "full_name": "text", "city_id": "int", "segment": "text"},
    "supplier": {"supplier_id": "int", "supplier_name": "text", "city_id": "int"},
    "purchase": {"purchase_id": "int", "customer_id": "int", "bought_on": "text", "status": "text"},
    "line": {"purchase_id": "int", "supplier_id": "int", "quantity": "int", "price": "real", "flag": "text"},
}

QUERIES = {
    "projection": "SELECT quantity * price AS total, flag FROM line",
    "filter": "SELECT supplier_id FROM line WHERE quantity > 4 AND flag <> 'a'",
    "aggregate": "SELECT flag, sum(quantity) AS q, avg(price) AS p, count(*) AS n FROM line GROUP BY flag",
    "having": "SELECT purchase_id, sum(quantity) AS q FROM line GROUP BY purchase_id HAVING sum(price) > 12",
    "join": """SELECT c.full_name, p.bought_on FROM customer c JOIN purchase p ON c.customer_id = p.customer_id
               WHERE c.segment = 'a'""",
    "left_join": """SELECT c.customer_id, count(p.purchase_id) AS k FROM customer c
                    LEFT JOIN purchase p ON c.customer_id = p.customer_id AND p.status = 'b' GROUP BY c.customer_id""",
    "comma_join": "SELECT s.supplier_name, c.city_name FROM supplier s, city c WHERE s.city_id = c.city_id",
    "three_joins": """SELECT c.city_name, sum(l.price * l.quantity) AS revenue FROM line l
                      JOIN purchase p ON l.purchase_id = p.purchase_id JOIN customer k ON k.customer_id = p.customer_id
                      JOIN city c ON c.city_id = k.city_id GROUP BY c.city_name""",
    "using": "SELECT purchase_id, status, price FROM line JOIN purchase USING (purchase_id)",
    "exists": """SELECT status, count(*) AS n FROM purchase p
                 WHERE EXISTS (SELECT 1 FROM line l WHERE l.purchase_id = p.purchase_id AND l.quantity > 5) GROUP BY status""",
    "in": "SELECT full_name FROM customer WHERE city_id IN (SELECT city_id FROM city WHERE region_id = 1)",
    "not_in": "SELECT supplier_id FROM supplier WHERE city_id NOT IN (SELECT city_id FROM city WHERE city_name = 'a')",
    "scalar": "SELECT purchase_id, price FROM line WHERE price > (SELECT avg(price) FROM line)",
    "correlated": """SELECT p.purchase_id, (SELECT max(l.price) FROM line l WHERE l.purchase_id = p.purchase_id) AS top
                     FROM purchase p""",
    "correlated_where": """SELECT l.purchase_id FROM line l WHERE l.price = (SELECT min(m.price) FROM line m
                           WHERE m.supplier_id = l.supplier_id)""",
    "derived": "SELECT k, count(*) AS n FROM (SELECT customer_id, count(*) AS k FROM purchase GROUP BY customer_id) g GROUP BY k",
    "cte_twice": """WITH r AS (SELECT supplier_id, sum(price) AS total FROM line GROUP BY supplier_id)
                    SELECT s.supplier_name, r.total FROM supplier s JOIN r ON s.supplier_id = r.supplier_id
                    WHERE r.total = (SELECT max(total) FROM r)""",
    "case": "SELECT sum(CASE WHEN flag = 'a' THEN quantity ELSE 0 END) AS a, sum(quantity) AS q FROM line",
    "case_value": "SELECT purchase_id, CASE status WHEN 'a' THEN 1 WHEN 'b' THEN customer_id ELSE 0 END AS z FROM purchase",
    "window": """SELECT purchase_id, row_number() OVER (PARTITION BY customer_id ORDER BY bought_on, purchase_id) AS nth
                 FROM purchase""",
    "running": "SELECT purchase_id, sum(price) OVER (PARTITION BY flag ORDER BY price) AS running FROM line",
    "distinct": "SELECT DISTINCT flag, supplier_id FROM line",
    "union": "SELECT city_id FROM customer UNION SELECT city_id FROM supplier",
    "union_all": "SELECT full_name AS who FROM customer UNION ALL SELECT supplier_name FROM supplier",
    "except": "SELECT city_id FROM city EXCEPT SELECT city_id FROM customer",
    "limit": "SELECT purchase_id, price FROM line ORDER BY price DESC, purchase_id LIMIT 3",
    "order_by_alias": "SELECT flag, sum(price) AS total FROM line GROUP BY flag ORDER BY total DESC LIMIT 2",
    "filtered_aggregate": "SELECT supplier_id, count(*) FILTER (WHERE quantity > 4) AS n FROM line GROUP BY supplier_id",
    "coalesce": "SELECT c.customer_id, coalesce(p.status, c.segment) AS z FROM customer c LEFT JOIN purchase p USING (customer_id)",
    "star": "SELECT * FROM city",
    "star_of_cte": "WITH x AS (SELECT * FROM line WHERE quantity > 3) SELECT * FROM x JOIN purchase p ON p.purchase_id = x.purchase_id",
    "recursive": """WITH RECURSIVE up(city_id, region_id) AS (SELECT city_id, region_id FROM city WHERE city_id = 1 UNION
                    SELECT c.city_id, c.region_id FROM city c JOIN up ON c.region_id = up.city_id) SELECT city_id FROM up""",
    "cross_join": "SELECT c.city_name, s.supplier_name FROM city c CROSS JOIN supplier s",
    "group_expression": "SELECT quantity % 3 AS g, count(DISTINCT supplier_id) AS n FROM line GROUP BY quantity % 3",
}  # fmt: skip

Tables = dict[str, list[list[Any]]]


def rows() -> Tables:
    draw = random.Random(2013)

    def value(column: str, kind: str, row: int) -> Any:
        if column.endswith("_id") and row % 3 == 0:
            return row // 3
        return {"int": draw.randrange(8), "real": draw.randrange(40) / 4, "text": draw.choice("abc")}[kind]

    return {
        table: [[value(column, kind, row) for column, kind in columns.items()] for row in range(15)]
        for table, columns in CATALOG.items()
    }


def changed(tables: Tables, table: str, index: int, way: int) -> Tables:
    """Shift a column's values, or change some of them."""
    old = [row[index] for row in tables[table]]
    if way == 0:
        new = old[1:] + old[:1]
    elif way == 1:
        new = [each + 1 if not isinstance(each, str) else {"a": "b", "b": "c", "c": "a"}[each] for each in old]
    else:
        new = [("zz" if isinstance(each, str) else 99) if i % 5 == 0 else each for i, each in enumerate(old)]
    fresh = [[*row[:index], value, *row[index + 1 :]] for row, value in zip(tables[table], new, strict=True)]
    return {**tables, table: fresh}


def answer(sql: str, tables: Tables) -> list[list[str]]:
    """The values of each output column, without their order."""
    with sqlite3.connect(":memory:") as connection:
        for table, columns in CATALOG.items():
            connection.execute(f"CREATE TABLE {table} ({', '.join(columns)})")
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(columns))})", tables[table])
        cursor = connection.execute(sql)
        found = cursor.fetchall()
    return [sorted(repr(row[i]) for row in found) for i in range(len(cursor.description))]


def covered(run: Run, table: str, column: str, target: str) -> bool:
    return any(
        edge.source == f"table://{table}" and edge.source_column in ("", column) and edge.target_column in ("", target)
        for edge in run.edges
    )


def missing_edges(sql: str, run: Run) -> list[str]:
    tables = rows()
    before = answer(sql, tables)
    names = [column.name for column in run.writes[0].columns]
    assert len(names) == len(before)
    missing = set()
    for table, columns in CATALOG.items():
        for index, column in enumerate(columns):
            for way in range(3):
                after = answer(sql, changed(tables, table, index, way))
                for name, old, new in zip(names, before, after, strict=True):
                    if old != new and not covered(run, table, column, name):
                        missing.add(f"{table}.{column} -> {name}")
    return sorted(missing)


@pytest.mark.parametrize("name", QUERIES)
def test_every_observed_influence_is_covered_by_an_edge(name: str) -> None:
    run = capture_sql(QUERIES[name], output="out", catalog=CATALOG, dialect="sqlite")

    assert missing_edges(QUERIES[name], run) == []


@pytest.mark.parametrize("name", QUERIES)
def test_every_edge_ends_in_a_real_column(name: str) -> None:
    run = capture_sql(QUERIES[name], output="out", catalog=CATALOG, dialect="sqlite")

    for edge in run.edges:
        columns = CATALOG[edge.source.removeprefix("table://")]
        assert edge.source_column == "" or edge.source_column in columns


def test_the_oracle_notices_edges_that_are_left_out() -> None:
    run = capture_sql(QUERIES["join"], output="out", catalog=CATALOG, dialect="sqlite")
    direct_only = Run(id="r", job="j", writes=run.writes, edges=tuple(e for e in run.edges if e.kind == "DIRECT"))

    assert "customer.segment -> full_name" in missing_edges(QUERIES["join"], direct_only)
