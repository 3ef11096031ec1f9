"""What the stores of all clouds do alike: conditions, descriptions, metadata, deletes, names."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from http import HTTPStatus
from itertools import islice

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.storage._base import ObjectInfo
from tidemill_core.storage._http import Reply, http_date
from tidemill_core.storage.errors import StoreRefused

UNSATISFIABLE = frozenset({int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)})
"""The answer to a range behind the object's end."""
MISSING = frozenset({int(HTTPStatus.NOT_FOUND)})
"""The answer to a delete of nothing."""
_DELETES_AT_ONCE = 16
_DELETES_AHEAD = 1_000


def bucket_and_prefix(url: str, what: str) -> tuple[str, str]:
    """Cut ``scheme://bucket/prefix`` into its bucket and its prefix without outer slashes.

    Raises:
        ConfigError: There is no bucket; `what` is the cloud's word for one.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ConfigError(f"{url!r} needs a {what}: {scheme}://{what}/prefix")
    return bucket, prefix.strip("/")


def if_match(etag: str | None) -> dict[str, str]:
    """The header that asks for one version."""
    return {} if etag is None else {"If-Match": f'"{etag}"'}


def conditions(*, if_absent: bool, etag: str | None) -> dict[str, str]:
    """The headers of a conditional write."""
    return {"If-None-Match": "*"} if if_absent else if_match(etag)


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Tell whether a write depends on what is there; such a one is not repeated blindly."""
    return any(name.startswith("If-") for name in headers)


def clean_etag(text: str | None) -> str | None:
    """An etag as callers see it: without quotes and weakness."""
    return text.strip().removeprefix("W/").strip('"') if text else None


def lost_race(url: str, error: ObjectNotFound, etag: str | None) -> ObjectNotFound | PreconditionFailed:
    """What a 404 to a write means: with If-Match, that somebody deleted the object first."""
    return error if etag is None else PreconditionFailed(url, error.key)


def metadata_headers(
    store_url: str, key: str, metadata: Mapping[str, str] | None, *, prefix: str, is_identifier: bool = False
) -> dict[str, str]:
    """Metadata as headers.

    Args:
        store_url: Names the store in errors.
        key: Names the object in errors.
        metadata: The user's names and values.
        prefix: Precedes each name, such as ``x-amz-meta-``.
        is_identifier: The cloud takes only identifiers as names.

    Raises:
        StoreRefused: A header cannot carry a name or a value, or the cloud takes no such name.
    """
    for name, value in (metadata or {}).items():
        if is_identifier and not name.isidentifier():
            raise StoreRefused(store_url, f"write {key!r}", reason=f"metadata {name!r} must be an identifier")
        if not (name.isascii() and name.isprintable() and value.isascii() and value.isprintable()):
            raise StoreRefused(store_url, f"write {key!r}", reason=f"metadata {name!r} must be printable ASCII")
    return {f"{prefix}{name}": value for name, value in (metadata or {}).items()}


def described(key: str, reply: Reply, *, meta_prefix: str) -> ObjectInfo:
    """Read the answer to a HEAD."""
    return ObjectInfo(
        key=key,
        size_bytes=int(reply.headers.get("Content-Length") or 0),
        etag=clean_etag(reply.headers.get("ETag")),
        modified_at=http_date(reply.headers.get("Last-Modified")),
        content_type=reply.headers.get("Content-Type"),
        metadata={
            name.lower().removeprefix(meta_prefix): value
            for name, value in reply.headers.items()
            if name.lower().startswith(meta_prefix)
        },
    )


def delete_each(keys: Iterable[str], remove: Callable[[str], object]) -> None:
    """Delete objects one by one, a few at a time; keys are read a thousand ahead at most.

    Raises:
        BaseException: What the first `remove` that failed raised; those begun are ended, no other is begun.
    """
    remaining: Iterator[str] = iter(keys)
    batch = list(islice(remaining, _DELETES_AHEAD))
    if len(batch) == 1:
        remove(batch[0])
        return
    while batch:
        with ThreadPoolExecutor(min(_DELETES_AT_ONCE, len(batch)), thread_name_prefix="delete") as pool:
            for _ in pool.map(remove, batch):
                continue
        batch = list(islice(remaining, _DELETES_AHEAD))


def md5_base64(body: bytes | memoryview) -> str:
    """The MD5 of a body, which the store compares with what arrived."""
    return b64encode(md5(body, usedforsecurity=False).digest()).decode()
