"""Google Cloud Storage over its JSON API, exact for every key; an etag is the object's generation."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, parts_of
from tidemill_core.storage._google import GoogleAccess
from tidemill_core.storage._http import Endpoint, Reply, Request, byte_range, sliced
from tidemill_core.storage._objects import (
    MISSING,
    UNSATISFIABLE,
    bucket_and_prefix,
    delete_each,
    lost_race,
    md5_base64,
)
from tidemill_core.storage._streams import resumed
from tidemill_core.storage.errors import StoreUnavailable

PART_BYTES = 6 << 20
"""Larger bodies go through a resumable upload, in parts of this size."""
PAGE_KEYS = 1_000
"""Keys per listing request."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,221}")
_FIELDS = "name,size,generation,updated,contentType,metadata"
_INCOMPLETE = frozenset({int(HTTPStatus.PERMANENT_REDIRECT)})


def open_gs(url: str, options: StorageOptions) -> GsStore:
    """Open ``gs://bucket/prefix``.

    Credentials come from the options' file (of any kind), else Google's application default;
    an emulator that ``STORAGE_EMULATOR_HOST`` names is asked anonymously.

    Raises:
        ConfigError: The name is none, or the endpoint no URL.
    """
    bucket, prefix = bucket_and_prefix(url, "bucket")
    if not _NAME.fullmatch(bucket):
        raise ConfigError(f"{url!r}: {bucket!r} is no bucket's name; they are of a-z, 0-9, '-', '_' and '.'")
    return GsStore(bucket, prefix, GoogleAccess(f"gs://{bucket}/{prefix}".rstrip("/"), options))


class GsStore:
    """Objects in one bucket, under a prefix; see `ObjectStore` for the contract."""

    def __init__(self, bucket: str, prefix: str, access: GoogleAccess) -> None:
        self._bucket, self._access = bucket, access
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._endpoint = Endpoint(self._url, access)

    @property
    def url(self) -> str:
        """Where keys begin."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """All but line breaks in keys, which GCS refuses."""
        return Capabilities(any_key=False)

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield objects, 1,000 a request, ascending by UTF-8 key."""
        fields = f"items({_FIELDS}),nextPageToken"
        query = {"prefix": self._base + prefix, "maxResults": str(PAGE_KEYS), "fields": fields}
        if start_after:
            query["startOffset"] = self._base + start_after
        while True:
            request = Request(method="GET", path=self._objects(), query=query, doing=f"list {prefix!r}")
            page = json.loads(self._endpoint.send(request).body)
            for item in page.get("items", ()):
                info = self._described(item)
                if info.key and info.key != start_after:
                    yield info
            if not page.get("nextPageToken"):
                return
            query = {**query, "pageToken": page["nextPageToken"]}

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        reply = self._endpoint.send(self._request("GET", key, "read", query={"fields": _FIELDS}))
        return self._described(json.loads(reply.body))

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end)."""
        if end is not None and end <= start:
            self.head(key)
            return b""
        reply = self._endpoint.send(self._media(key, start, end, if_match), also=UNSATISFIABLE)
        if if_match and reply.headers.get("x-goog-generation", if_match) != if_match:
            raise PreconditionFailed(self._url, key)
        return sliced(reply, start, end)

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in chunks; a broken connection goes on at the same byte of the same generation."""
        return resumed(
            self._endpoint,
            lambda start, etag: self._media(key, start, None, etag),
            chunk_bytes,
            if_match,
            etag_header="x-goog-generation",
        )

    def put(
        self,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write an object, through a resumable upload if it is large."""
        checked_key(self._url, key)
        about = {"name": self._base + key, "contentType": content_type or "application/octet-stream"}
        resource = json.dumps({**about, "metadata": dict(metadata or {})}).encode()
        condition = {"ifGenerationMatch": "0"} if if_absent else _if_match(if_match)
        parts = parts_of(body, PART_BYTES)
        first = next(parts)
        try:
            if len(first) < PART_BYTES:
                reply = self._put_once(key, first, resource, condition)
            else:
                reply = self._put_parts(key, first, parts, resource, condition)
        except ObjectNotFound as error:
            raise lost_race(self._url, error, if_match) from error
        return self._described(json.loads(reply.body))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a few at a time."""
        delete_each(keys, lambda key: self._endpoint.send(self._request("DELETE", key, "delete"), also=MISSING))

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy on the server, of any size, metadata included."""
        checked_key(self._url, target_key)
        target = quote(self._base + target_key, safe="")
        path = f"{self._path(source_key)}/rewriteTo/b/{self._bucket}/o/{target}"
        doing = f"copy {source_key!r} to {target_key!r}"
        query: dict[str, str] = {}
        while True:
            request = Request(method="POST", path=path, query=query, doing=doing, key=source_key)
            answer = json.loads(self._endpoint.send(request).body)
            if answer["done"]:
                return self._described(answer["resource"])
            query = {"rewriteToken": answer["rewriteToken"]}

    def uri(self, key: str) -> str:
        """The ``gs://`` URL of one object."""
        return f"{self._url}/{key}"

    def reader_options(self) -> dict[str, Any]:
        """A token that is renewed, and the endpoint, in polars' words; polars sends no quota project."""
        options = {}
        if not self._access.is_google:
            place = self._access.place()
            options["google_base_url"] = f"{place.origin}{place.path}"
            if place.origin.startswith("http://"):
                options["allow_http"] = "true"
        if self._access.is_anonymous:
            return {
                "storage_options": {**options, "google_skip_signature": "true"},
                "credential_provider": None,
            }
        return {"storage_options": options, "credential_provider": self._reader_token}

    def _reader_token(self) -> tuple[dict[str, str | None], int | None]:
        """The token of the time and its end, as polars asks for them during a long scan."""
        return {"bearer_token": self._access.token()}, self._access.expires_at()

    def _put_once(self, key: str, body: bytes | memoryview, resource: bytes, condition: Mapping[str, str]) -> Reply:
        """Send description and bytes in one request (multipart/related); GCS compares the MD5 with what arrived."""
        checked = {**json.loads(resource), "md5Hash": md5_base64(body)}
        boundary = secrets.token_hex(16)
        mark = f"--{boundary}\r\nContent-Type: "
        related = b"".join(
            [
                f"{mark}application/json; charset=UTF-8\r\n\r\n".encode(),
                json.dumps(checked).encode(),
                f"\r\n{mark}{checked['contentType']}\r\n\r\n".encode(),
                body,
                f"\r\n--{boundary}--\r\n".encode(),
            ]
        )
        return self._endpoint.send(
            self._upload(
                "POST",
                key,
                query={"uploadType": "multipart", **condition},
                headers={"Content-Type": f"multipart/related; boundary={boundary}"},
                body=related,
                is_repeatable=not condition,
            )
        )

    def _put_parts(
        self,
        key: str,
        part: bytes | memoryview,
        rest: Iterator[bytes | memoryview],
        resource: bytes,
        condition: Mapping[str, str],
    ) -> Reply:
        """Send one part after the other; a part whose answer was lost is asked about before it is sent again."""
        begin = self._upload(
            "POST",
            key,
            query={"uploadType": "resumable", **condition},
            headers={"Content-Type": "application/json; charset=UTF-8"},
            body=resource,
        )
        session = dict(parse_qsl(urlsplit(self._endpoint.send(begin).headers["Location"]).query))
        sent = 0
        while True:
            following = next(rest, b"")
            end = sent + len(part)
            total = "*" if following else str(end)
            span = f"bytes {sent}-{end - 1}/{total}"
            request = self._upload("PUT", key, query=session, headers={"Content-Range": span}, body=part)
            reply = self._endpoint.send(request, also=_INCOMPLETE)
            if not following:
                if reply.status == HTTPStatus.PERMANENT_REDIRECT:
                    raise StoreUnavailable(self._url, request.doing, "the upload did not complete")
                return reply
            if reply.headers.get("Range", f"bytes=0-{end - 1}").rpartition("-")[2] != str(end - 1):
                raise StoreUnavailable(self._url, request.doing, "a part arrived incomplete")
            part, sent = following, end

    def _upload(self, method: str, key: str, **more: Any) -> Request:
        path = f"/upload/storage/v1/b/{self._bucket}/o"
        return Request(method=method, path=path, doing=f"write {key!r}", key=key, **more)

    def _media(self, key: str, start: int, end: int | None, etag: str | None) -> Request:
        query = {"alt": "media", **_if_match(etag)}
        return self._request("GET", key, "read", query=query, headers=byte_range(start, end))

    def _request(self, method: str, key: str, verb: str, **more: Any) -> Request:
        checked_key(self._url, key)
        return Request(method=method, path=self._path(key), doing=f"{verb} {key!r}", key=key, **more)

    def _objects(self) -> str:
        return f"/storage/v1/b/{self._bucket}/o"

    def _path(self, key: str) -> str:
        return f"{self._objects()}/{quote(self._base + key, safe='')}"

    def _described(self, item: Mapping[str, Any]) -> ObjectInfo:
        return ObjectInfo(
            key=item["name"][len(self._base) :],
            size_bytes=int(item["size"]),
            etag=str(item["generation"]),
            modified_at=datetime.fromisoformat(item["updated"]),
            content_type=item.get("contentType"),
            metadata=item.get("metadata") or {},
        )


def _if_match(generation: str | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": generation}
