"""Both IO managers against a dictionary: random partitions, ranges and reads; and two writers of one partition."""

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.defs import ParquetIOManager, PostgresIOManager
from tidemill_core.defs.io_managers import postgres as postgres_manager

BERLIN = ZoneInfo("Europe/Berlin")
NUMBERS = itertools.count()
HERE = dg.DagsterInstance.ephemeral()
with dg.build_resources({}, instance=HERE) as NO_RESOURCES:
    """Contexts made by hand would each make an instance and resources of their own, which is slow."""


@dataclass(frozen=True)
class Layout:
    """A way to cut an asset into partitions.

    Attributes:
        definition: Dagster's.
        expression: ``partition_expr`` for PostgreSQL.
        row: Makes the partition's columns of one row from its key.
        is_ordered: Whether a range of keys may be asked for.
    """

    name: str
    definition: dg.PartitionsDefinition
    expression: Any
    row: Callable[[str], dict[str, Any]]
    is_ordered: bool = True

    def __repr__(self) -> str:
        return self.name


HOURLY_FORMAT = "%Y-%m-%d-%H:%M%z"


def hour(key: str) -> dict[str, Any]:
    return {"at": dt.datetime.strptime(key, HOURLY_FORMAT).astimezone(dt.UTC) + dt.timedelta(minutes=30)}


def local_day(key: str) -> dict[str, Any]:
    return {"at": dt.datetime.fromisoformat(key).replace(tzinfo=BERLIN).astimezone(dt.UTC) + dt.timedelta(hours=22)}


ODD_KEYS = ["a", "A", "a b", "O'Hare", "ä", "x/y", "%s", "a.b", "..", "null", '"', "1"]
LAYOUTS = [
    Layout(
        "days",
        dg.DailyPartitionsDefinition(start_date="2024-10-25", end_date="2024-10-30", timezone="Europe/Berlin"),
        "day",
        lambda key: {"day": dt.date.fromisoformat(key)},
    ),
    Layout(
        "days by instant, over the end of summer time",
        dg.DailyPartitionsDefinition(start_date="2024-10-25", end_date="2024-10-30", timezone="Europe/Berlin"),
        "at",
        local_day,
    ),
    Layout(
        "hours by instant, over the end of summer time",
        dg.HourlyPartitionsDefinition(
            start_date=dt.datetime(2024, 10, 27, 0, tzinfo=BERLIN),
            end_date=dt.datetime(2024, 10, 27, 6, tzinfo=BERLIN),
            timezone="Europe/Berlin",
            fmt=HOURLY_FORMAT,
        ),
        "at",
        hour,
        is_ordered=False,  # Dagster 1.13 resolves ranges over the hour that comes twice to other keys
    ),
    Layout("odd names", dg.StaticPartitionsDefinition(ODD_KEYS), "k", lambda key: {"k": key}),
    Layout(
        "two dimensions",
        dg.MultiPartitionsDefinition(
            {
                "day": dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-03"),
                "place": dg.StaticPartitionsDefinition(["JFK", "O'Hare", "a b"]),
            }
        ),
        {"day": "day", "place": "place"},
        lambda key: {"day": dt.date.fromisoformat(key.split("|")[0]), "place": key.split("|")[1]},
        is_ordered=False,
    ),
]


@dataclass
class Asset:
    """One partitioned asset under an IO manager, and what it must hold."""

    manager: Any
    layout: Layout
    key: dg.AssetKey = field(default_factory=lambda: dg.AssetKey(["model", f"t{next(NUMBERS)}"]))
    held: dict[str, list[int]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return list(self.layout.definition.get_partition_keys())

    def span(self, first: int, last: int) -> list[str]:
        """The keys of a range; both ends are taken modulo the number of partitions."""
        low, high = sorted((first % len(self.keys), last % len(self.keys)))
        return self.keys[low : high + 1] if self.layout.is_ordered else [self.keys[low]]

    def _where(self, keys: list[str]) -> dict[str, Any]:
        if len(keys) == 1:
            return {"partition_key": keys[0]}
        return {"asset_partition_key_range": dg.PartitionKeyRange(keys[0], keys[-1])}

    def frame(self, values: dict[str, list[int]]) -> pl.DataFrame:
        rows = [{**self.layout.row(key), "n": number} for key, numbers in values.items() for number in numbers]
        like = pl.DataFrame([{**self.layout.row(self.keys[0]), "n": 0}])
        return pl.DataFrame(rows, schema=like.schema) if rows else like.clear()

    def write(self, keys: list[str], numbers: list[list[int]], kind: str) -> None:
        values = {key: numbers[index % len(numbers)] for index, key in enumerate(keys)}
        context = dg.build_output_context(
            asset_key=self.key,
            definition_metadata={"partition_expr": self.layout.expression},
            asset_partitions_def=self.layout.definition,
            instance=HERE,
            resources=NO_RESOURCES,
            **self._where(keys),
        )
        self.manager.handle_output(context, self._value(values, kind))
        self.held.update(values)

    def _value(self, values: dict[str, list[int]], kind: str) -> Any:
        shaped = {"frame": lambda each: each, "lazy": pl.DataFrame.lazy, "table": pl.DataFrame.to_arrow}[kind]
        if isinstance(self.manager, ParquetIOManager) and len(values) > 1:
            return {key: shaped(self.frame({key: numbers})) for key, numbers in values.items()}
        return shaped(self.frame(values))

    def read(self, keys: list[str], kind: str) -> Any:
        annotation = {"frame": pl.DataFrame, "lazy": pl.LazyFrame, "table": pa.Table, "dict": dict[str, pl.DataFrame]}
        upstream = dg.build_output_context(
            asset_key=self.key,
            definition_metadata={"partition_expr": self.layout.expression},
            asset_partitions_def=self.layout.definition,
            instance=HERE,
            resources=NO_RESOURCES,
            **self._where(keys),
        )
        context = dg.build_input_context(
            asset_key=self.key,
            upstream_output=upstream,
            asset_partitions_def=self.layout.definition,
            dagster_type=annotated(annotation[kind]),
            instance=HERE,
            **self._where(keys),
        )
        return self.manager.load_input(context)


def annotated(annotation: Any) -> dg.DagsterType:
    """The Dagster type of an input that is annotated so."""
    return dg.DagsterType(name=f"T{next(NUMBERS)}", type_check_fn=lambda _context, _value: True, typing_type=annotation)


SPAN = st.tuples(st.integers(0, 12), st.integers(0, 12))
NUMBERS_OF = st.lists(st.lists(st.integers(-99, 99), max_size=4), min_size=1, max_size=3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), SPAN, NUMBERS_OF, st.sampled_from(["frame", "lazy", "table"])),
        st.tuples(st.just("one"), SPAN, NUMBERS_OF, st.sampled_from(["frame", "lazy", "table"])),
        st.tuples(st.just("read"), SPAN, st.none(), st.sampled_from(["frame", "lazy", "table", "dict"])),
    ),
    min_size=2,
    max_size=6,
)
FEW = settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def play(asset: Asset, story: list) -> None:
    """Do all steps; after each read, compare with the dictionary."""
    asset.write([asset.keys[0]], [[1, 2]], "frame")
    for what, (first, last), numbers, kind in [*story, ("read", (0, 99), None, "frame")]:
        keys = asset.span(first, last)
        if what == "one":
            asset.write(keys[:1], numbers, kind)
        elif what == "write":
            asset.write(keys, numbers, kind)
        else:
            read_and_compare(asset, keys, kind)


def read_and_compare(asset: Asset, keys: list[str], kind: str) -> None:
    expected = {key: sorted(asset.held.get(key, [])) for key in keys}
    if isinstance(asset.manager, ParquetIOManager) and any(key not in asset.held for key in keys):
        with pytest.raises(dg.Failure, match=r"not there|missing|no such|not found|no object"):
            asset.read(keys, kind)
        return
    found = asset.read(keys, kind)
    if kind == "dict":
        assert expected == {key: sorted(found[key]["n"].to_list()) for key in keys}
        return
    frame = {"frame": lambda each: each, "lazy": lambda each: each.collect(), "table": pl.DataFrame}[kind](found)
    assert sorted(itertools.chain(*expected.values())) == sorted(frame["n"].to_list())


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
@FEW
@given(story=STEPS)
def test_parquet_holds_what_a_dictionary_would(tmp_path_factory, layout: Layout, story: list) -> None:
    play(Asset(ParquetIOManager(url=str(tmp_path_factory.mktemp("lake"))), layout), story)


@pytest.fixture(scope="module")
def postgres(postgres_admin_url: str) -> Iterator[str]:
    from tidemill_core.testing.postgres import fresh_database

    with fresh_database(postgres_admin_url) as url:
        yield url


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
@FEW
@given(story=STEPS)
def test_postgres_holds_what_a_dictionary_would(postgres: str, layout: Layout, story: list) -> None:
    play(Asset(PostgresIOManager(url=postgres), layout), story)


# --- two writers of one partition


class Both:
    """Two runs that write one partition, each of which has begun before either ends."""

    def __init__(self, url: str, asset: Asset) -> None:
        self.url, self.asset = url, asset
        self.counted = threading.Barrier(2)
        self.errors: list[BaseException] = []

    def run(self) -> tuple[int, int]:
        """Write at once; gives the number of rows and of writers that the table shows."""
        threads = [threading.Thread(target=self._write, args=(who,)) for who in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        table = ".".join(self.asset.key.path)
        with psycopg.connect(self.url) as conn:
            found = conn.execute(f"SELECT count(*), count(DISTINCT n) FROM {table}").fetchone()
        assert found is not None
        return found

    def _write(self, who: int) -> None:
        try:
            key = self.asset.keys[0]
            Asset(self.asset.manager, self.asset.layout, self.asset.key).write([key], [[who] * 5], "frame")
        except BaseException as error:
            self.errors.append(error)


@pytest.mark.parametrize("before", [[], [[7, 7]]], ids=["empty", "filled"])
def test_two_writers_of_one_partition_leave_the_rows_of_one(
    postgres: str, monkeypatch: pytest.MonkeyPatch, before: list
) -> None:
    both = Both(postgres, Asset(PostgresIOManager(url=postgres), LAYOUTS[3]))
    both.asset.write([both.asset.keys[1]], [[]], "frame")
    if before:
        both.asset.write([both.asset.keys[0]], before, "frame")
    slow_down(monkeypatch, both, 0.3)

    found = both.run()

    assert ([], (5, 1)) == (both.errors, found)


def test_without_the_lock_two_writers_double_an_empty_partition(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    both = Both(postgres, Asset(PostgresIOManager(url=postgres), LAYOUTS[3]))
    both.asset.write([both.asset.keys[1]], [[]], "frame")
    monkeypatch.setattr(postgres_manager, "_lock_partitions", lambda *_: None)
    slow_down(monkeypatch, both, 30.0)

    found = both.run()

    assert (10, 2) == found


def slow_down(monkeypatch: pytest.MonkeyPatch, both: Both, wait_s: float) -> None:
    """Let each writer wait, before it commits, until the other has come as far; in vain if it may not."""
    plain = postgres_manager._replace_partitions

    def slowly(*args: Any) -> Any:
        done = plain(*args)
        try:
            both.counted.wait(wait_s)
        except threading.BrokenBarrierError:
            both.counted.reset()
        return done

    monkeypatch.setattr(postgres_manager, "_replace_partitions", slowly)


def test_ranges_that_overlap_do_not_wait_for_each_other_for_ever(postgres: str) -> None:
    """Locks are taken in one order: twenty writers of random ranges all come to an end."""
    asset = Asset(PostgresIOManager(url=postgres), LAYOUTS[0])
    asset.write([asset.keys[0]], [[0]], "frame")
    spans = [asset.span(first, last) for first in range(5) for last in range(first, 5)]
    errors: list[BaseException] = []

    def write(keys: list[str], who: int) -> None:
        try:
            Asset(asset.manager, asset.layout, asset.key).write(keys, [[who]], "frame")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(keys, who)) for who, keys in enumerate(spans)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert [] == errors
    with psycopg.connect(postgres) as conn:
        rows = conn.execute(f"SELECT day, count(*) FROM {'.'.join(asset.key.path)} GROUP BY 1 ORDER BY 1").fetchall()
    assert [(dt.date.fromisoformat(key), 1) for key in asset.keys] == rows


def test_hours_that_a_local_time_cannot_tell_apart_are_refused(postgres: str) -> None:
    """In the night in which summer time ends, 02:30 without a zone is in two partitions."""
    layout = LAYOUTS[2]
    asset = Asset(PostgresIOManager(url=postgres), layout)
    naive = Layout(
        "naive", layout.definition, "at", lambda key: {"at": hour(key)["at"].astimezone(BERLIN).replace(tzinfo=None)}
    )
    local = Asset(asset.manager, naive)
    twice = [key for key in asset.keys if "-02:00" in key]
    assert 2 == len(twice)

    local.write([asset.keys[0]], [[1]], "frame")
    with pytest.raises(dg.Failure, match=r"02:00.*comes twice.*timestamptz"):
        local.write([twice[0]], [[2]], "frame")


def test_folder_of_a_lake_holds_one_object_for_each_odd_key(tmp_path: Path) -> None:
    asset = Asset(ParquetIOManager(url=str(tmp_path)), LAYOUTS[3])
    for index, key in enumerate(ODD_KEYS):
        asset.write([key], [[index]], "frame")

    for index, key in enumerate(ODD_KEYS):
        assert [index] == asset.read([key], "frame")["n"].to_list()
    assert len(ODD_KEYS) == len([each for each in tmp_path.rglob("*") if each.is_file()])
