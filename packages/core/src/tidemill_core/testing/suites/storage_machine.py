"""A Hypothesis state machine that compares an object store with a dictionary."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidemill_core.storage import ObjectNotFound, ObjectStore, PreconditionFailed

_KEYS = st.sampled_from(["a", "a-b", "a.b", "b/c", "b/d/e", "é/\uff5e"])
_BODIES = st.binary(max_size=4)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What the dictionary holds under a key."""

    body: bytes
    etag: str | None


class ObjectStoreMachine(RuleBasedStateMachine):
    """Puts (plain and conditional), deletes, copies and pinned reads in any order."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self.store = store
        self.model: dict[str, _Kept] = {}
        self.stale: dict[str, str] = {}

    @initialize()
    def empty(self) -> None:
        """Begin with nothing."""
        self.store.delete([each.key for each in self.store.list()])

    def _keep(self, key: str, body: bytes, etag: str | None) -> None:
        before = self.model.get(key)
        if before is not None and before.etag is not None and before.etag != etag:
            self.stale[key] = before.etag
        self.model[key] = _Kept(body=body, etag=etag)

    @rule(key=_KEYS, body=_BODIES)
    def put(self, key: str, body: bytes) -> None:
        """Write whatever is there."""
        self._keep(key, body, self.store.put(key, body).etag)

    @rule(key=_KEYS, body=_BODIES)
    def put_if_absent(self, key: str, body: bytes) -> None:
        """Write only what is not there."""
        if key in self.model:
            with pytest.raises(PreconditionFailed):
                self.store.put(key, body, if_absent=True)
            return
        self._keep(key, body, self.store.put(key, body, if_absent=True).etag)

    @rule(key=_KEYS, body=_BODIES)
    def put_if_match(self, key: str, body: bytes) -> None:
        """Replace the version that is there."""
        kept = self.model.get(key)
        if kept is not None:
            self._keep(key, body, self.store.put(key, body, if_match=kept.etag).etag)

    @precondition(lambda self: any(self._is_stale(key) for key in self.stale))
    @rule(body=_BODIES, data=st.data())
    def use_a_stale_etag(self, body: bytes, data: st.DataObject) -> None:
        """Neither write nor read an older version."""
        key = data.draw(st.sampled_from(sorted(key for key in self.stale if self._is_stale(key))))
        with pytest.raises(PreconditionFailed):
            self.store.put(key, body, if_match=self.stale[key])
        with pytest.raises((PreconditionFailed, ObjectNotFound)):
            self.store.get(key, if_match=self.stale[key])

    def _is_stale(self, key: str) -> bool:
        kept = self.model.get(key)
        return kept is None or kept.etag != self.stale[key]

    @rule(keys=st.sets(_KEYS, max_size=3))
    def delete(self, keys: set[str]) -> None:
        """Delete what may not be there."""
        self.store.delete(sorted(keys))
        for key in keys:
            kept = self.model.pop(key, None)
            if kept is not None and kept.etag is not None:
                self.stale[key] = kept.etag

    @rule(key=_KEYS, other=_KEYS)
    def copy(self, key: str, other: str) -> None:
        """Copy one key to another."""
        if key == other:
            return
        if key not in self.model:
            with pytest.raises(ObjectNotFound):
                self.store.copy(key, other)
            return
        self._keep(other, self.model[key].body, self.store.copy(key, other).etag)

    @invariant()
    def lists_as_the_model(self) -> None:
        """Same keys in order, same sizes, same etags."""
        expected = [(key, len(self.model[key].body), self.model[key].etag) for key in sorted(self.model)]
        assert expected == [(each.key, each.size_bytes, each.etag) for each in self.store.list()]

    def teardown(self) -> None:
        """Read every object once."""
        for key, kept in self.model.items():
            assert kept.body == self.store.get(key, if_match=kept.etag)
