"""What every object store must do; subclass `ObjectStoreSuite` and give the fixture `store`."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tidemill_core.storage import Body, KeyRefused, ObjectNotFound, ObjectStore, PreconditionFailed, fetch, list_pages
from tidemill_core.testing.suites._suite import Suite
from tidemill_core.testing.suites.storage_machine import ObjectStoreMachine

ODD_KEYS = {
    "space": "sp ace",
    "plus": "a+b",
    "percent": "%41",
    "question": "what?",
    "hash": "a#b",
    "equals": "date=2013-01-01/part.parquet",
    "ampersand": "a&b;c,d",
    "quotes": 'it\'s "quoted" <now>',
    "tilde": "~a/b~",
    "star": "a*b[c]{d}",
    "colon": "a:b@c",
    "nfc": "caf\u00e9",
    "nfd": "cafe\u0301",
    "emoji": "wave-\U0001f30a",
    "dots": "..a/...",
    "trailing-space": "trail/ ",
}
"""Keys every store holds."""

UNTAMED_KEYS = {
    "marker": "dir/",
    "double-slash": "a//b",
    "leading-slash": "/lead",
    "dot": "x/./y",
    "dot-dot": "x/../y",
    "dot-dot-alone": "..",
    "tab": "a\tb",
    "newline": "a\nb",
    "control": "a\x01b",
    "backslash": "a\\b",
}
"""Keys that are legal in a bucket; a store without `any_key` may refuse them, and then does so clearly."""

_PART_BYTES = 21 << 20


class ObjectStoreSuite(Suite):
    """The contract of `ObjectStore`. The fixture `store` gives an empty store."""

    many_keys: ClassVar[int] = 1_100
    """How many keys a listing of several pages has."""
    machine_examples: ClassVar[int] = 5
    """How many sequences of operations the state machine tries."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """An empty store, fresh for each test."""
        raise AssertionError("subclass ObjectStoreSuite and give the fixture `store`")

    def test_what_is_put_is_read_back(self, store: ObjectStore) -> None:
        """Bytes survive, and put, head and list agree on them."""
        written = store.put("a/b.bin", b"\x00\xffhello")

        assert store.get("a/b.bin") == b"\x00\xffhello"
        assert written.size_bytes == store.head("a/b.bin").size_bytes == len(b"\x00\xffhello")
        assert written.etag is not None
        assert [written.etag] * 2 == [store.head("a/b.bin").etag, next(iter(store.list())).etag]

    def test_a_write_is_dated_now_in_utc(self, store: ObjectStore) -> None:
        """Times carry a zone and are near the clock."""
        written = store.put("a", b"1")

        assert abs(store.head("a").modified_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert abs(written.modified_at - datetime.now(UTC)) < timedelta(minutes=5)

    @pytest.mark.parametrize("kind", ["bytes", "memoryview", "path", "stream"])
    def test_every_kind_of_body_can_be_put(self, store: ObjectStore, kind: str, tmp_path: Path) -> None:
        """Bytes, views, files and open streams."""
        (tmp_path / "body").write_bytes(b"body")
        bodies: dict[str, Body] = {
            "bytes": b"body",
            "memoryview": memoryview(b"a body")[2:],
            "path": tmp_path / "body",
            "stream": io.BytesIO(b"body"),
        }

        store.put("key", bodies[kind])

        assert store.get("key") == b"body"

    def test_pages_say_what_the_listing_says(self, store: ObjectStore) -> None:
        """Columns and descriptions, under a prefix and after a key."""
        for key in ("a/1", "a/2", "a/3 ü", "b"):
            store.put(key, key.encode())

        for prefix, after in (("", None), ("a/", None), ("", "a/1"), ("a/", "a/2"), ("none", None)):
            pages = list(list_pages(store, prefix, start_after=after))
            expected = list(store.list(prefix, start_after=after))
            assert [page.info(index) for page in pages for index in range(len(page.keys))] == expected
            columns = [zip(page.keys, page.sizes_bytes, page.etags, strict=True) for page in pages]
            assert [row for rows in columns for row in rows] == [(x.key, x.size_bytes, x.etag) for x in expected]

    @pytest.mark.parametrize("body", [b"", b"body"])
    def test_an_object_is_fetched_with_its_description(self, store: ObjectStore, body: bytes) -> None:
        """Bytes and description are of one version, and a description as by `head`."""
        metadata = {"a": "1"} if store.capabilities.user_metadata else {}
        etag = store.put("key", body, content_type="text/x-tide", metadata=metadata).etag

        info, found = fetch(store, "key", if_match=etag)

        assert (info, found) == (store.head("key"), body)
        with pytest.raises(PreconditionFailed):
            fetch(store, "key", if_match=store.put("other", b"other").etag)
        with pytest.raises(ObjectNotFound):
            fetch(store, "missing")

    def test_an_empty_object_is_kept(self, store: ObjectStore) -> None:
        """Zero bytes are an object."""
        store.put("empty", b"")

        assert store.get("empty") == b""
        assert list(store.stream("empty")) == []
        assert [(each.key, each.size_bytes) for each in store.list()] == [("empty", 0)]

    def test_a_put_replaces_the_object_and_its_etag(self, store: ObjectStore) -> None:
        """Other content, other etag."""
        first = store.put("key", b"one")
        second = store.put("key", b"two")

        assert store.get("key") == b"two"
        assert first.etag != second.etag

    @pytest.mark.parametrize(
        ("start", "end", "expected"),
        [(0, 3, b"012"), (2, 5, b"234"), (7, None, b"789"), (8, 100, b"89"), (3, 3, b""), (10, None, b"")],
    )
    def test_a_range_is_read(self, store: ObjectStore, start: int, end: int | None, expected: bytes) -> None:
        """Ranges are half open and may end past the object."""
        store.put("key", b"0123456789")

        assert store.get("key", start=start, end=end) == expected

    def test_a_stream_gives_the_bytes_in_order(self, store: ObjectStore) -> None:
        """Chunks join to the object."""
        body = bytes(range(256)) * 4096
        store.put("key", body)

        chunks = list(store.stream("key", chunk_bytes=100_000))

        assert b"".join(chunks) == body
        assert len(chunks) > 1

    @pytest.mark.parametrize("verb", ["head", "get", "stream", "copy"])
    def test_a_missing_object_is_not_found(self, store: ObjectStore, verb: str) -> None:
        """One error for all verbs, and it names the key."""
        verbs: dict[str, Callable[[], object]] = {
            "head": lambda: store.head("no/such"),
            "get": lambda: store.get("no/such"),
            "stream": lambda: list(store.stream("no/such")),
            "copy": lambda: store.copy("no/such", "target"),
        }

        with pytest.raises(ObjectNotFound, match="no/such"):
            verbs[verb]()

    def test_a_folder_is_not_an_object(self, store: ObjectStore) -> None:
        """The parent of a key is nothing by itself."""
        store.put("folder/key", b"1")

        with pytest.raises(ObjectNotFound):
            store.get("folder")

    def test_keys_are_listed_in_utf8_order(self, store: ObjectStore) -> None:
        """The order of the encoded full key, where `a-b` < `a/b` < `a0` and U+FF5E < U+1F30A."""
        keys = ["a/b", "a-b", "a0", "a.b", "a/b/c"[:3] + "c", "B", "é", "z", "\uff5e", "\U0001f30a", "a b"]
        for key in keys:
            store.put(key, b"")

        assert [each.key for each in store.list()] == sorted(keys, key=str.encode)

    def test_a_prefix_is_a_string_prefix(self, store: ObjectStore) -> None:
        """`a` matches `ab/c`, and `a/` does not."""
        for key in ["a/1", "a/2", "ab/c", "b"]:
            store.put(key, b"")

        assert [each.key for each in store.list("a")] == ["a/1", "a/2", "ab/c"]
        assert [each.key for each in store.list("a/")] == ["a/1", "a/2"]
        assert [each.key for each in store.list("a/2")] == ["a/2"]
        assert list(store.list("no")) == []

    def test_a_listing_starts_after_a_key(self, store: ObjectStore) -> None:
        """The key itself is left out, whether or not it exists."""
        for key in ["a", "b/1", "b/2", "c"]:
            store.put(key, b"")

        assert [each.key for each in store.list(start_after="b/1")] == ["b/2", "c"]
        assert [each.key for each in store.list(start_after="b/11")] == ["b/2", "c"]
        assert [each.key for each in store.list("b/", start_after="b/1")] == ["b/2"]
        assert list(store.list(start_after="c")) == []

    def test_a_long_listing_is_complete(self, store: ObjectStore) -> None:
        """More keys than one page holds."""
        keys = [f"{number % 7}/{number:05}" for number in range(self.many_keys)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))

        assert [each.key for each in store.list()] == sorted(keys)

    @pytest.mark.parametrize("name", ODD_KEYS)
    def test_an_odd_key_is_kept(self, store: ObjectStore, name: str) -> None:
        """Put, list, get, copy and delete all mean the same key."""
        self._keep(store, ODD_KEYS[name])

    @pytest.mark.parametrize("name", UNTAMED_KEYS)
    def test_an_untamed_key_is_kept_or_refused(self, store: ObjectStore, name: str) -> None:
        """Never stored under another name."""
        if store.capabilities.any_key:
            self._keep(store, UNTAMED_KEYS[name])
            return

        try:
            self._keep(store, UNTAMED_KEYS[name])
        except KeyRefused:
            assert list(store.list()) == []

    def _keep(self, store: ObjectStore, key: str) -> None:
        written = store.put(key, b"odd")

        assert written.key == store.head(key).key == key
        assert [each.key for each in store.list()] == [key]
        assert [each.key for each in store.list(key)] == [key]
        assert list(store.list(start_after=key)) == []
        assert store.get(key, if_match=written.etag) == b"odd"
        store.copy(key, "copied")
        store.copy("copied", key)
        assert store.get("copied") == b"odd"
        store.delete([key, "copied"])
        assert list(store.list()) == []

    @pytest.mark.parametrize("key", ["", "a\0b", "k" * 1025, "\ud800"])
    def test_an_impossible_key_is_refused(self, store: ObjectStore, key: str) -> None:
        """Empty, NUL, too long, not Unicode."""
        with pytest.raises(KeyRefused):
            store.put(key, b"")

    def test_if_absent_writes_once(self, store: ObjectStore) -> None:
        """The second writer is told, and changes nothing."""
        store.put("key", b"first", if_absent=True)

        with pytest.raises(PreconditionFailed, match="key"):
            store.put("key", b"second", if_absent=True)

        assert store.get("key") == b"first"

    def test_if_absent_has_one_winner(self, store: ObjectStore) -> None:
        """Of many at once."""

        def claim(number: int) -> int:
            try:
                store.put("claim", f"{number}".encode(), if_absent=True)
            except PreconditionFailed:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            winners = sum(pool.map(claim, range(8)))

        assert winners == 1

    def test_if_match_replaces_only_what_was_seen(self, store: ObjectStore) -> None:
        """A stale etag, or a missing object, fails."""
        first = store.put("key", b"one")
        second = store.put("key", b"two", if_match=first.etag)

        with pytest.raises(PreconditionFailed):
            store.put("key", b"three", if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            store.put("other", b"x", if_match=second.etag)

        assert store.get("key") == b"two"

    def test_if_match_loses_no_update(self, store: ObjectStore) -> None:
        """Concurrent compare-and-swap increments all count."""
        store.put("counter", b"0")

        def increment(_: int) -> None:
            while True:
                seen = store.head("counter")
                try:
                    value = int(store.get("counter", if_match=seen.etag))
                    store.put("counter", str(value + 1).encode(), if_match=seen.etag)
                except PreconditionFailed:
                    continue
                return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(12)))

        assert store.get("counter") == b"12"

    def test_a_read_can_be_pinned(self, store: ObjectStore) -> None:
        """A changed object is not read as the old one."""
        first = store.put("key", b"one")
        store.put("key", b"two!")

        with pytest.raises(PreconditionFailed):
            store.get("key", if_match=first.etag)
        with pytest.raises(PreconditionFailed):
            list(store.stream("key", if_match=first.etag))

    def test_deleting_is_final_and_repeatable(self, store: ObjectStore) -> None:
        """Many at once, and missing ones are no error."""
        for number in range(5):
            store.put(f"d/{number}", b"")

        store.delete([*(f"d/{number}" for number in range(4)), "missing"])
        store.delete(["d/0"])
        store.delete([])

        assert [each.key for each in store.list()] == ["d/4"]

    def test_a_copy_is_the_same_bytes(self, store: ObjectStore) -> None:
        """And is a new object, independent of the first."""
        store.put("source", b"body")
        copied = store.copy("source", "target/copy")
        store.put("source", b"changed")

        assert copied.key == "target/copy"
        assert copied.size_bytes == len(b"body")
        assert store.get("target/copy") == b"body"
        assert store.head("target/copy").etag == copied.etag

    def test_content_type_and_metadata_are_kept(self, store: ObjectStore) -> None:
        """Where the store has them."""
        if not store.capabilities.user_metadata:
            pytest.skip("this store keeps no metadata")
        store.put("key", b"x", content_type="text/csv", metadata={"made_by": "tidemill", "n": "1"})
        store.copy("key", "copied")

        for found in (store.head("key"), store.head("copied")):
            assert found.content_type == "text/csv"
            assert found.metadata == {"made_by": "tidemill", "n": "1"}

    @pytest.mark.parametrize("kind", ["bytes", "path", "stream"])
    def test_a_large_object_is_written_whole(self, store: ObjectStore, kind: str, tmp_path: Path) -> None:
        """More than one part; conditions hold for it too."""
        body = bytes(range(256)) * (_PART_BYTES // 256) + b"tail"
        (tmp_path / "large").write_bytes(body)
        bodies: dict[str, Body] = {"bytes": body, "path": tmp_path / "large", "stream": io.BytesIO(body)}

        written = store.put("large", bodies[kind], if_absent=True)

        assert written.size_bytes == len(body)
        assert store.head("large").etag == written.etag
        assert b"".join(store.stream("large")) == body
        assert store.get("large", start=_PART_BYTES - 2) == body[_PART_BYTES - 2 :]
        with pytest.raises(PreconditionFailed):
            store.put("large", tmp_path / "large", if_absent=True)

    def test_a_uri_names_the_object(self, store: ObjectStore) -> None:
        """The store's URL begins it."""
        assert store.uri("a/b").startswith(store.url)
        assert store.uri("a/b").endswith("a/b")

    def test_polars_reads_what_was_put(self, store: ObjectStore) -> None:
        """By `uri` and `reader_options`."""
        if store.url.startswith("memory:"):
            pytest.skip("only this process can read its memory")
        import polars as pl

        file = io.BytesIO()
        pl.DataFrame({"x": [1, 2, 3]}).write_parquet(file)
        store.put("day=1/part 0.parquet", file.getvalue())

        read = pl.scan_parquet(store.uri("day=1/part 0.parquet"), **store.reader_options())

        assert read.select("x").collect()["x"].to_list() == [1, 2, 3]

    def test_it_behaves_as_a_dictionary_with_versions(self, store: ObjectStore) -> None:
        """A Hypothesis state machine: puts, conditions, deletes and copies in any order."""
        run_state_machine_as_test(
            lambda: ObjectStoreMachine(store),  # type: ignore[arg-type]
            settings=settings(
                max_examples=self.machine_examples,
                stateful_step_count=20,
                deadline=None,
                derandomize=True,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
            ),
        )
