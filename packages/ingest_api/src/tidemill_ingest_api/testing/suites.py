"""The suite every store passes: subclass it and give the fixture `store`."""

# ruff: noqa: D102, PLR2004  # a test's name is its sentence

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tidemill_ingest_api.config import StreamConfig
from tidemill_ingest_api.errors import SchemaConflict, StoreBusy
from tidemill_ingest_api.records.flatten import Row, compile_stream
from tidemill_ingest_api.stores._base import Commit, PageState, Reject, Store, TableSpec
from tidemill_ingest_api.stores.query import Filter, Select, apply_cursor, build_filter, parse_order, sign_cursor

STREAM = StreamConfig(
    name="things",
    primary_key=("place", "number"),
    table="raw.things",
    cursor={"field": "seen_at"},
    fields={
        "place": "string",
        "number": "int64",
        "seen_at": "timestamp",
        "day": "date",
        "heat": "float64",
        "is_new": "bool",
        "tags": "json",
    },
    serve={"filters": ("heat", "is_new", "seen_at", "day"), "sort": ("heat", "seen_at")},
)
SPEC = TableSpec(
    source="suite",
    stream="things",
    table="raw.things",
    columns={name: field.type for name, field in STREAM.fields.items()},
    primary_key=STREAM.primary_key,
    indexes=("heat",),
    cursor="seen_at",
    fingerprint="1",
)
_SECRET = b"secret"


def record(place: str, number: int, heat: float | None = 1.5, second: int = 0, **more: Any) -> dict[str, Any]:
    """Write an upstream record of the suite's stream."""
    seen = datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC).isoformat()
    base = {"place": place, "number": number, "seen_at": seen, "day": "2026-01-02", "heat": heat, "is_new": True}
    return base | {"tags": ["a", {"b": None}]} | more


def rows_of(*records: dict[str, Any]) -> list[Row]:
    """Flatten records."""
    flatten = compile_stream(STREAM).flatten
    return [flatten(each) for each in records]


def commit_of(*records: dict[str, Any], load_id: str = "1", **more: Any) -> Commit:
    """Write a commit of records."""
    return Commit(load_id=load_id, status="done", started_at="2026-01-01T00:00:00", rows=rows_of(*records), **more)


class StoreSuite:
    """The contract of `Store`; a subclass gives the fixture `store` (fresh and empty)."""

    @pytest.fixture
    def store(self) -> Store:
        """Give a fresh, empty store."""
        pytest.fail("a subclass must give the fixture `store`")

    def test_new_rows_are_inserted_and_read_back_encoded(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            written = writer.commit(commit_of(record("x", 1), record("y", 2, None)))

        assert (written.inserted, written.updated) == (2, 0)
        assert store.count(SPEC) == 2
        assert rows_of(record("y", 2, None))[0][-1] == store.get(SPEC, ("y", 2))

    def test_a_missing_key_or_table_reads_as_nothing(self, store: Store) -> None:
        before = (store.get(SPEC, ("x", 1)), store.count(SPEC), store.version(SPEC), store.state(SPEC))
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1)))

        assert before == (None, 0, 0, None)
        assert store.get(SPEC, ("x", 2)) is None

    def test_equal_rows_are_not_rewritten_and_keep_the_version(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            first = writer.commit(commit_of(record("x", 1), record("x", 2)))
            second = writer.commit(commit_of(record("x", 1), record("x", 2), load_id="2"))

        assert (second.inserted, second.updated) == (0, 0)
        assert first.version == second.version == store.version(SPEC)

    def test_a_changed_row_is_updated_and_raises_the_version(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            first = writer.commit(commit_of(record("x", 1), record("x", 2)))
            second = writer.commit(commit_of(record("x", 1, 9.0), record("x", 3), load_id="2"))

        assert (second.inserted, second.updated) == (1, 1)
        assert second.version > first.version
        assert b'"heat":9.0' in (store.get(SPEC, ("x", 1)) or b"")

    def test_a_row_with_a_smaller_cursor_never_replaces_a_newer_one(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1, 2.0, second=5)))
            late = writer.commit(commit_of(record("x", 1, 1.0, second=4), load_id="2"))

        assert late.updated == 0
        assert b'"heat":2.0' in (store.get(SPEC, ("x", 1)) or b"")

    def test_state_is_what_the_last_commit_said(self, store: Store) -> None:
        page = PageState(key="/a?page=1", etag='"e"', last_modified=None, next="/a?page=2", records=1, cursor="c")
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1), pages=[page, replace(page, key="/gone")], cursor="2026"))
            writer.commit(commit_of(load_id="2", forget=["/gone"]))
        with store.writer(SPEC) as writer:
            state = writer.state()

        assert ("2026", {"/a?page=1": page}) == (state.cursor, dict(state.pages))
        assert state == store.state(SPEC)

    def test_partitions_have_states_of_their_own_and_one_version(self, store: Store) -> None:
        page = PageState(key="/a", etag='"e"', last_modified=None, next=None, records=1)
        with store.writer(SPEC) as writer:
            writer.enter("a")
            first = writer.commit(commit_of(record("x", 1), pages=[page], cursor="1"))
            other = writer.enter("b")
            second = writer.commit(commit_of(record("y", 1), load_id="2", cursor="2"))
            again, whole = writer.enter("a"), writer.enter("")

        assert (other.cursor, dict(other.pages)) == (None, {})
        assert (again.cursor, dict(again.pages)) == ("1", {"/a": page})
        assert (whole.cursor, dict(whole.pages)) == (None, {})
        assert first.version < second.version == store.version(SPEC)
        assert {load.stream for load in store.loads("suite")} == {"things"}

    def test_new_fields_forget_the_states_of_partitions_too(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            writer.enter("a")
            writer.commit(commit_of(record("x", 1), cursor="1"))
        with store.writer(replace(SPEC, fingerprint="2")) as writer:
            state = writer.enter("a")

        assert state.cursor is None

    def test_rejects_are_kept_once_each_with_their_last_load(self, store: Store) -> None:
        one = Reject(digest="1", field="heat", reason="no number", record='{"heat":"\\u0000x"}')
        other = Reject(digest="2", field="", reason="no object", record=None)
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1), rejects=[one]))
            writer.commit(commit_of(load_id="2", rejects=[one, other]))

        found = store.rejects("suite")
        assert [("1", one.record, "2"), ("2", None, "2")] == [(r.digest, r.record, r.load_id) for r in found]
        assert {each.stream for each in found} == {"things"}
        assert store.rejects("other") == []

    def test_a_commit_that_fails_leaves_nothing(self, store: Store) -> None:
        page = PageState(key="/p", etag='"e"', last_modified=None, next=None, records=1)
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1)))
            with pytest.raises(Exception):  # noqa: B017, PT011  # whatever the driver says
                writer.commit(commit_of(record("x", 2), pages=[page], cursor="9", facts={"bad": object()}))

        state = store.state(SPEC)
        assert store.count(SPEC) == 1
        assert state is not None
        assert (state.cursor, dict(state.pages)) == (None, {})

    def test_new_fields_extend_the_table_and_forget_the_state(self, store: Store) -> None:
        page = PageState(key="/p", etag='"e"', last_modified=None, next=None, records=1)
        wider = replace(SPEC, columns={**SPEC.columns, "extra_number": "int32"}, fingerprint="2")
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1), pages=[page], cursor="9"))
        with store.writer(wider) as writer:
            state = writer.state()

        assert (state.cursor, dict(state.pages)) == (None, {})
        assert store.count(wider) == 1

    def test_an_emptied_table_forgets_the_state(self, store: Store) -> None:
        page = PageState(key="/p", etag='"e"', last_modified=None, next=None, records=1)
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(pages=[page], cursor="9"))
        with store.writer(SPEC) as writer:
            state = writer.state()

        assert (state.cursor, dict(state.pages)) == (None, {})

    def test_a_column_of_another_type_is_refused(self, store: Store) -> None:
        other = replace(SPEC, columns={**SPEC.columns, "heat": "string"})
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1)))

        with pytest.raises(SchemaConflict, match="heat"), store.writer(other):
            pass

    def test_another_primary_key_is_refused(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1)))

        with pytest.raises(SchemaConflict, match="key"), store.writer(replace(SPEC, primary_key=("number",))):
            pass

    def test_a_second_writer_is_refused_until_the_first_is_done(self, store: Store) -> None:
        with store.writer(SPEC), pytest.raises(StoreBusy), store.writer(SPEC, wait_s=0.0):
            pass
        with store.writer(SPEC, wait_s=10.0) as writer:
            written = writer.commit(commit_of(record("x", 1)))

        assert written.inserted == 1

    def test_writers_of_different_tables_may_begin_at_once_in_an_empty_database(self, store: Store) -> None:
        specs = [replace(SPEC, stream=f"s{i}", table=f"raw{i % 2}.t{i}") for i in range(6)]

        def begin(spec: TableSpec) -> int:
            with store.writer(spec) as writer:
                return writer.commit(commit_of(record("x", 1), load_id=spec.stream)).inserted

        with ThreadPoolExecutor(len(specs)) as pool:
            inserted = list(pool.map(begin, specs))

        assert inserted == [1] * len(specs)

    def test_filters_answer_alike_on_every_store(self, store: Store) -> None:
        records = [record("JFK", 1, 50.0), record("jfk", 2, None), record("a%b_c", 3, -1.0, is_new=False)]
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(*records))
        questions = [
            (("place", "eq", ["JFK"]), [1]),
            (("place", "ne", ["JFK"]), [3, 2]),
            (("heat", "gte", ["-1"]), [1, 3]),
            (("heat", "is", ["null"]), [2]),
            (("place", "like", ["J*"]), [1]),
            (("place", "contains", ["%b_"]), [3]),
            (("number", "in", ["1", "3", "9"]), [1, 3]),
            (("is_new", "eq", ["false"]), [3]),
            (("day", "lt", ["2026-01-03"]), [1, 3, 2]),
            (("seen_at", "eq", ["2026-01-01T01:00:00+01:00"]), [1, 3, 2]),
            (("place", "eq", ["'; DROP TABLE things; --"]), []),
        ]

        found = [_numbers(store, build_filter(STREAM, *question)) for question, _ in questions]

        assert [expected for _, expected in questions] == found

    def test_pages_by_cursor_meet_every_row_once_whatever_the_order(self, store: Store) -> None:
        records = [record(f"p{i % 3}", i, None if i % 4 == 0 else float(i % 5), second=i) for i in range(40)]
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(*records))

        for order in ("", "-place", "heat", "-heat", "heat,-seen_at", "-heat,place", "-number,place"):
            whole = store.select(SPEC, Select(order=parse_order(STREAM, order), limit=100))
            paged = _pages(store, Select(order=parse_order(STREAM, order), limit=7))

            assert len(set(whole)) == 40
            assert whole == paged, order

    def test_texts_sort_by_their_bytes(self, store: Store) -> None:
        places = ["b", "B", "a", "ä", "Z", "_", "é"]
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(*[record(place, 1) for place in places]))

        docs = store.select(SPEC, Select(order=parse_order(STREAM, "place")))

        assert sorted(places) == [orjson.loads(doc)["place"] for doc in docs]

    def test_the_load_log_has_the_newest_first(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1), facts={"pages": 1}))
            writer.commit(commit_of(load_id="2", facts={"pages": 2}, finished_at="2026-01-01T00:00:01"))

        found = [(load.load_id, load.facts["pages"], load.facts["inserted"]) for load in store.loads("suite")]
        assert found == [("2", 2, 0), ("1", 1, 1)]
        assert store.loads("another") == []

    def test_no_key_is_repeated(self, store: Store) -> None:
        with store.writer(SPEC) as writer:
            writer.commit(commit_of(record("x", 1), record("x", 2)))

        assert store.duplicates(SPEC) == 0
        store.ping()


def _numbers(store: Store, condition: Filter) -> list[int]:
    select = Select(filters=(condition,), order=parse_order(STREAM, "place"))
    return [orjson.loads(doc)["number"] for doc in store.select(SPEC, select)]


def _pages(store: Store, select: Select) -> Sequence[bytes]:
    docs: list[bytes] = []
    asked = select
    while page := store.select(SPEC, asked):
        docs += page
        asked = apply_cursor(_SECRET, STREAM, select, sign_cursor(_SECRET, STREAM, select, page[-1]))
    return docs
