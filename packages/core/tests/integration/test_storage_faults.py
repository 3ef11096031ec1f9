"""Object stores behind a proxy that answers wrongly: each operation is done, or says that it may not be.

Random operations and faults go to real servers of the three protocols; a dictionary says what may be there. An
operation that raises `StoreUnavailable` may have been carried out or not; one that returns was.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from faulty_proxy import FAULTS, FaultyProxy, faulty_proxy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tidemill_core.errors import ObjectNotFound, PreconditionFailed
from tidemill_core.retry import RetryPolicy
from tidemill_core.storage import ObjectStore, StoreUnavailable, open_store

KEYS = ["a", "b/c", "b c"]
Body = bytes | None


@pytest.fixture(autouse=True, scope="module")
def _no_waiting() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RetryPolicy, "wait_s", lambda *_args: 0.0)
        yield


@pytest.fixture(scope="module", params=["s3", "gs", "az"])
def behind(request: pytest.FixtureRequest) -> Iterator[tuple[ObjectStore, FaultyProxy]]:
    """A store whose every request goes through the proxy."""
    from contextlib import ExitStack

    from tidemill_core.testing import objects

    with ExitStack() as stack:
        if request.param == "s3":
            url, options = objects.s3_bucket(objects.s3_server("s3mock"))
            field_name = "s3_endpoint_url"
        elif request.param == "gs":
            url, options = stack.enter_context(objects.gcs_bucket())
            field_name = "gcs_endpoint_url"
        else:
            url, options = stack.enter_context(objects.azure_container())
            field_name = "azure_endpoint_url"
        real = str(getattr(options, field_name))
        proxy = stack.enter_context(faulty_proxy(real))
        if request.param == "az":
            proxy.never.add("no_range")  # Azure's signature covers the range: without it the server says no
        path = real.removeprefix("http://").partition("/")[2]
        through = f"{proxy.url}/{path}" if path else proxy.url
        yield open_store(url, options.model_copy(update={field_name: through})), proxy


@dataclass
class Model:
    """What each key may hold; several bodies after an operation whose end is unclear."""

    store: ObjectStore
    proxy: FaultyProxy
    may: dict[str, set[Body]] = field(default_factory=lambda: {key: {None} for key in KEYS})

    def do(self, what: str, key: str, body: bytes, faults: list[str | None]) -> None:
        """Do one operation under faults, and compare."""
        self.proxy.plan[:] = faults
        try:
            getattr(self, f"_{what}")(key, body)
        finally:
            self.proxy.plan.clear()

    def _put(self, key: str, body: bytes) -> None:
        try:
            written = self.store.put(key, body)
        except StoreUnavailable:
            self.may[key] |= {body}
            return
        self.may[key] = {body}
        assert len(body) == written.size_bytes

    def _put_new(self, key: str, body: bytes) -> None:
        before = self.may[key]
        try:
            self.store.put(key, body, if_absent=True)
        except StoreUnavailable:
            self.may[key] = before | ({body} if None in before else set())
        except PreconditionFailed:
            assert before != {None}, "nothing was there, and our own write was taken for another's"
            self.may[key] = before - {None}
        else:
            assert None in before, "something was there, and was written over"
            self.may[key] = {body}

    def _delete(self, key: str, _body: bytes) -> None:
        try:
            self.store.delete([key])
        except StoreUnavailable:
            self.may[key] |= {None}
            return
        self.may[key] = {None}

    def _get(self, key: str, _body: bytes) -> None:
        self._saw(key, lambda: self.store.get(key))

    def _fetch(self, key: str, _body: bytes) -> None:
        fetch = getattr(self.store, "fetch", None)  # not every store has it
        self._saw(key, lambda: fetch(key)[1] if fetch else self.store.get(key))

    def _stream(self, key: str, _body: bytes) -> None:
        self._saw(key, lambda: b"".join(self.store.stream(key, chunk_bytes=7)))

    def _part(self, key: str, _body: bytes) -> None:
        try:
            found = self.store.get(key, start=3, end=9)
        except (StoreUnavailable, ObjectNotFound):
            return
        assert found in {each[3:9] for each in self.may[key] if each is not None}

    def _saw(self, key: str, read: Any) -> None:
        found: Body
        try:
            found = read()
        except StoreUnavailable:
            return
        except ObjectNotFound:
            found = None
        assert found in self.may[key]
        self.may[key] = {found}

    def _head(self, key: str, _body: bytes) -> None:
        try:
            size = self.store.head(key).size_bytes
        except StoreUnavailable:
            return
        except ObjectNotFound:
            assert None in self.may[key]
            return
        assert size in {len(each) for each in self.may[key] if each is not None}

    def _list(self, _key: str, _body: bytes) -> None:
        try:
            found = {info.key: info.size_bytes for info in self.store.list()}
        except StoreUnavailable:
            return
        for key in KEYS:
            sizes = {None if each is None else len(each) for each in self.may[key]}
            assert found.get(key) in sizes, key

    def _copy(self, key: str, _body: bytes) -> None:
        target = KEYS[(KEYS.index(key) + 1) % len(KEYS)]
        try:
            self.store.copy(key, target)
        except StoreUnavailable:
            self.may[target] |= self.may[key] - {None}
        except ObjectNotFound:
            assert None in self.may[key]
        else:
            self.may[target] = self.may[key] - {None}
            assert self.may[target]


OPERATIONS = ["put", "put_new", "delete", "get", "fetch", "stream", "part", "head", "list", "copy"]
FAULT = st.none() | st.sampled_from(FAULTS)
STORY = st.lists(
    st.tuples(
        st.sampled_from(OPERATIONS),
        st.sampled_from(KEYS),
        st.binary(min_size=20, max_size=60),
        st.lists(FAULT, max_size=6),
    ),
    min_size=4,
    max_size=14,
)


@settings(
    deadline=None,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(story=STORY)
def test_what_an_operation_says_is_true_whatever_the_server_answers(
    behind: tuple[ObjectStore, FaultyProxy], story: list
) -> None:
    store, proxy = behind
    store.delete([info.key for info in store.list()])
    model = Model(store, proxy)

    for what, key, body, faults in story:
        model.do(what, key, body, faults)
    for key in KEYS:
        model.do("get", key, b"", [])
        model.do("list", key, b"", [])


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", ["put", "get", "stream", "head", "list", "delete"])
def test_one_fault_alone_is_got_over(behind: tuple[ObjectStore, FaultyProxy], what: str, fault: str) -> None:
    """Each operation that may be repeated succeeds when one request of it goes wrong."""
    store, proxy = behind
    body = bytes(range(64))
    store.put("a", body)
    proxy.plan[:] = [fault]

    done = {
        "put": lambda: store.put("a", body).size_bytes,
        "get": lambda: store.get("a"),
        "stream": lambda: b"".join(store.stream("a", chunk_bytes=5)),
        "head": lambda: store.head("a").size_bytes,
        "list": lambda: [info.key for info in store.list("a")],
        "delete": lambda: store.delete(["a"]),
    }[what]()

    assert {"put": 64, "get": body, "stream": body, "head": 64, "list": ["a"], "delete": None}[what] == done
    proxy.plan.clear()
    if what == "delete":
        with pytest.raises(ObjectNotFound):
            store.head("a")


def test_a_stream_that_breaks_behind_a_proxy_without_ranges_is_not_doubled(
    behind: tuple[ObjectStore, FaultyProxy],
) -> None:
    store, proxy = behind
    body = bytes(range(200))
    store.put("a", body)
    proxy.plan[:] = ["cut", "no_range", None]

    found = b"".join(store.stream("a", chunk_bytes=16))

    assert body == found
    assert ["cut", None if "no_range" in proxy.never else "no_range"] == [fault for _, _, fault in proxy.done[-2:]]


def test_the_model_finds_a_write_that_is_repeated_blindly(
    behind: tuple[ObjectStore, FaultyProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a conditional write whose answer was lost is sent again, and meets itself."""
    from tidemill_core.storage import _http

    store, proxy = behind
    store.delete([info.key for info in store.list()])
    monkeypatch.setattr(_http, "_is_worth_repeating", lambda _request, error: isinstance(error, StoreUnavailable))

    with pytest.raises(AssertionError, match="our own write was taken for another's"):
        Model(store, proxy).do("put_new", "a", b"x" * 20, ["lost_answer"])
