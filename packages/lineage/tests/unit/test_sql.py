"""Column edges of SQL: a shop's queries against a catalog, each kind of clause, and what cannot be known."""

from __future__ import annotations

import pytest
from tidemill_lineage.capture.sql import capture_sql
from tidemill_lineage.errors import CaptureError
from tidemill_lineage.model import Run

CATALOG = {
    "shop.region": {"region_id": "int", "region_name": "text"},
    "shop.city": {"city_id": "int", "city_name": "text", "region_id": "int"},
    "shop.customer": {"customer_id": "int", "full_name": "text", "city_id": "int", "segment": "text", "balance": "numeric"},
    "shop.supplier": {"supplier_id": "int", "supplier_name": "text", "city_id": "int"},
    "shop.product": {"product_id": "int", "label": "text", "brand": "text", "size_cm": "int"},
    "shop.offer": {"product_id": "int", "supplier_id": "int", "stock": "int", "cost": "numeric"},
    "shop.purchase": {"purchase_id": "int", "customer_id": "int", "bought_on": "date", "status": "text", "urgency": "text"},
    "shop.line": {
        "purchase_id": "int", "line_no": "int", "product_id": "int", "supplier_id": "int", "quantity": "numeric",
        "price": "numeric", "discount": "numeric", "tax": "numeric", "shipped_on": "date", "flag": "text",
    },
}  # fmt: skip

QUERIES = {
    "pricing": """
        SELECT flag, sum(quantity) AS units, sum(price * (1 - discount)) AS net, avg(discount), count(*) AS n
        FROM shop.line WHERE shipped_on <= date '1998-09-02' GROUP BY flag ORDER BY flag""",
    "cheapest_offer": """
        SELECT s.supplier_name, c.city_name, p.product_id
        FROM shop.product p, shop.supplier s, shop.offer o, shop.city c
        WHERE p.product_id = o.product_id AND s.supplier_id = o.supplier_id AND s.city_id = c.city_id
          AND o.cost = (SELECT min(o2.cost) FROM shop.offer o2 WHERE o2.product_id = p.product_id)
        ORDER BY s.supplier_name LIMIT 100""",
    "open_orders": """
        SELECT l.purchase_id, sum(l.price * (1 - l.discount)) AS revenue, p.bought_on
        FROM shop.customer c JOIN shop.purchase p ON c.customer_id = p.customer_id
          JOIN shop.line l ON l.purchase_id = p.purchase_id
        WHERE c.segment = 'BUILDING' GROUP BY l.purchase_id, p.bought_on ORDER BY revenue DESC""",
    "urgency": """
        SELECT urgency, count(*) AS n FROM shop.purchase p
        WHERE EXISTS (SELECT 1 FROM shop.line l WHERE l.purchase_id = p.purchase_id AND l.shipped_on IS NULL)
        GROUP BY urgency""",
    "share": """
        SELECT bought_year, sum(CASE WHEN city = 'OSLO' THEN volume ELSE 0 END) / sum(volume) AS share
        FROM (SELECT extract(year FROM p.bought_on) AS bought_year, l.price * (1 - l.discount) AS volume, c.city_name AS city
              FROM shop.purchase p, shop.line l, shop.supplier s, shop.city c
              WHERE p.purchase_id = l.purchase_id AND l.supplier_id = s.supplier_id AND s.city_id = c.city_id) x
        GROUP BY bought_year""",
    "distribution": """
        SELECT k, count(*) AS customers
        FROM (SELECT c.customer_id, count(p.purchase_id) AS k FROM shop.customer c
              LEFT JOIN shop.purchase p ON c.customer_id = p.customer_id AND p.status <> 'X' GROUP BY c.customer_id) g
        GROUP BY k ORDER BY customers DESC, k DESC""",
    "top_supplier": """
        WITH revenue AS (SELECT supplier_id, sum(price) AS total FROM shop.line GROUP BY supplier_id)
        SELECT s.supplier_name, r.total FROM shop.supplier s JOIN revenue r ON s.supplier_id = r.supplier_id
        WHERE r.total = (SELECT max(total) FROM revenue)""",
    "excluded": """
        SELECT count(DISTINCT o.supplier_id) AS suppliers, p.brand FROM shop.offer o JOIN shop.product p USING (product_id)
        WHERE o.supplier_id NOT IN (SELECT supplier_id FROM shop.supplier WHERE supplier_name LIKE '%bad%')
        GROUP BY p.brand""",
    "running": """
        SELECT customer_id, bought_on, row_number() OVER (PARTITION BY customer_id ORDER BY bought_on) AS nth
        FROM shop.purchase""",
    "union": """
        SELECT city_id, full_name AS who FROM shop.customer UNION ALL SELECT city_id, supplier_name FROM shop.supplier""",
    "having": """
        SELECT purchase_id, sum(quantity) AS q FROM shop.line GROUP BY purchase_id HAVING sum(quantity) > 300""",
    "star": "SELECT * FROM shop.region r JOIN shop.city c ON r.region_id = c.region_id",
}


def run_of(sql: str, **more: object) -> Run:
    return capture_sql(sql, output="out", catalog=CATALOG, **more)  # type: ignore[arg-type]


def direct(run: Run, column: str) -> set[str]:
    return {
        f"{edge.source.removeprefix('table://shop.')}.{edge.source_column}"
        for edge in run.edges
        if edge.target_column == column and edge.kind == "DIRECT"
    }


def deciding(run: Run, subtype: str) -> set[str]:
    return {
        f"{edge.source.removeprefix('table://shop.')}.{edge.source_column}"
        for edge in run.edges
        if edge.kind == "INDIRECT" and edge.subtype == subtype
    }


@pytest.mark.parametrize("name", QUERIES)
def test_every_edge_ends_in_a_real_column_of_a_base_table(name: str) -> None:
    run = run_of(QUERIES[name])

    assert run.edges
    for edge in run.edges:
        table = edge.source.removeprefix("table://")
        assert table in CATALOG
        assert edge.source_column == "" or edge.source_column in CATALOG[table]


def test_values_and_deciding_columns_are_told_apart() -> None:
    run = run_of(QUERIES["pricing"])

    assert direct(run, "net") == {"line.price", "line.discount"}
    assert deciding(run, "FILTER") == {"line.shipped_on"}
    assert deciding(run, "GROUP_BY") == {"line.flag"}
    assert deciding(run, "SORT") == {"line.flag"}


def test_counting_rows_is_an_edge_from_the_whole_table() -> None:
    assert direct(run_of(QUERIES["pricing"]), "n") == {"line."}


def test_a_correlated_subquery_in_where_filters_with_all_it_names() -> None:
    assert {"offer.cost", "offer.product_id", "product.product_id"} <= deciding(
        run_of(QUERIES["cheapest_offer"]), "FILTER"
    )


def test_joins_name_both_sides() -> None:
    assert deciding(run_of(QUERIES["open_orders"]), "JOIN") == {
        "customer.customer_id", "purchase.customer_id", "line.purchase_id", "purchase.purchase_id",
    }  # fmt: skip


def test_exists_filters_with_columns_of_the_inner_table() -> None:
    assert {"line.shipped_on", "line.purchase_id", "purchase.purchase_id"} <= deciding(
        run_of(QUERIES["urgency"]), "FILTER"
    )


def test_a_case_flows_its_results_and_is_decided_by_its_condition() -> None:
    run = run_of(QUERIES["share"])

    assert direct(run, "share") == {"line.price", "line.discount"}
    assert "city.city_name" in deciding(run, "CONDITIONAL")


def test_a_column_of_a_derived_table_reaches_the_base_column() -> None:
    assert direct(run_of(QUERIES["distribution"]), "k") == {"purchase.purchase_id"}


def test_a_cte_used_twice_is_followed_both_times() -> None:
    run = run_of(QUERIES["top_supplier"])

    assert direct(run, "total") == {"line.price"}
    assert "line.price" in deciding(run, "FILTER")


def test_a_window_is_decided_by_partition_and_order() -> None:
    assert deciding(run_of(QUERIES["running"]), "WINDOW") == {"purchase.customer_id", "purchase.bought_on"}


def test_a_union_flows_by_position() -> None:
    assert direct(run_of(QUERIES["union"]), "who") == {"customer.full_name", "supplier.supplier_name"}


def test_a_star_is_spelled_out_and_equal_names_stay_apart() -> None:
    run = run_of(QUERIES["star"])

    assert [column.name for column in run.writes[0].columns] == [
        "region_id", "region_name", "city_id", "city_name", "region_id_4",
    ]  # fmt: skip


def test_real_names_of_the_engine_replace_ours_by_position() -> None:
    run = run_of("SELECT sum(price), count(*) FROM shop.line", columns=["sum", "count"])

    assert direct(run, "sum") == {"line.price"}


def test_an_insert_maps_its_column_list() -> None:
    run = capture_sql(
        "INSERT INTO mart.sales (day, total) SELECT bought_on, count(*) FROM shop.purchase GROUP BY 1", catalog=CATALOG
    )

    assert run.writes[0].urn == "table://mart.sales"
    assert direct(run, "day") == {"purchase.bought_on"}


def test_create_table_as_names_its_table() -> None:
    run = capture_sql(
        "CREATE TABLE mart.r AS SELECT region_name FROM shop.region",
        catalog=CATALOG,
        tables={"mart.r": "pg://db/mart.r", "shop.region": "pg://db/shop.region"},
    )

    assert [(edge.source, edge.target) for edge in run.edges] == [("pg://db/shop.region", "pg://db/mart.r")]


def test_a_recursive_cte_ends() -> None:
    run = run_of(
        """WITH RECURSIVE up AS (SELECT city_id, region_id FROM shop.city UNION ALL
           SELECT c.city_id, c.region_id FROM shop.city c JOIN up ON up.region_id = c.city_id) SELECT city_id FROM up"""
    )

    assert direct(run, "city_id") == {"city.city_id"}


def test_without_a_catalog_an_unplaced_column_joins_the_tables_as_wholes() -> None:
    run = capture_sql("SELECT amount FROM orders, customers WHERE orders.c = customers.id", output="out")

    found = {(edge.source, edge.source_column) for edge in run.edges if edge.target_column == "amount"}
    assert found == {("table://orders", ""), ("table://customers", "")}


@pytest.mark.parametrize("sql", ["SELEC 1 FROM", "DROP TABLE x", "INSERT INTO x VALUES (1)"])
def test_what_is_no_query_is_refused(sql: str) -> None:
    with pytest.raises(CaptureError):
        capture_sql(sql, output="out")
