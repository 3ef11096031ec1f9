"""What REST and gRPC share: find the table, ask the store, remember pages, sign cursors, hold limits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tidemill_ingest_api import metrics
from tidemill_ingest_api.api.auth import Caller, identify
from tidemill_ingest_api.api.cache import PageCache
from tidemill_ingest_api.config import ServeConfig, SourceConfig, StreamConfig
from tidemill_ingest_api.errors import UnknownTable
from tidemill_ingest_api.fetching.fetch import table_spec
from tidemill_ingest_api.stores._base import Reader, TableSpec
from tidemill_ingest_api.stores.query import Select, apply_cursor, sign_cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """One page of encoded records, and the cursor of the next page (empty on the last)."""

    docs: tuple[bytes, ...]
    next: str
    version: int

    @property
    def size_bytes(self) -> int:
        """Bytes held."""
        return sum(map(len, self.docs)) + len(self.next) + 64 * len(self.docs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of a reader's limit."""

    limit: int
    remaining: int
    reset_s: int
    is_exceeded: bool


class Service:
    """Answers questions about the tables of one source.

    Args:
        source: Its configuration; `serve` must be there.
        reader: Where the rows are.
        clock: Monotonic seconds.
    """

    def __init__(self, source: SourceConfig, reader: Reader, *, clock: Callable[[], float] = time.monotonic) -> None:
        assert source.serve is not None
        self.source, self.reader, self.serve = source, reader, source.serve
        self._clock = clock
        self._streams = {stream.name: (stream, table_spec(source, stream)) for stream in source.streams}
        self._versions: dict[str, tuple[float, int]] = {}
        self._cache: PageCache[Records] = PageCache(self.serve.cache_bytes)
        given = self.serve.cursor_secret
        self._secret = given.get_secret_value().encode() if given else secrets.token_bytes(32)
        self._limiter = _Limiter(self.serve)

    def table(self, name: str, caller: Caller | None = None) -> tuple[StreamConfig, TableSpec]:
        """Find a table; one the reader may not read is unknown to it.

        Raises:
            UnknownTable: There is none.
        """
        known = [each for each in self._streams if caller is None or caller.may_read(each)]
        if name not in known:
            raise UnknownTable(name, known)
        return self._streams[name]

    def identify(self, authorization: str | None, api_key: str | None) -> Caller | None:
        """Find the reader behind a request's headers."""
        return identify(self.serve, authorization, api_key)

    def take(self, caller: Caller, address: str) -> Quota | None:
        """Count a request against the reader's limit (its address where everybody may read); None without a limit."""
        quota = self._limiter.take(f"{caller.key_id}/{address}" if caller.key_id == "anybody" else caller.key_id)
        if quota and quota.is_exceeded:
            metrics.RATE_LIMITED.labels(key_id=caller.key_id).inc()
        return quota

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Call the store: here when it is a local file, on a thread when it is across a network."""
        if self.reader.is_local:
            return fn(*args)
        import anyio.to_thread

        return await anyio.to_thread.run_sync(fn, *args)

    async def version(self, name: str) -> int:
        """The table's version, at most `freshness_s` old."""
        spec = self._streams[name][1]
        asked_at, version = self._versions.get(name, (float("-inf"), 0))
        now = self._clock()
        if now - asked_at > self.serve.freshness_s or version == 0:
            version = await self.call(self.reader.version, spec)
            self._versions[name] = (now, version)
        return version

    async def get(self, name: str, key: Sequence[Any]) -> bytes | None:
        """Read one encoded record."""
        return await self.call(self.reader.get, self._streams[name][1], key)

    async def page(self, name: str, select: Select, cursor: str = "") -> Records:
        """Read one page, from memory where the table has not changed since.

        Raises:
            BadQuery: The cursor is not ours.
        """
        stream, spec = self._streams[name]
        version = await self.version(name)  # before the rows, so that they are never older than it says
        key = (name, version, select, cursor)
        found = self._cache.get(key)
        if found is not None:
            metrics.CACHE_HITS.inc()
            return found
        metrics.CACHE_MISSES.inc()
        asked = apply_cursor(self._secret, stream, select, cursor) if cursor else select
        docs = await self.call(self.reader.select, spec, replace(asked, limit=select.limit + 1))
        following = (
            sign_cursor(self._secret, stream, select, docs[select.limit - 1]) if len(docs) > select.limit else ""
        )
        page = Records(docs=tuple(docs[: select.limit]), next=following, version=version)
        self._cache.put(key, page)
        return page

    def scan(
        self, name: str, select: Select, *, rows: int, cursor: str = "", batch_rows: int = 1000
    ) -> Iterator[Records]:
        """Read many rows in batches, holding one batch at a time; blocks, so call it on a thread."""
        stream, spec = self._streams[name]
        asked = apply_cursor(self._secret, stream, select, cursor) if cursor else select
        version, left = self.reader.version(spec), rows
        while left > 0:
            size = min(batch_rows, left)
            docs = self.reader.select(spec, replace(asked, limit=size + 1))
            batch = docs[:size]
            if not batch:
                return
            following = sign_cursor(self._secret, stream, select, batch[-1]) if len(docs) > size else ""
            yield Records(docs=tuple(batch), next=following, version=version)
            if not following:
                return
            asked, left = apply_cursor(self._secret, stream, select, following), left - size

    def sick(self) -> str | None:
        """Say what keeps us from answering; None when all is well."""
        from tidemill_core.errors import TidemillError

        try:
            self.reader.ping()
        except TidemillError as error:
            return str(error)
        return None


class _Limiter:
    """A moving window per reader, in this process's memory."""

    def __init__(self, serve: ServeConfig) -> None:
        self._item: Any = None
        if serve.rate_limit is None:
            return
        from limits import parse
        from limits.storage import MemoryStorage
        from limits.strategies import SlidingWindowCounterRateLimiter
        from tidemill_core.errors import ConfigError

        try:
            self._item = parse(serve.rate_limit)
        except ValueError as error:
            raise ConfigError(f"serve.rate_limit {serve.rate_limit!r}: {error}; write 100/minute") from error
        self._strategy = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, key: str) -> Quota | None:
        if self._item is None:
            return None
        is_allowed = self._strategy.hit(self._item, key)
        stats = self._strategy.get_window_stats(self._item, key)
        reset_s = max(1, int(stats.reset_time - time.time()) + 1)
        return Quota(
            limit=self._item.amount,
            remaining=max(0, int(stats.remaining)),
            reset_s=reset_s,
            is_exceeded=not is_allowed,
        )
