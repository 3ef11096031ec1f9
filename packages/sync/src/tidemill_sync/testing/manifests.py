"""What every manifest must do; subclass `ManifestSuite` and give the fixture `manifest_url`."""

# ruff: noqa: D102, PLR2004  # a test's name is its sentence

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tidemill_core.testing.suites import Suite

from tidemill_sync.manifests._base import PAGE_ROWS, Manifest, RunRecord
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.plan import Entry

ODD_KEYS = ("A", "a", "a b", "a+b", "a//b", "dir/", "../up", "a\tb", "caf\u00e9", "cafe\u0301", "\uffee", "\U0001f30a")
"""Keys that a collation, a UTF-16 order or a normalising store would lose or order otherwise."""

_HOLD = """
import sys, time
from tidemill_sync.manifests.open import open_manifest
with open_manifest(sys.argv[1]).lease(sys.argv[2]) as is_ours:
    print(is_ours, flush=True)
    time.sleep(600)
"""


class ManifestSuite(Suite):
    """The contract of `Manifest`. The fixture `manifest_url` gives a place that `open_manifest` can open."""

    @pytest.fixture
    def manifest_url(self) -> str:
        """Where a manifest is kept; it may hold the notes of other jobs."""
        raise AssertionError("subclass ManifestSuite and give the fixture `manifest_url`")

    @pytest.fixture
    def manifest(self, manifest_url: str) -> Iterator[Manifest]:
        """An open manifest."""
        with closing(open_manifest(manifest_url)) as opened:
            yield opened

    @pytest.fixture
    def job(self) -> str:
        """A job of this test alone."""
        return uuid.uuid4().hex[:24]

    def test_a_note_is_read_back_by_another_connection(self, manifest: Manifest, manifest_url: str, job: str) -> None:
        manifest.save(job, [_entry("k", size_bytes=7)])

        with closing(open_manifest(manifest_url)) as other:
            assert other.entry(job, "k") == _entry("k", size_bytes=7)
            assert list(other.entries(job)) == [_entry("k", size_bytes=7)]

    def test_pieces_are_kept_by_key_until_they_are_dropped(
        self, manifest: Manifest, manifest_url: str, job: str
    ) -> None:
        for key in ODD_KEYS:
            for number, text in ((2, "two"), (0, f"about {key}"), (10, "ten"), (2, "again")):
                manifest.save_piece(job, key, number, text)

        with closing(open_manifest(manifest_url)) as other:
            assert other.pieces(job, "a") == [(0, "about a"), (2, "again"), (10, "ten")]
            assert other.begun(job) == [(key, f"about {key}") for key in sorted(ODD_KEYS)]
            other.drop_pieces(job, "a")
        assert manifest.pieces(job, "a") == []
        assert len(manifest.begun(job)) == len(ODD_KEYS) - 1
        assert manifest.begun("another job") == []

    def test_a_note_is_overwritten(self, manifest: Manifest, job: str) -> None:
        manifest.save(job, [_entry("k", size_bytes=7)])

        manifest.save(job, [_entry("k", size_bytes=8)])

        assert list(manifest.entries(job)) == [_entry("k", size_bytes=8)]

    def test_sizes_beyond_32_bits_and_missing_etags_are_kept(self, manifest: Manifest, job: str) -> None:
        entry = Entry(key="k", size_bytes=5 << 40, source_etag=None, target_etag=None)

        manifest.save(job, [entry])

        assert manifest.entry(job, "k") == entry

    def test_a_key_without_a_note_has_none(self, manifest: Manifest, job: str) -> None:
        manifest.save(job, [_entry("k")])

        assert manifest.entry(job, "K") is None

    def test_notes_ascend_by_utf8_key(self, manifest: Manifest, job: str) -> None:
        manifest.save(job, map(_entry, reversed(ODD_KEYS)))

        assert [each.key for each in manifest.entries(job)] == sorted(ODD_KEYS, key=str.encode)
        assert all(manifest.entry(job, key) == _entry(key) for key in ODD_KEYS)

    def test_more_notes_than_a_page_are_all_read(self, manifest: Manifest, job: str) -> None:
        keys = [f"{number:06}" for number in range(2 * PAGE_ROWS + 1)]

        manifest.save(job, map(_entry, keys))

        assert [each.key for each in manifest.entries(job)] == keys

    def test_notes_may_be_saved_and_dropped_while_others_are_read(self, manifest: Manifest, job: str) -> None:
        keys = [f"{number:06}" for number in range(PAGE_ROWS + 10)]
        manifest.save(job, map(_entry, keys))

        read = []
        for entry in manifest.entries(job):
            read.append(entry.key)
            if len(read) % 1_000 == 1:
                manifest.save(job, [_entry(entry.key, size_bytes=2)], [entry.key + "~"])

        assert read == keys

    def test_notes_are_dropped(self, manifest: Manifest, job: str) -> None:
        manifest.save(job, map(_entry, ("a", "b", "c")))

        manifest.save(job, [_entry("d")], ["a", "c", "never noted"])

        assert [each.key for each in manifest.entries(job)] == ["b", "d"]

    def test_jobs_do_not_see_each_others_notes(self, manifest: Manifest, job: str) -> None:
        manifest.save(job, [_entry("k", size_bytes=1)])
        manifest.save(f"{job}-2", [_entry("k", size_bytes=2)])

        manifest.save(f"{job}-2", [], ["k"])

        assert list(manifest.entries(job)) == [_entry("k", size_bytes=1)]
        assert list(manifest.entries(f"{job}-2")) == []

    def test_a_save_that_fails_saves_nothing(self, manifest: Manifest, job: str) -> None:
        def broken() -> Iterator[Entry]:
            yield _entry("b")
            raise ZeroDivisionError

        manifest.save(job, [_entry("a")])
        with pytest.raises(ZeroDivisionError):
            manifest.save(job, broken(), ["a"])

        assert [each.key for each in manifest.entries(job)] == ["a"]

    def test_threads_save_at_once_and_lose_nothing(self, manifest: Manifest, job: str) -> None:
        keys = [f"{number:03}" for number in range(400)]

        with ThreadPoolExecutor(4) as pool:
            saves = [pool.submit(manifest.save, job, [_entry(key)]) for key in keys]

        assert [each.exception() for each in saves if each.exception()] == []
        assert [each.key for each in manifest.entries(job)] == keys

    def test_one_holds_the_lease_of_a_job(self, manifest: Manifest, manifest_url: str, job: str) -> None:
        with closing(open_manifest(manifest_url)) as other:
            with manifest.lease(job) as is_ours, other.lease(job) as is_theirs, other.lease(f"{job}-2") as is_free:
                assert (is_ours, is_theirs, is_free) == (True, False, True)
            with other.lease(job) as is_theirs:
                assert is_theirs

    def test_a_killed_process_loses_its_lease(self, manifest: Manifest, manifest_url: str, job: str) -> None:
        holder = subprocess.Popen([sys.executable, "-c", _HOLD, manifest_url, job], stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        with holder.stdout:
            assert holder.stdout.readline() == "True\n"
        with manifest.lease(job) as is_ours:
            assert not is_ours

        holder.kill()
        holder.wait()

        assert _becomes_free(manifest, job)

    def test_runs_are_listed_newest_first(self, manifest: Manifest, job: str) -> None:
        # Later than every run of another test, so that these are the newest.
        for number in range(3):
            manifest.record(_run(f"{job}-{number}", job, started_at=4e9 + number))

        found = [each.run_id for each in manifest.runs(limit=10_000) if each.job == job]

        assert found == [f"{job}-2", f"{job}-1", f"{job}-0"]
        assert len(manifest.runs(limit=2)) == 2

    def test_the_line_of_a_run_is_overwritten(self, manifest: Manifest, job: str) -> None:
        manifest.record(_run(job, job, state="running"))
        ended = _run(job, job, state="done", ended_at=4e9 + 5.5, result={"copied": 3, "failures": ["a", "\u00e9"]})

        manifest.record(ended)

        assert [each for each in manifest.runs(limit=10_000) if each.job == job] == [ended]


def _entry(key: str, *, size_bytes: int = 1) -> Entry:
    return Entry(key=key, size_bytes=size_bytes, source_etag="s", target_etag="t")


def _run(
    run_id: str,
    job: str,
    *,
    state: str = "done",
    started_at: float = 4e9,
    ended_at: float | None = None,
    result: dict[str, object] | None = None,
) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        job=job,
        source="memory://a",
        target="memory://b",
        state=state,
        started_at=started_at,
        ended_at=ended_at,
        result=result or {},
    )


def _becomes_free(manifest: Manifest, job: str) -> bool:
    """Ask again for a while: a server notices a lost connection a moment after the process is gone."""
    from time import monotonic, sleep

    deadline = monotonic() + 30
    while monotonic() < deadline:
        with manifest.lease(job) as is_ours:
            if is_ours:
                return True
        sleep(0.05)
    return False
