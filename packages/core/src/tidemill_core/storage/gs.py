"""Google Cloud Storage over its JSON API, exact for every key; an etag is the object's generation."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import md5
from http import HTTPStatus
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.extras import needs_extra
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, parts_of
from tidemill_core.storage._http import Endpoint, Headers, Reply, Request, byte_range, sliced
from tidemill_core.storage._streams import resumed
from tidemill_core.storage.errors import StoreUnavailable

PART_BYTES = 16 << 20
"""Larger bodies go through a resumable upload, in parts of this size."""
PAGE_KEYS = 1_000
"""Keys per listing request."""
_GOOGLE = "https://storage.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_FIELDS = "name,size,generation,updated,contentType,metadata"
_UNSATISFIABLE = frozenset({int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)})
_INCOMPLETE = frozenset({int(HTTPStatus.PERMANENT_REDIRECT)})
_MISSING = frozenset({int(HTTPStatus.NOT_FOUND)})


def open_gs(url: str, options: StorageOptions) -> GsStore:
    """Open ``gs://bucket/prefix``.

    Credentials come from the options' key file, else Google's application default; a
    custom endpoint without a key file is asked anonymously.
    """
    bucket, _, prefix = url.removeprefix("gs://").partition("/")
    if not bucket:
        raise ConfigError(f"{url!r} needs a bucket: gs://bucket/prefix")
    return GsStore(bucket, prefix.strip("/"), options)


class GsStore:
    """Objects in one bucket, under a prefix; see `ObjectStore` for the contract."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        self._bucket, self._options = bucket, options
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"gs://{bucket}/{prefix}".rstrip("/")
        is_anonymous = options.gcs_endpoint_url is not None and options.gcs_credentials_file is None
        sign = _anonymous if is_anonymous else _Bearer(options)
        self._endpoint = Endpoint(options.gcs_endpoint_url or _GOOGLE, self._url, sign)

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
        reply = self._endpoint.send(self._media(key, start, end, if_match), also=_UNSATISFIABLE)
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
            if if_match is not None:
                raise PreconditionFailed(self._url, key) from error
            raise
        return self._described(json.loads(reply.body))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, a few at a time."""

        def remove(key: str) -> None:
            self._endpoint.send(self._request("DELETE", key, "delete"), also=_MISSING)

        listed = list(keys)
        with ThreadPoolExecutor(min(16, len(listed)) or 1) as pool:
            for _ in pool.map(remove, listed):
                continue

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

    def reader_options(self) -> dict[str, str]:
        """Key file and endpoint in polars' words."""
        options = {}
        if self._options.gcs_credentials_file is not None:
            options["google_service_account"] = str(self._options.gcs_credentials_file)
        if self._options.gcs_endpoint_url is not None:
            options |= {"google_base_url": self._options.gcs_endpoint_url}
            if self._options.gcs_credentials_file is None:
                options["google_skip_signature"] = "true"
            if self._options.gcs_endpoint_url.startswith("http://"):
                options["allow_http"] = "true"
        return options

    def _put_once(self, key: str, body: bytes | memoryview, resource: bytes, condition: Mapping[str, str]) -> Reply:
        """Send description and bytes in one request (multipart/related); GCS compares the MD5 with what arrived."""
        checked = {**json.loads(resource), "md5Hash": _md5(body)}
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


class _Bearer:
    """Google credentials as a header, refreshed before they expire."""

    def __init__(self, options: StorageOptions) -> None:
        self._file = options.gcs_credentials_file
        self._lock = Lock()
        self._credentials: Any = None

    def __call__(self, request: Request) -> Headers:
        with self._lock:
            if self._credentials is None:
                self._credentials = self._find()
            if not self._credentials.valid:
                import google.auth.transport.urllib3
                import urllib3

                http: Any = google.auth.transport.urllib3
                self._credentials.refresh(http.Request(urllib3.PoolManager()))
            token = self._credentials.token
        return {**request.headers, **_GZIP, "Authorization": f"Bearer {token}"}

    def _find(self) -> Any:
        with needs_extra():
            import google.auth
            from google.auth.exceptions import DefaultCredentialsError
            from google.oauth2 import service_account

        try:
            if self._file is not None:
                credentials: Any = service_account.Credentials
                return credentials.from_service_account_file(str(self._file), scopes=[_SCOPE])
            return google.auth.default(scopes=[_SCOPE])[0]
        except (DefaultCredentialsError, OSError, ValueError) as error:
            raise ConfigError(f"no Google credentials: {error}; set TIDEMILL_GCS_CREDENTIALS_FILE") from error


_GZIP = {"Accept-Encoding": "gzip"}
"""Take stored gzip bytes as they are; without it GCS unpacks them on the way."""


def _anonymous(request: Request) -> Headers:
    return {**request.headers, **_GZIP}


def _md5(body: bytes | memoryview) -> str:
    return b64encode(md5(body, usedforsecurity=False).digest()).decode()


def _if_match(generation: str | None) -> dict[str, str]:
    return {} if generation is None else {"ifGenerationMatch": generation}
