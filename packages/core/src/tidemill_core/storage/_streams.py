"""Read an object over HTTP in order, going on where a broken connection stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus

from tidemill_core.errors import PreconditionFailed
from tidemill_core.storage._http import Endpoint, Request
from tidemill_core.storage.errors import StoreRefused, StoreUnavailable

Ask = Callable[[int, str | None], Request]
"""The request for an object's bytes from a start on, pinned to an etag if there is one."""
_TRIES = 4


def resumed(
    endpoint: Endpoint, ask: Ask, chunk_bytes: int, etag: str | None, *, etag_header: str = "ETag"
) -> Iterator[bytes]:
    """Yield an object's bytes; after the first answer every further request is pinned to its etag.

    Args:
        endpoint: Where to ask.
        ask: Builds a request.
        chunk_bytes: Largest chunk.
        etag: The version wanted; None takes what is there.
        etag_header: Header that names the version in the store's words.

    Raises:
        PreconditionFailed: The object has changed.
        StoreUnavailable: No byte came for several attempts.
    """
    done, failures = 0, 0
    while True:
        request = ask(done, etag)
        before = done
        try:
            response = endpoint.open(request)
            found = (response.headers.get(etag_header) or "").strip('"') or None
            if etag and found and found != etag:
                response.close()
                raise PreconditionFailed(endpoint.store_url, request.key or "")
            etag = etag or found
            # A server or proxy that ignores the range answers 200 with the whole object.
            skip = 0 if response.status == HTTPStatus.PARTIAL_CONTENT else done
            for chunk in endpoint.chunks(response, request, chunk_bytes):
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                done += len(fresh)
                if fresh:
                    yield fresh
        except StoreUnavailable:
            failures = failures + 1 if done == before else 0
            if failures == _TRIES:
                raise
        except StoreRefused as error:
            if error.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and done:
                return
            raise
        else:
            return
