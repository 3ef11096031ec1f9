"""The PostgreSQL IO manager on a real server, through real Dagster runs."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import dagster as dg
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from polars.testing import assert_frame_equal
from tidemill_core import lineage_hooks
from tidemill_core.defs import PostgresIOManager

PLANES = pl.DataFrame({"tailnum": ["N1", "N2", "N3"], "seats": [10, 20, None]})


@pytest.fixture
def url(postgres_url: str) -> str:
    return postgres_url


def run(url: str, *assets: Any, expect: bool = True, **kwargs: Any) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": PostgresIOManager(url=url)}
    done = dg.materialize(list(assets), resources=resources, raise_on_error=expect, **kwargs)
    assert done.success is expect
    return done


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def message(done: dg.ExecuteInProcessResult, node: str) -> str:
    return str(done.failure_data_for_node(node))


def planes_asset(frame: Any, **metadata: Any) -> dg.AssetsDefinition:
    @dg.asset(key=["raw", "planes"], metadata=metadata)
    def planes():
        return frame

    return planes


@pytest.mark.parametrize("value", [PLANES, PLANES.lazy(), PLANES.to_arrow()], ids=["frame", "lazy", "table"])
def test_every_kind_of_frame_becomes_the_table_of_its_key(url: str, value: Any) -> None:
    done = run(url, planes_asset(value, key="tailnum"))

    assert rows(url, "SELECT * FROM raw.planes ORDER BY 1") == [("N1", 10), ("N2", 20), ("N3", None)]
    facts = done.get_asset_materialization_events()[0].materialization.metadata
    assert facts["dagster/row_count"].value == 3
    assert facts["dagster/table_name"].value.endswith(".raw.planes")
    assert [(c.name, c.type, c.constraints.nullable) for c in facts["dagster/column_schema"].value.columns] == [
        ("tailnum", "text", False),
        ("seats", "bigint", True),
    ]


def test_every_type_comes_back_as_it_was_for_each_annotation(url: str) -> None:
    moment = dt.datetime(2013, 1, 2, 3, 4, 5, 678901)  # noqa: DTZ001  # a timestamp without zone
    kinds = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "text": ["a,\"b\"\n'c'\t\\N é", "", None],
            "small": pl.Series([1, -1, None], dtype=pl.Int16),
            "int": pl.Series([2**31 - 1, -(2**31), None], dtype=pl.Int32),
            "real": pl.Series([0.1, -1e-30, None], dtype=pl.Float32),
            "double": [0.1, float("nan"), None],
            "flag": [True, False, None],
            "day": [dt.date(2013, 1, 1), dt.date(1, 1, 1), None],
            "at": [moment, moment.replace(microsecond=0), None],
            "clock": [dt.time(23, 59, 59, 999999), dt.time(0), None],
            "money": pl.Series([Decimal("1.50"), Decimal("-99999999.99"), None], dtype=pl.Decimal(10, 2)),
            "raw": [b"\x00\xff", b"", None],
            "list": [[1, None], [], None],
            "words": [["a", "b,c"], [""], None],
        }
    ).with_columns(zoned=pl.col("at").dt.replace_time_zone("UTC"))
    seen: list[Any] = []

    @dg.asset
    def everything() -> pl.DataFrame:
        return kinds

    @dg.asset
    def eager(everything: pl.DataFrame) -> None:
        seen.append(everything)

    @dg.asset
    def lazy(everything: pl.LazyFrame) -> None:
        seen.append(everything.collect())

    @dg.asset
    def table(everything: pa.Table) -> None:
        seen.append(pl.DataFrame(everything))

    run(url, everything, eager, lazy, table)

    assert len(seen) == 3
    for frame in seen:
        assert_frame_equal(kinds, frame.sort("id"))


def test_unusual_columns_are_loaded_as_text_or_number(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE public.odd AS SELECT '{\"a\": [1]}'::jsonb AS doc, 1.25::numeric AS loose,"
            " '1 day'::interval AS span, ARRAY[DATE '2013-01-01'] AS days, 'NaN'::float8 AS nan"
        )
    seen: list[pl.DataFrame] = []

    @dg.asset(deps=[])
    def use(odd: pl.DataFrame) -> None:
        seen.append(odd)

    run(url, dg.AssetSpec("odd"), use, selection=[use])

    (row,) = seen[0].rows(named=True)
    assert row.pop("nan") != row.get("nan")
    assert row == {"doc": '{"a": [1]}', "loose": 1.25, "span": "1 day", "days": '["2013-01-01"]'}


def test_a_value_without_a_place_in_arrow_is_refused_not_changed(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE public.odd AS SELECT 'infinity'::timestamp AS at")

    @dg.asset
    def use(odd: pl.DataFrame) -> None: ...

    assert "a value has no place in Arrow" in message(
        run(url, dg.AssetSpec("odd"), use, selection=[use], expect=False), "use"
    )


def test_a_lazy_input_reads_only_the_columns_and_rows_it_uses(url: str) -> None:
    seen: dict[str, Any] = {}

    @dg.asset(ins={"planes": dg.AssetIn(key=["raw", "planes"])})
    def few(planes: pl.LazyFrame) -> None:
        seen["seats"] = planes.select(pl.col("seats").sum()).collect().item()
        seen["head"] = planes.select("tailnum").head(1).collect().height
        seen["where"] = planes.filter(pl.col("seats") > 10).select("tailnum").collect()["tailnum"].to_list()
        seen["rows"] = planes.select(pl.len()).collect().item()

    run(url, planes_asset(PLANES), few)

    assert seen == {"seats": 30, "head": 1, "where": ["N2"], "rows": 3}


def test_a_column_the_reader_may_not_see_is_not_read(url: str) -> None:
    run(url, planes_asset(PLANES))
    with psycopg.connect(url) as connection:
        connection.execute("DROP ROLE IF EXISTS tidemill_reader")
        connection.execute("CREATE ROLE tidemill_reader LOGIN PASSWORD 'x'")
        connection.execute("GRANT USAGE ON SCHEMA raw TO tidemill_reader")
        connection.execute("GRANT SELECT (tailnum) ON raw.planes TO tidemill_reader")
    info = psycopg.conninfo.conninfo_to_dict(url)
    reader = f"postgresql://tidemill_reader:x@{info['host']}:{info['port']}/{info['dbname']}"
    seen: list[list[str]] = []

    @dg.asset(ins={"planes": dg.AssetIn(key=["raw", "planes"])})
    def names(planes: pl.LazyFrame) -> None:
        seen.append(planes.select("tailnum").collect()["tailnum"].to_list())

    @dg.asset(ins={"planes": dg.AssetIn(key=["raw", "planes"])})
    def everything(planes: pl.DataFrame) -> None: ...

    try:
        planes = dg.AssetSpec(["raw", "planes"])
        run(reader, planes, names, selection=[names])
        refused = run(reader, planes, everything, selection=[everything], expect=False)
    finally:
        with psycopg.connect(url) as connection:
            connection.execute("DROP OWNED BY tidemill_reader")
            connection.execute("DROP ROLE tidemill_reader")

    assert seen == [["N1", "N2", "N3"]]
    assert "permission denied" in message(refused, "everything")


def test_columns_of_an_input_are_chosen_by_metadata(url: str) -> None:
    seen: list[Any] = []
    chosen = {"planes": dg.AssetIn(key=["raw", "planes"], metadata={"columns": ["seats", "tailnum"]})}

    @dg.asset(ins=chosen)
    def frame(planes: pl.DataFrame) -> None:
        seen.append(planes.columns)

    @dg.asset(ins={"planes": dg.AssetIn(key=["raw", "planes"], metadata={"columns": ["seat"]})})
    def wrong(planes: pl.DataFrame) -> None: ...

    run(url, planes_asset(PLANES), frame)
    told = message(run(url, planes_asset(PLANES), wrong, expect=False), "wrong")

    assert seen == [["seats", "tailnum"]]
    assert "no such columns: seat; the table has tailnum, seats" in told


def test_replace_swaps_rows_and_columns_and_keeps_the_old_table_when_it_fails(url: str) -> None:
    run(url, planes_asset(PLANES))
    run(url, planes_asset(pl.DataFrame({"tailnum": ["N9"], "engine": ["jet"]})))
    failed = run(url, planes_asset(pl.DataFrame({"tailnum": ["N1", "N1"]}), key="tailnum"), expect=False)

    assert rows(url, "SELECT tailnum, engine FROM raw.planes") == [("N9", "jet")]
    assert "duplicate key" in message(failed, "raw__planes") or "not be unique" in message(failed, "raw__planes")
    assert rows(url, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'planes%'") == [("planes",)]


def test_truncate_keeps_the_table_for_the_views_on_it(url: str) -> None:
    run(url, planes_asset(PLANES))
    with psycopg.connect(url) as connection:
        connection.execute("CREATE VIEW raw.seats AS SELECT sum(seats) AS seats FROM raw.planes")

    run(url, planes_asset(PLANES.head(1), mode="truncate"))
    refused = run(url, planes_asset(PLANES), expect=False)

    assert rows(url, "SELECT seats FROM raw.seats") == [(10,)]
    assert "view raw.seats depend" in message(refused, "raw__planes")
    assert "mode `truncate`" in message(refused, "raw__planes")


WIDER = pl.DataFrame({"tailnum": ["N1", "N8"], "seats": [11, 80], "engine": ["jet", None], "built": [1999, 2001]})


@pytest.mark.parametrize("mode", ["append", "truncate", "upsert"])
def test_new_columns_are_refused_by_name_or_added_with_nulls(url: str, mode: str) -> None:
    run(url, planes_asset(PLANES, mode=mode, key="tailnum"))

    refused = run(url, planes_asset(WIDER.tail(1), mode=mode, key="tailnum"), expect=False)
    before = rows(url, "SELECT count(*) FROM raw.planes")
    run(url, planes_asset(WIDER.tail(1), mode=mode, key="tailnum", columns="add"))

    assert "has no column 'engine', 'built'; it has 'tailnum', 'seats'" in message(refused, "raw__planes")
    assert "columns: add" in message(refused, "raw__planes")
    assert before == [(3,)]
    old = [] if mode == "truncate" else [("N1", 10, None, None), ("N2", 20, None, None), ("N3", None, None, None)]
    assert rows(url, "SELECT * FROM raw.planes ORDER BY 1") == [*old, ("N8", 80, None, 2001)]


def test_upsert_with_new_columns_updates_what_is_there(url: str) -> None:
    run(url, planes_asset(PLANES, mode="upsert", key="tailnum"))

    run(url, planes_asset(WIDER, mode="upsert", key="tailnum", columns="add"))

    assert rows(url, "SELECT tailnum, seats, engine FROM raw.planes ORDER BY 1") == [
        ("N1", 11, "jet"),
        ("N2", 20, None),
        ("N3", None, None),
        ("N8", 80, None),
    ]


def test_a_column_that_the_table_insists_on_is_missed_by_name(url: str) -> None:
    run(url, planes_asset(PLANES, mode="upsert", key="tailnum"))

    refused = run(url, planes_asset(PLANES.select("seats"), mode="append"), expect=False)

    assert "takes no row without 'tailnum' (NOT NULL, no default)" in message(refused, "raw__planes")


def test_a_type_that_does_not_fit_is_refused_and_no_column_is_added(url: str) -> None:
    run(url, planes_asset(PLANES, mode="append"))

    wrong = pl.DataFrame({"tailnum": ["N9"], "seats": ["many"], "engine": ["jet"]})
    refused = run(url, planes_asset(wrong, mode="append", columns="add"), expect=False)

    assert "column 'seats'" in message(refused, "raw__planes")
    assert rows(url, "SELECT column_name FROM information_schema.columns WHERE table_name = 'planes' ORDER BY 1") == [
        ("seats",),
        ("tailnum",),
    ]


def test_partitions_written_at_once_add_each_its_column_and_lose_no_row(url: str) -> None:
    keys = [f"p{number}" for number in range(6)]

    @dg.asset(
        key=["raw", "wide"],
        partitions_def=dg.StaticPartitionsDefinition(keys),
        metadata={"partition_expr": "part", "columns": "add"},
    )
    def wide(context: dg.AssetExecutionContext) -> pl.DataFrame:
        part = context.partition_key
        return pl.DataFrame({"part": [part] * 50, "shared": range(50), f"only_{part}": range(50)})

    run(url, wide, partition_key=keys[0])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda key: run(url, wide, partition_key=key), keys))

    assert rows(url, "SELECT count(*), count(DISTINCT part) FROM raw.wide") == [(300, 6)]
    for key in keys:
        assert rows(url, f"SELECT count(*), min(part), max(part) FROM raw.wide WHERE only_{key} IS NOT NULL") == [
            (50, key, key)
        ]


def test_append_adds_and_upsert_updates_by_key(url: str) -> None:
    for mode in ("append", "append"):
        run(url, planes_asset(PLANES.head(1), mode=mode))
    assert rows(url, "SELECT count(*) FROM raw.planes") == [(2,)]

    @dg.asset(key=["dw", "planes"], metadata={"mode": "upsert", "key": ["tailnum"]})
    def upserted():
        return frames.pop(0)

    frames = [PLANES, pl.DataFrame({"tailnum": ["N3", "N4"], "seats": [33, 44]})]
    run(url, upserted)
    done = run(url, upserted)

    assert rows(url, "SELECT * FROM dw.planes ORDER BY 1") == [("N1", 10), ("N2", 20), ("N3", 33), ("N4", 44)]
    facts = done.get_asset_materialization_events()[0].materialization.metadata
    assert (facts["dagster/row_count"].value, facts["rows_written"].value) == (4, 2)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"mode": "upsret"}, "mode 'upsret' is none of append, replace, truncate, upsert"),
        ({"mode": "upsert"}, "mode upsert needs metadata 'key'"),
        ({"columns": "ad"}, "columns 'ad' is none of strict, add"),
        ({"table": "a.b.c"}, "'a.b.c' is no table name"),
    ],
)
def test_wrong_metadata_says_what_to_write(url: str, metadata: dict[str, Any], told: str) -> None:
    done = run(url, planes_asset(PLANES, **metadata), expect=False)

    assert told in message(done, "raw__planes")


def test_schema_and_table_may_be_given(url: str) -> None:
    run(url, planes_asset(PLANES, schema="other"))
    run(url, planes_asset(PLANES, table="third.names"))

    @dg.asset
    def alone() -> pl.DataFrame:
        return PLANES

    run(url, alone)

    found = rows(url, "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information)'")
    assert sorted(found) == [("other.planes",), ("public.alone",), ("third.names",)]


DAYS = dg.DailyPartitionsDefinition(start_date="2013-01-01", end_date="2013-01-04", timezone="America/New_York")


@pytest.mark.parametrize("column", ["date", "timestamp", "timestamptz"])
def test_a_time_partition_replaces_its_window_and_loads_it_back(url: str, column: str) -> None:
    seen: dict[str, list[str]] = {}

    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "at"})
    def hourly(context: dg.AssetExecutionContext) -> pl.DataFrame:
        window = context.partition_time_window
        at = pl.Series([window.start, window.end - dt.timedelta(hours=1)]).dt.convert_time_zone("America/New_York")
        if column == "date":
            at = at.dt.date()
        elif column == "timestamp":
            at = at.dt.replace_time_zone(None)
        return pl.DataFrame({"at": at, "key": [context.partition_key] * 2})

    @dg.asset(partitions_def=DAYS)
    def daily(context: dg.AssetExecutionContext, hourly: pl.DataFrame) -> None:
        seen[context.partition_key] = hourly["key"].to_list()

    @dg.asset
    def all_days(hourly: dict[str, pl.LazyFrame]) -> None:
        seen.update({f"all {key}": frame.collect()["key"].to_list() for key, frame in hourly.items()})

    for key in ["2013-01-01", "2013-01-02", "2013-01-02", "2013-01-03"]:
        done = run(url, hourly, partition_key=key)
    run(url, hourly, daily, selection=[daily], partition_key="2013-01-02")
    run(url, hourly, all_days, selection=[all_days])

    assert rows(url, "SELECT key, count(*) FROM hourly GROUP BY 1 ORDER BY 1") == [
        ("2013-01-01", 2),
        ("2013-01-02", 2),
        ("2013-01-03", 2),
    ]
    assert seen == {
        "2013-01-02": ["2013-01-02"] * 2,
        **{f"all {key}": [key] * 2 for key in DAYS.get_partition_keys()},
    }
    facts = done.get_asset_materialization_events()[0].materialization.metadata
    assert facts["dagster/partition_row_count"].value == 2
    assert "dagster/row_count" not in facts


def test_a_range_of_time_partitions_is_replaced_by_one_run(url: str) -> None:
    @dg.asset(partitions_def=DAYS, metadata={"partition_expr": "day"}, backfill_policy=dg.BackfillPolicy.single_run())
    def days(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"day": [dt.date.fromisoformat(key) for key in context.partition_keys]})

    tags = {"dagster/asset_partition_range_start": "2013-01-01", "dagster/asset_partition_range_end": "2013-01-03"}
    run(url, days, tags=tags)
    run(url, days, tags=tags)

    assert rows(url, "SELECT count(*), min(day), max(day) FROM days") == [(3, dt.date(2013, 1, 1), dt.date(2013, 1, 3))]


def test_several_dimensions_name_a_column_each(url: str) -> None:
    both = dg.MultiPartitionsDefinition({"day": DAYS, "origin": dg.StaticPartitionsDefinition(["JFK", "O'Hare"])})

    @dg.asset(partitions_def=both, metadata={"partition_expr": {"day": "day", "origin": "origin"}})
    def flights(context: dg.AssetExecutionContext) -> pl.DataFrame:
        keys = context.partition_key.keys_by_dimension  # type: ignore[attr-defined]
        return pl.DataFrame({"day": [dt.date.fromisoformat(keys["day"])], "origin": [keys["origin"]], "n": [1]})

    for key in both.get_partition_keys()[:4]:
        run(url, flights, partition_key=key)
        run(url, flights, partition_key=key)

    assert rows(url, "SELECT count(*), sum(n), count(DISTINCT origin) FROM flights") == [(4, 4, 2)]


def test_rows_of_another_partition_are_refused_and_nothing_is_written(url: str) -> None:
    keys = dg.StaticPartitionsDefinition(["a", "b"])
    frames = [pl.DataFrame({"k": ["a"]}), pl.DataFrame({"k": ["a", "b", "c"]})]

    @dg.asset(partitions_def=keys, metadata={"partition_expr": "k"})
    def parts():
        return frames.pop(0)

    run(url, parts, partition_key="a")
    done = run(url, parts, partition_key="a", expect=False)

    assert "2 of 3 rows lie outside the partition a; nothing was written" in message(done, "parts")
    assert rows(url, "SELECT k FROM parts") == [("a",)]


def test_a_partitioned_asset_without_a_partition_column_says_what_is_missing(url: str) -> None:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a"]))
    def parts() -> pl.DataFrame:
        return pl.DataFrame({"k": ["a"]})

    done = run(url, parts, partition_key="a", expect=False)

    assert "parts is partitioned: its metadata 'partition_expr' must be the name of a column" in message(done, "parts")


def test_an_unreachable_server_asks_for_a_retry_without_its_password() -> None:
    context = dg.build_output_context(asset_key=dg.AssetKey(["raw", "planes"]))
    manager = PostgresIOManager(url="postgresql://me:hush@127.0.0.1:1/x")

    with pytest.raises(dg.RetryRequested) as caught:
        manager.handle_output(context, PLANES)

    assert "hush" not in f"{caught.value} {caught.value.__cause__}"


def test_reads_and_writes_are_announced_by_table(url: str) -> None:
    heard: list[lineage_hooks.DataEvent] = []

    @dg.asset(key=["mart", "seats"], ins={"planes": dg.AssetIn(key=["raw", "planes"])})
    def seats(planes: pl.LazyFrame) -> pl.LazyFrame:
        return planes.select("seats")

    with lineage_hooks.subscribed(heard.append):
        run(url, planes_asset(PLANES), seats)

    info = psycopg.conninfo.conninfo_to_dict(url)
    urn = f"postgres://{info['host']}:{info['port']}/{info['dbname']}"
    assert [(event.kind, event.dataset, event.rows, event.asset_key) for event in heard] == [
        ("wrote", f"{urn}/raw.planes", 3, "raw/planes"),
        ("read", f"{urn}/raw.planes", None, "raw/planes"),
        ("wrote", f"{urn}/mart.seats", 3, "mart/seats"),
    ]


def test_contexts_built_by_hand_work_as_in_a_run(url: str) -> None:
    manager = PostgresIOManager(url=url)
    key = dg.AssetKey(["raw", "planes"])

    manager.handle_output(dg.build_output_context(asset_key=key, definition_metadata={"key": "tailnum"}), PLANES)
    found = manager.load_input(dg.build_input_context(asset_key=key))

    assert_frame_equal(PLANES, found)


def test_an_empty_frame_makes_an_empty_table_that_loads_with_its_columns(url: str) -> None:
    seen: list[Any] = []

    @dg.asset(ins={"planes": dg.AssetIn(key=["raw", "planes"])})
    def use(planes: pl.DataFrame) -> None:
        seen.append(planes)

    for empty in (PLANES.clear(), PLANES.clear().lazy(), PLANES.clear().to_arrow()):
        run(url, planes_asset(empty), use)

    assert len(seen) == 3
    for frame in seen:
        assert_frame_equal(PLANES.clear(), frame)


def test_a_single_column_of_nulls_and_empty_texts_comes_back(url: str) -> None:
    frame = pl.DataFrame({"only": [None, "", "x", None, "\n", '"']})
    seen: list[Any] = []

    @dg.asset
    def single() -> pl.DataFrame:
        return frame

    @dg.asset
    def use(single: pl.LazyFrame) -> None:
        seen.append(single.collect())

    run(url, single, use)

    assert_frame_equal(frame, seen[0])
