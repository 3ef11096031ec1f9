"""The Parquet IO manager on real object stores, through real Dagster runs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal
from pydantic import SecretStr
from tidemill_core import lineage_hooks
from tidemill_core.defs import ObjectStoreResource, ParquetIOManager
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import ObjectStore, open_store

WEATHER = pl.DataFrame({"hour": [1, 2, 3], "temp": [1.5, None, 3.5], "origin": ["JFK", "LGA", "É/W"]})
REMOTE = ["s3mock", "versitygw", "gcs", "azure"]


def configured(options: StorageOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in options:
        if value is not None:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            monkeypatch.setenv(f"TIDEMILL_{name.upper()}", text)


@pytest.fixture(params=["file", "memory", *REMOTE])
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of an empty place in each kind of store; the settings can reach it."""
    if request.param == "file":
        return (tmp_path / "la ke%").as_uri()
    if request.param == "memory":
        return f"memory://{request.node.name}"
    if request.param in {"gcs", "azure"}:
        fixture = {"gcs": "gcs_bucket", "azure": "azure_container"}[request.param]
        url, options = request.getfixturevalue(fixture)
    else:
        from tidemill_core.testing.objects import s3_bucket

        url, options = s3_bucket(request.getfixturevalue(request.param))
    configured(options, monkeypatch)
    return f"{url}/lake"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return (tmp_path / "lake").as_uri()


def run(url: str, *assets: Any, expect: bool = True, **kwargs: Any) -> dg.ExecuteInProcessResult:
    resources = {"io_manager": ParquetIOManager(url=url)}
    done = dg.materialize(list(assets), resources=resources, raise_on_error=expect, **kwargs)
    assert done.success is expect
    return done


@dg.asset(key=["raw", "weather"])
def weather() -> pl.DataFrame:
    return WEATHER


def test_a_frame_is_stored_and_loaded_as_each_annotation_asks(lake: str) -> None:
    seen: dict[str, Any] = {}

    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def eager(weather: pl.DataFrame) -> pl.DataFrame:
        seen["eager"] = weather
        return weather

    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def lazy(weather: pl.LazyFrame) -> pl.LazyFrame:
        seen["lazy"] = weather
        return weather.filter(pl.col("hour") > 1).select("hour")

    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def table(weather: pa.Table) -> pa.Table:
        seen["table"] = weather
        return weather.select(["hour"])

    @dg.asset
    def unannotated(lazy, table) -> None:
        seen["after"] = (lazy, table)

    run(lake, weather, eager, lazy, table, unannotated)

    assert_frame_equal(WEATHER, seen["eager"])
    assert isinstance(seen["lazy"], pl.LazyFrame)
    assert_frame_equal(WEATHER, seen["lazy"].collect())
    assert isinstance(seen["table"], pa.Table)
    assert_frame_equal(WEATHER, pl.DataFrame(seen["table"]))
    assert_frame_equal(WEATHER.select("hour")[1:], seen["after"][0])
    assert_frame_equal(WEATHER.select("hour"), seen["after"][1])


def test_an_asset_is_one_object_under_its_key_and_nothing_else_is_left(lake: str) -> None:
    run(lake, weather)
    run(lake, weather)

    store = open_store(lake)
    assert [info.key for info in store.list()] == ["raw/weather.parquet"]
    assert_frame_equal(WEATHER, pl.read_parquet(store.get("raw/weather.parquet")))


def test_partitions_are_objects_and_load_together_or_by_key(lake: str) -> None:
    days = dg.StaticPartitionsDefinition(["2013-01-01", "a/b", "c ü"])
    seen: dict[str, Any] = {}

    @dg.asset(key=["raw", "days"], partitions_def=days)
    def each_day(context: dg.AssetExecutionContext) -> pl.DataFrame:
        extra = {"more": [1]} if context.partition_key == "a/b" else {}
        return pl.DataFrame({"day": [context.partition_key], **extra})

    @dg.asset(ins={"days": dg.AssetIn(key=["raw", "days"])})
    def by_key(days: dict[str, pl.DataFrame]) -> None:
        seen["by_key"] = days

    @dg.asset(ins={"days": dg.AssetIn(key=["raw", "days"])})
    def together(days: pl.LazyFrame) -> None:
        seen["together"] = days.collect()

    @dg.asset(ins={"days": dg.AssetIn(key=["raw", "days"])})
    def arrow(days: pa.Table) -> None:
        seen["arrow"] = days

    for key in days.get_partition_keys():
        run(lake, each_day, partition_key=key)
    run(lake, each_day, by_key, together, arrow, selection=[by_key, together, arrow])

    assert sorted(info.key for info in open_store(lake).list()) == [
        "raw/days/2013-01-01.parquet",
        "raw/days/a~2Fb.parquet",
        "raw/days/c ~C3~BC.parquet",
    ]
    assert {key: frame["day"].to_list() for key, frame in seen["by_key"].items()} == {
        key: [key] for key in days.get_partition_keys()
    }
    expected = pl.DataFrame({"day": ["2013-01-01", "a/b", "c ü"], "more": [None, 1, None]})
    assert_frame_equal(expected, seen["together"])
    assert_frame_equal(expected, pl.DataFrame(seen["arrow"]))


def test_a_lazy_input_reads_only_the_columns_and_rows_it_uses(lake: str) -> None:
    plans: list[str] = []

    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def few(weather: pl.LazyFrame) -> pl.DataFrame:
        query = weather.filter(pl.col("hour") == 3).select("temp")
        plans.append(query.explain())
        return query.collect()

    run(lake, weather, few)

    assert "PROJECT 2/3 COLUMNS" in plans[0]
    assert 'SELECTION: col("hour") == 3' in plans[0]


def test_columns_of_an_input_are_chosen_by_metadata(folder: str) -> None:
    seen: list[Any] = []
    chosen = dg.AssetIn(key=["raw", "weather"], metadata={"columns": ["temp", "hour"]})

    @dg.asset(ins={"weather": chosen})
    def frame(weather: pl.DataFrame) -> None:
        seen.append(weather.columns)

    @dg.asset(ins={"weather": chosen})
    def table(weather: pa.Table) -> None:
        seen.append(weather.column_names)

    run(folder, weather, frame, table)

    assert seen == [["temp", "hour"], ["temp", "hour"]]


def test_a_materialization_tells_rows_columns_bytes_and_place(folder: str, tmp_path: Path) -> None:
    done = run(folder, weather)

    (event,) = done.get_asset_materialization_events()
    facts = event.materialization.metadata
    file = tmp_path / "lake" / "raw" / "weather.parquet"
    assert facts["dagster/row_count"].value == 3
    assert facts["bytes"].value == file.stat().st_size
    assert facts["uri"].value == file.as_uri()
    assert [(column.name, column.type) for column in facts["dagster/column_schema"].value.columns] == [
        ("hour", "int64"),
        ("temp", "double"),
        ("origin", "large_string"),
    ]


def test_several_dimensions_are_folders_and_a_range_loads_what_it_covers(folder: str, tmp_path: Path) -> None:
    hours = dg.HourlyPartitionsDefinition(start_date="2013-01-01-00:00", end_date="2013-01-01-03:00")
    both = dg.MultiPartitionsDefinition({"hour": hours, "origin": dg.StaticPartitionsDefinition(["JFK", "EWR"])})
    seen: list[pl.DataFrame] = []

    @dg.asset(partitions_def=both)
    def flights(context: dg.AssetExecutionContext) -> pl.DataFrame:
        return pl.DataFrame({"key": [str(context.partition_key)]})

    @dg.asset(partitions_def=hours)
    def hourly(flights: pl.DataFrame) -> pl.DataFrame:
        seen.append(flights.sort("key"))
        return flights

    for key in both.get_partition_keys():
        run(folder, flights, partition_key=key)
    run(folder, flights, hourly, selection=[hourly], partition_key="2013-01-01-01:00")

    files = sorted(str(file.relative_to(tmp_path / "lake")) for file in (tmp_path / "lake").rglob("*.parquet"))
    assert len(files) == 7
    assert files[0] == "flights/hour=2013-01-01-00:00/origin=EWR.parquet"
    assert seen[0]["key"].to_list() == ["2013-01-01-01:00|EWR", "2013-01-01-01:00|JFK"]


@pytest.mark.parametrize("partitions", [3, 6])
def test_missing_partitions_are_an_error_unless_they_are_allowed(folder: str, partitions: int) -> None:
    keys = dg.StaticPartitionsDefinition([str(key) for key in range(partitions)])
    seen: list[int] = []

    @dg.asset(partitions_def=keys)
    def parts() -> pl.DataFrame:
        return pl.DataFrame({"x": [1]})

    @dg.asset
    def strict(parts: pl.DataFrame) -> None:
        seen.append(parts.height)

    @dg.asset(ins={"parts": dg.AssetIn(metadata={"allow_missing_partitions": True})})
    def lenient(parts: pl.DataFrame) -> None:
        seen.append(parts.height)

    run(folder, parts, partition_key="1")
    run(folder, parts, lenient, selection=[lenient])
    failed = run(folder, parts, strict, selection=[strict], expect=False)

    assert seen == [1]
    message = str(failed.failure_data_for_node("strict"))
    assert f"parts/0.parquet ({partitions - 1} of {partitions} partitions are missing)" in message


def test_one_run_of_many_partitions_returns_a_frame_for_each(folder: str) -> None:
    keys = dg.StaticPartitionsDefinition(["a", "b", "c"])
    answer: list[Any] = [{key: pl.DataFrame({"x": [key]}) for key in "abc"}]

    @dg.asset(partitions_def=keys, backfill_policy=dg.BackfillPolicy.single_run())
    def parts():
        return answer[-1]

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    done = run(folder, parts, tags=tags)

    assert {info.key for info in open_store(folder).list()} == {"parts/a.parquet", "parts/b.parquet", "parts/c.parquet"}
    assert done.get_asset_materialization_events()[0].materialization.metadata["dagster/partition_row_count"].value == 3

    answer.append(pl.DataFrame({"x": [1]}))
    told = str(run(folder, parts, tags=tags, expect=False).failure_data_for_node("parts"))
    assert "one frame was returned for 3 partitions; return a dict by partition key" in told

    answer.append({"d": pl.DataFrame({"x": [1]})})
    told = str(run(folder, parts, tags=tags, expect=False).failure_data_for_node("parts"))
    assert "these keys are not partitions of this run: d" in told


def test_a_frame_that_cannot_be_computed_leaves_the_old_object(folder: str, tmp_path: Path) -> None:
    broken = [False]

    @dg.asset
    def numbers() -> pl.LazyFrame:
        frame = pl.LazyFrame({"x": ["1", "2", "no number"]})
        return frame.with_columns(pl.col("x").cast(pl.Int64)) if broken[0] else frame

    run(folder, numbers)
    before = (tmp_path / "lake" / "numbers.parquet").read_bytes()
    broken[0] = True
    run(folder, numbers, expect=False)

    assert (tmp_path / "lake" / "numbers.parquet").read_bytes() == before
    assert [info.key for info in open_store(folder).list()] == ["numbers.parquet"]


def test_an_asset_may_be_written_from_its_own_former_self(folder: str) -> None:
    @dg.asset
    def growing(context: dg.AssetExecutionContext) -> pl.LazyFrame:
        store = open_store(folder)
        if not list(store.list("growing")):
            return pl.LazyFrame({"x": [0]})
        former = pl.scan_parquet(store.uri("growing.parquet"))
        return pl.concat([former, former.select(pl.col("x") + 1).tail(1)])

    for _ in range(3):
        run(folder, growing)

    assert pl.read_parquet(open_store(folder).get("growing.parquet"))["x"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("value", [{"not": "a frame"}, [1, 2], "text"])
def test_a_value_that_is_no_frame_is_refused_with_what_to_return(folder: str, value: Any) -> None:
    @dg.asset
    def wrong():
        return value

    told = str(run(folder, wrong, expect=False).failure_data_for_node("wrong"))

    assert "polars.DataFrame, polars.LazyFrame or pyarrow.Table" in told or "are not partitions" in told
    assert not list(open_store(folder).list())


def test_an_input_of_another_type_is_refused(folder: str) -> None:
    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def wrong(weather: int) -> None: ...

    told = str(run(folder, weather, wrong, expect=False).failure_data_for_node("wrong"))

    assert "an input is annotated as builtins.int" in told


def test_values_between_ops_are_kept_by_run(folder: str) -> None:
    seen: list[pl.DataFrame] = []

    @dg.op
    def make() -> pl.DataFrame:
        return WEATHER

    @dg.op
    def use(frame: pl.DataFrame) -> None:
        seen.append(frame)

    @dg.job(resource_defs={"io_manager": ParquetIOManager(url=folder)})
    def both() -> None:
        use(make())

    done = both.execute_in_process()

    assert_frame_equal(WEATHER, seen[0])
    assert [info.key for info in open_store(folder).list()] == [f"runs/{done.run_id}/make/result.parquet"]


def test_compression_and_row_groups_are_settings(folder: str, tmp_path: Path) -> None:
    manager = ParquetIOManager(url=folder, compression="snappy", row_group_rows=1)

    def stored(value: Any) -> pq.FileMetaData:
        @dg.asset
        def sized():
            return value

        dg.materialize([sized], resources={"io_manager": manager})
        return pq.read_metadata(tmp_path / "lake" / "sized.parquet")

    footers = [stored(WEATHER), stored(WEATHER.lazy()), stored(WEATHER.to_arrow())]

    assert [footer.row_group(0).column(0).compression for footer in footers] == ["SNAPPY"] * 3
    assert [footer.num_row_groups for footer in footers] == [3] * 3


def test_reads_and_writes_are_announced_with_columns_and_asset(folder: str, tmp_path: Path) -> None:
    heard: list[lineage_hooks.DataEvent] = []

    @dg.asset(ins={"weather": dg.AssetIn(key=["raw", "weather"])})
    def mart(weather: pl.LazyFrame) -> pl.LazyFrame:
        return weather

    with lineage_hooks.subscribed(heard.append):
        done = run(folder, weather, mart)

    raw = f"{folder}/raw/weather.parquet"
    assert [(event.kind, event.dataset, event.job, event.asset_key) for event in heard] == [
        ("wrote", raw, "raw__weather", "raw/weather"),
        ("read", raw, "mart", "raw/weather"),
        ("wrote", f"{folder}/mart.parquet", "mart", "mart"),
    ]
    assert [column.name for column in heard[0].columns] == WEATHER.columns
    assert (heard[0].rows, heard[0].run_id) == (3, done.run_id)


@contextmanager
def _aws_profile(tmp_path: Path, key_id: str, secret: str) -> Iterator[str]:
    file = tmp_path / "credentials"
    file.write_text(f"[tides]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}\n")
    kept = os.environ.get("AWS_SHARED_CREDENTIALS_FILE")
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = str(file)
    try:
        yield "tides"
    finally:
        os.environ.pop("AWS_SHARED_CREDENTIALS_FILE")
        if kept:
            os.environ["AWS_SHARED_CREDENTIALS_FILE"] = kept


def test_a_dagster_aws_s3_resource_lends_its_endpoint_and_keys(
    s3_bucket: tuple[str, StorageOptions], tmp_path: Path
) -> None:
    from dagster_aws.s3 import S3Resource

    url, options = s3_bucket
    key_id, secret = options.s3_access_key_id, options.s3_secret_access_key
    assert key_id
    assert secret
    direct = S3Resource(
        endpoint_url=options.s3_endpoint_url,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret.get_secret_value(),
        region_name="us-east-1",
    )

    ObjectStoreResource.from_s3(direct, url).open("a").put("x", b"1")
    with _aws_profile(tmp_path, key_id, secret.get_secret_value()) as profile:
        named = S3Resource(endpoint_url=options.s3_endpoint_url, profile_name=profile, region_name="us-east-1")
        ObjectStoreResource.from_s3(named, url).open("a").put("y", b"2")

    body = direct.get_client().get_object(Bucket=url.removeprefix("s3://").split("/")[0], Key="a/y")["Body"].read()
    assert body == b"2"
    store: ObjectStore = open_store(url, options)
    assert [info.key for info in store.list("a/")] == ["a/x", "a/y"]


def test_an_asset_that_returns_nothing_stores_nothing(folder: str) -> None:
    @dg.asset
    def effect():
        return None

    @dg.asset
    def result():
        return dg.MaterializeResult(metadata={"x": 1})

    run(folder, effect, result)

    assert not list(open_store(folder).list())


def test_contexts_built_by_hand_work_as_in_a_run(folder: str) -> None:
    manager = ParquetIOManager(url=folder)
    written = dg.build_output_context(asset_key=dg.AssetKey(["raw", "weather"]))
    heard: list[lineage_hooks.DataEvent] = []

    with lineage_hooks.subscribed(heard.append):
        manager.handle_output(written, WEATHER)
        found = manager.load_input(dg.build_input_context(asset_key=dg.AssetKey(["raw", "weather"])))

    assert_frame_equal(WEATHER, found)
    assert [(event.kind, event.job) for event in heard] == [("wrote", "unknown"), ("read", "unknown")]
