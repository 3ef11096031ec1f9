"""What every checkpoint store must do; subclass `CheckpointStoreSuite` and give the fixture `reopen`."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tidemill_core.checkpoint import CheckpointConflict, CheckpointError, CheckpointStore
from tidemill_core.testing.suites._suite import Suite

Reopen = Callable[[], CheckpointStore]
"""Opens the same durable place anew, as a process does after a crash."""


class CheckpointStoreSuite(Suite):
    """The contract of `CheckpointStore`. The fixture `reopen` opens one empty place, again at each call."""

    @pytest.fixture
    def reopen(self) -> Reopen:
        """Open the same place again; the earlier store is not closed, as after a crash."""
        raise AssertionError("subclass CheckpointStoreSuite and give the fixture `reopen`")

    def test_nothing_is_saved_at_first(self, reopen: Reopen) -> None:
        """Load gives None, scan nothing."""
        store = reopen()

        assert store.load("scope", "key") is None
        assert list(store.scan("scope")) == []

    def test_a_saved_value_is_loaded_after_a_crash(self, reopen: Reopen) -> None:
        """Without a close in between."""
        value = {"cursor": "päge\u0000", "n": 2**60, "list": [1, None, True, 1.5], "nested": {"a": {}}}
        saved = reopen().save("scope", "key", value)

        loaded = reopen().load("scope", "key")

        assert loaded is not None
        assert (loaded.value, loaded.version) == (value, 1)
        assert loaded.saved_at == saved.saved_at
        assert abs(loaded.saved_at - datetime.now(UTC)) < timedelta(minutes=1)

    def test_every_save_raises_the_version(self, reopen: Reopen) -> None:
        """From 1, by one."""
        store = reopen()

        versions = [store.save("scope", "key", {"n": n}).version for n in range(3)]

        assert versions == [1, 2, 3]

    def test_a_stale_owner_is_refused(self, reopen: Reopen) -> None:
        """And what the newer owner saved stays."""
        ours, theirs = reopen(), reopen()
        seen = ours.save("scope", "key", {"by": "us"})
        theirs.save("scope", "key", {"by": "them"}, expected_version=seen.version)

        with pytest.raises(CheckpointConflict) as conflict:
            ours.save("scope", "key", {"by": "us again"}, expected_version=seen.version)

        assert (conflict.value.expected, conflict.value.found) == (1, 2)
        kept = ours.load("scope", "key")
        assert kept is not None
        assert kept.value == {"by": "them"}

    def test_version_zero_means_must_not_exist(self, reopen: Reopen) -> None:
        """The first save of a key can be claimed."""
        store = reopen()
        store.save("scope", "key", {}, expected_version=0)

        with pytest.raises(CheckpointConflict):
            store.save("scope", "key", {}, expected_version=0)
        with pytest.raises(CheckpointConflict):
            store.save("scope", "other", {}, expected_version=3)

    def test_a_scan_is_sorted_and_keeps_to_its_scope(self, reopen: Reopen) -> None:
        """Ascending by UTF-8 key."""
        store = reopen()
        keys = ["b", "a", "B", "é", "\uff5e", "\U0001f30a", "", "a/b", "a-b"]
        for key in keys:
            store.save("one", key, {"key": key})
        store.save("two", "a", {})

        found = list(store.scan("one"))

        assert [each.key for each in found] == sorted(keys, key=str.encode)
        assert all(each.value == {"key": each.key} for each in found)

    def test_a_deleted_value_is_gone_and_starts_again(self, reopen: Reopen) -> None:
        """Deleting twice is no error."""
        store = reopen()
        store.save("scope", "key", {})
        store.delete("scope", "key")
        store.delete("scope", "key")

        assert reopen().load("scope", "key") is None
        assert store.save("scope", "key", {}).version == 1

    @pytest.mark.parametrize(
        "value", [{"x": float("nan")}, {"x": object()}, {"x": b"bytes"}], ids=["nan", "object", "bytes"]
    )
    def test_a_value_that_is_not_json_is_refused(self, reopen: Reopen, value: dict[str, Any]) -> None:
        """And the value before it stays."""
        store = reopen()
        store.save("scope", "key", {"n": 1})

        with pytest.raises(CheckpointError):
            store.save("scope", "key", value)

        kept = store.load("scope", "key")
        assert kept is not None
        assert (kept.value, kept.version) == ({"n": 1}, 1)

    @pytest.mark.parametrize("name", ["a\0b", "\ud800"], ids=["nul", "surrogate"])
    def test_a_name_that_is_not_text_is_refused(self, reopen: Reopen, name: str) -> None:
        """In scope and key."""
        store = reopen()

        with pytest.raises(CheckpointError):
            store.save(name, "key", {})
        with pytest.raises(CheckpointError):
            store.load("scope", name)

    def test_compare_and_swap_loses_no_update(self, reopen: Reopen) -> None:
        """Increments from several owners all count."""

        def increment(store: CheckpointStore) -> None:
            for _ in range(5):
                while True:
                    seen = store.load("scope", "counter")
                    value, version = (seen.value["n"], seen.version) if seen else (0, 0)
                    try:
                        store.save("scope", "counter", {"n": value + 1}, expected_version=version)
                    except CheckpointConflict:
                        continue
                    break

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, [reopen() for _ in range(4)]))

        final = reopen().load("scope", "counter")
        assert final is not None
        assert (final.value, final.version) == ({"n": 20}, 20)

    def test_it_behaves_as_a_dictionary_with_versions_through_crashes(self, reopen: Reopen) -> None:
        """A Hypothesis state machine: saves, conditional saves, deletes, scans and crashes in any order."""
        run_state_machine_as_test(
            lambda: CheckpointMachine(reopen),  # type: ignore[arg-type]
            settings=settings(
                max_examples=15,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
            ),
        )


_KEYS = st.sampled_from(["a", "b", "é", "a/b"])
_SCOPES = st.sampled_from(["one", "two"])
_VALUES = st.dictionaries(
    st.text(max_size=5),
    st.integers() | st.text(max_size=5) | st.none() | st.lists(st.booleans(), max_size=2),
    max_size=3,
).filter(lambda value: json.loads(json.dumps(value)) == value)


class CheckpointMachine(RuleBasedStateMachine):
    """Compare a store with a dictionary, reopening it now and then without closing."""

    def __init__(self, reopen: Reopen) -> None:
        super().__init__()
        self._reopen = reopen

    @initialize()
    def start(self) -> None:
        """Empty both."""
        self.store = self._reopen()
        self.model: dict[tuple[str, str], tuple[Any, int]] = {}
        for scope in ("one", "two"):
            for saved in list(self.store.scan(scope)):
                self.store.delete(scope, saved.key)

    @rule(scope=_SCOPES, key=_KEYS, value=_VALUES)
    def save(self, scope: str, key: str, value: dict[str, Any]) -> None:
        """Save without a condition."""
        version = self.model.get((scope, key), (None, 0))[1] + 1

        assert self.store.save(scope, key, value).version == version
        self.model[scope, key] = (value, version)

    @rule(scope=_SCOPES, key=_KEYS, value=_VALUES, expected=st.integers(0, 3))
    def save_if(self, scope: str, key: str, value: dict[str, Any], expected: int) -> None:
        """Save under a condition that holds or not."""
        version = self.model.get((scope, key), (None, 0))[1]
        if expected == version:
            self.store.save(scope, key, value, expected_version=expected)
            self.model[scope, key] = (value, version + 1)
            return
        with pytest.raises(CheckpointConflict):
            self.store.save(scope, key, value, expected_version=expected)

    @rule(scope=_SCOPES, key=_KEYS)
    def delete(self, scope: str, key: str) -> None:
        """Delete what may not be there."""
        self.store.delete(scope, key)
        self.model.pop((scope, key), None)

    @rule()
    def crash(self) -> None:
        """Open the place again, leaving the old store as a killed process would."""
        self.store = self._reopen()

    @invariant()
    def same_as_model(self) -> None:
        """Every scope reads as the dictionary does."""
        if not hasattr(self, "store"):
            return
        for scope in ("one", "two"):
            expected = sorted((key, *kept) for (of, key), kept in self.model.items() if of == scope)
            assert expected == [(each.key, each.value, each.version) for each in self.store.scan(scope)]
