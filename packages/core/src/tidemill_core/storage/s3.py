"""S3 and compatible stores over its REST API, exact for every key."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import md5
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.extras import needs_extra
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, in_parallel, part_size, parts_of
from tidemill_core.storage._http import Endpoint, Reply, Request, byte_range, http_date, sliced
from tidemill_core.storage._listing import parse
from tidemill_core.storage._sigv4 import Credentials, signer
from tidemill_core.storage._streams import resumed
from tidemill_core.storage.errors import StoreRefused, StoreUnavailable

PART_BYTES = 16 << 20
"""Larger bodies are sent in parts of at least this size."""
PAGE_KEYS = 1_000
"""Keys per listing request."""
_MOST_PARTS = 10_000
_DELETE_AT_ONCE = 1_000
_META = "x-amz-meta-"
_UNSATISFIABLE = frozenset({int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)})
_MISSING = frozenset({int(HTTPStatus.NOT_FOUND)})


def open_s3(url: str, options: StorageOptions) -> S3Store:
    """Open ``s3://bucket/prefix``.

    Credentials come from the options, else from AWS's own chain (environment, files,
    instance role); with neither, requests are anonymous.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{url!r} needs a bucket: s3://bucket/prefix")
    return S3Store(bucket, prefix.strip("/"), _access(options))


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Access:
    """Where S3 is and who we are."""

    endpoint_url: str | None
    region: str
    credentials: Callable[[], Credentials | None]


class S3Store:
    """Objects in one bucket, under a prefix; see `ObjectStore` for the contract.

    Every PUT carries its CRC-32, which the store compares with what arrived.
    """

    def __init__(self, bucket: str, prefix: str, access: S3Access) -> None:
        self._bucket, self._access = bucket, access
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"s3://{bucket}/{prefix}".rstrip("/")
        base_url = _base_url(bucket, access)
        host, path = base_url.partition("://")[2].partition("/")[::2]
        base_path = f"/{path}" if path else ""
        sign = signer(access.credentials, host=host, base_path=base_path, region=access.region)
        self._endpoint = Endpoint(base_url, self._url, sign)

    @property
    def url(self) -> str:
        """Where keys begin."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """Everything."""
        return Capabilities()

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield objects by ListObjectsV2, 1,000 a request, ascending by UTF-8 key."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._base + prefix, "max-keys": str(PAGE_KEYS)}
        if start_after:
            query["start-after"] = self._base + start_after
        doing, skip = f"list {prefix!r}", len(self._base)
        while True:
            reply = self._endpoint.send(Request(method="GET", path="", query=query, doing=doing))
            page = parse(reply.body, self._url, doing)
            is_encoded = page.text("EncodingType") == "url"
            for key, size, etag, modified in page.rows("Contents", ("Key", "Size", "ETag", "LastModified")):
                name = unquote_plus(key) if is_encoded and ("%" in key or "+" in key) else key
                if len(name) > skip:
                    yield ObjectInfo(
                        key=name[skip:],
                        size_bytes=int(size),
                        etag=_etag(etag),
                        modified_at=datetime.fromisoformat(modified),
                    )
            if page.text("IsTruncated") != "true":
                return
            query = {**query, "continuation-token": page.text("NextContinuationToken")}

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return self._described(key, self._endpoint.send(self._request("HEAD", key, "read")))

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end)."""
        if end is not None and end <= start:
            self.head(key)
            return b""
        headers = {**byte_range(start, end), **_if_match(if_match)}
        reply = self._endpoint.send(self._request("GET", key, "read", headers=headers), also=_UNSATISFIABLE)
        return sliced(reply, start, end)

    def fetch(self, key: str, *, if_match: str | None = None) -> tuple[ObjectInfo, bytes]:
        """Read and describe one object by one request."""
        reply = self._endpoint.send(self._request("GET", key, "read", headers=_if_match(if_match)))
        return self._described(key, reply), reply.body

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in chunks; a broken connection goes on at the same byte of the same version."""

        def ask(start: int, etag: str | None) -> Request:
            headers = {**byte_range(start, None), **_if_match(etag)}
            return self._request("GET", key, "read", headers=headers)

        return resumed(self._endpoint, ask, chunk_bytes, if_match)

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
        """Write an object, in parts if it is large."""
        conditions = {"If-None-Match": "*"} if if_absent else _if_match(if_match)
        about = {"Content-Type": content_type or "application/octet-stream", **self._meta(key, metadata)}
        part_bytes = part_size(body, PART_BYTES, _MOST_PARTS)
        parts = parts_of(body, part_bytes)
        first = next(parts)
        if len(first) < part_bytes:
            reply = self._put_once(key, first, {**about, **conditions})
            return self._written(key, len(first), _etag(reply.headers.get("ETag")), reply, content_type, metadata)
        return self._put_parts(key, _chained(first, parts), about, conditions, content_type, metadata)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, 1,000 a request."""
        remaining = iter(keys)
        while batch := list(islice(remaining, _DELETE_AT_ONCE)):
            named = [key for key in batch if len(batch) > 1 and _is_xml(key)]
            if named:
                self._delete_many(named)
            alone = batch if not named else [key for key in batch if not _is_xml(key)]
            for key in alone:
                self._endpoint.send(self._request("DELETE", key, "delete"), also=_MISSING)

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy on the server (up to 5 GiB), metadata included."""
        checked_key(self._url, target_key)
        source = "/" + quote(f"{self._bucket}/{self._base}{source_key}", safe="/~")
        request = Request(
            method="PUT",
            path=self._path(target_key),
            headers={"x-amz-copy-source": source},
            doing=f"copy {source_key!r} to {target_key!r}",
            key=source_key,
        )
        parse(self._endpoint.send(request).body, self._url, request.doing)
        return self.head(target_key)

    def uri(self, key: str) -> str:
        """The ``s3://`` URL of one object."""
        return f"{self._url}/{key}"

    def reader_options(self) -> dict[str, str]:
        """Keys, region and endpoint in polars' words."""
        options = {"aws_region": self._access.region}
        credentials = self._access.credentials()
        if credentials is None:
            options["aws_skip_signature"] = "true"
        else:
            options |= {"aws_access_key_id": credentials.access_key, "aws_secret_access_key": credentials.secret_key}
            if credentials.token:
                options["aws_session_token"] = credentials.token
        if self._access.endpoint_url:
            options |= {"aws_endpoint_url": self._access.endpoint_url, "aws_virtual_hosted_style_request": "false"}
            if self._access.endpoint_url.startswith("http://"):
                options["aws_allow_http"] = "true"
        return options

    def _put_once(self, key: str, body: bytes | memoryview, headers: Mapping[str, str]) -> Reply:
        is_conditional = any(name.startswith("If-") for name in headers)
        request = self._request(
            "PUT",
            key,
            "write",
            headers={**headers, "x-amz-checksum-crc32": _crc32(body)},
            body=body,
            is_repeatable=not is_conditional,
        )
        return self._conditional(request)

    def _put_parts(
        self,
        key: str,
        parts: Iterable[bytes | memoryview],
        about: Mapping[str, str],
        conditions: Mapping[str, str],
        content_type: str | None,
        metadata: Mapping[str, str] | None,
    ) -> ObjectInfo:
        """Write a large object as a multipart upload, and abort it on any error."""
        algorithm = {"x-amz-checksum-algorithm": "CRC32"}
        begin = self._request("POST", key, "write", query={"uploads": ""}, headers={**about, **algorithm})
        upload = parse(self._endpoint.send(begin).body, self._url, begin.doing).text("UploadId")

        def send(number: int, part: bytes | memoryview) -> tuple[int, str]:
            checksum = _crc32(part)
            query = {"partNumber": str(number), "uploadId": upload}
            headers = {"x-amz-checksum-crc32": checksum}
            reply = self._endpoint.send(self._request("PUT", key, "write", query=query, headers=headers, body=part))
            return len(part), (
                f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(reply.headers['ETag'])}</ETag>"
                f"<ChecksumCRC32>{checksum}</ChecksumCRC32></Part>"
            )

        try:
            sent = in_parallel(send, parts)
            body = f"<CompleteMultipartUpload>{''.join(xml for _, xml in sent)}</CompleteMultipartUpload>".encode()
            finish = self._request(
                "POST", key, "write", query={"uploadId": upload}, headers=conditions, body=body, is_repeatable=False
            )
            reply = self._conditional(finish)
            etag = _etag(parse(reply.body, self._url, finish.doing).text("ETag"))
        except BaseException:  # undone whatever it was, and raised again
            self._abort(key, upload)
            raise
        return self._written(key, sum(size for size, _ in sent), etag, reply, content_type, metadata)

    def _abort(self, key: str, upload: str) -> None:
        from contextlib import suppress

        with suppress(StorageError):  # the first error is the one to tell
            request = self._request("DELETE", key, "abort the upload of", query={"uploadId": upload})
            self._endpoint.send(request, also=_MISSING)

    def _conditional(self, request: Request) -> Reply:
        """Send a write; S3 answers 409 to one of two concurrent conditional writes, which may be sent again."""
        try:
            return self._endpoint.send(request)
        except ObjectNotFound as error:
            if "If-Match" in request.headers:
                raise PreconditionFailed(self._url, error.key) from error
            raise
        except StoreRefused as error:
            if error.status == HTTPStatus.CONFLICT and "ConditionalRequestConflict" in str(error):
                raise StoreUnavailable(
                    self._url, request.doing, "a concurrent conditional write is going on"
                ) from error
            raise

    def _delete_many(self, keys: Sequence[str]) -> None:
        items = "".join(f"<Object><Key>{_xml_text(self._base + key)}</Key></Object>" for key in keys)
        body = f"<Delete><Quiet>true</Quiet>{items}</Delete>".encode()
        digest = b64encode(md5(body, usedforsecurity=False).digest()).decode()
        request = Request(
            method="POST",
            path="",
            query={"delete": ""},
            headers={"Content-MD5": digest, "Content-Type": "application/xml"},
            body=body,
            doing=f"delete {len(keys)} objects",
        )
        answer = parse(self._endpoint.send(request).body, self._url, request.doing)
        for error in answer.children("Error"):
            if error.text("Code") != "NoSuchKey":
                reason = f"{error.text('Key')!r}: {error.text('Code')} {error.text('Message')}"
                raise StoreRefused(self._url, request.doing, reason=reason)

    def _request(self, method: str, key: str, verb: str, **more: Any) -> Request:
        checked_key(self._url, key)
        return Request(method=method, path=self._path(key), doing=f"{verb} {key!r}", key=key, **more)

    def _path(self, key: str) -> str:
        return "/" + quote(self._base + key, safe="/~")

    def _meta(self, key: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
        for name, value in (metadata or {}).items():
            if not (name.isascii() and value.isascii() and value.isprintable()):
                raise StoreRefused(self._url, f"write {key!r}", reason=f"metadata {name!r} must be printable ASCII")
        return {f"{_META}{name}": value for name, value in (metadata or {}).items()}

    def _described(self, key: str, reply: Reply) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=int(reply.headers.get("Content-Length") or 0),
            etag=_etag(reply.headers.get("ETag")),
            modified_at=http_date(reply.headers.get("Last-Modified")),
            content_type=reply.headers.get("Content-Type"),
            metadata={
                name.lower().removeprefix(_META): value
                for name, value in reply.headers.items()
                if name.lower().startswith(_META)
            },
        )

    def _written(
        self,
        key: str,
        size: int,
        etag: str | None,
        reply: Reply,
        content_type: str | None,
        metadata: Mapping[str, str] | None,
    ) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=etag,
            modified_at=http_date(reply.headers.get("Date")),
            content_type=content_type,
            metadata=dict(metadata or {}),
        )


def _access(options: StorageOptions) -> S3Access:
    if options.s3_access_key_id and options.s3_secret_access_key:
        given = Credentials(
            access_key=options.s3_access_key_id, secret_key=options.s3_secret_access_key.get_secret_value()
        )
        return S3Access(endpoint_url=options.s3_endpoint_url, region=_region(options), credentials=lambda: given)
    return S3Access(endpoint_url=options.s3_endpoint_url, region=_region(options), credentials=_Chain())


def _region(options: StorageOptions) -> str:
    import os

    if options.s3_region or options.s3_endpoint_url:
        return options.s3_region or "us-east-1"
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


class _Chain:
    """AWS's own search for credentials, refreshed by botocore before they expire."""

    def __init__(self) -> None:
        self._found: Any = None
        self._is_sought = False

    def __call__(self) -> Credentials | None:
        if not self._is_sought:
            with needs_extra():
                from botocore.session import Session  # type: ignore[import-untyped]

            self._found = Session().get_credentials()
            self._is_sought = True
        if self._found is None:
            return None
        frozen = self._found.get_frozen_credentials()
        return Credentials(access_key=frozen.access_key, secret_key=frozen.secret_key, token=frozen.token)


def _base_url(bucket: str, access: S3Access) -> str:
    """Path style at an endpoint and for dotted names (TLS), else the bucket's own host."""
    if access.endpoint_url:
        return f"{access.endpoint_url.rstrip('/')}/{bucket}"
    if "." in bucket:
        return f"https://s3.{access.region}.amazonaws.com/{bucket}"
    return f"https://{bucket}.s3.{access.region}.amazonaws.com"


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": f'"{etag}"'}


def _etag(text: str | None) -> str | None:
    return text.strip().removeprefix("W/").strip('"') if text else None


def _crc32(body: bytes | memoryview) -> str:
    return b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def _is_xml(key: str) -> bool:
    """Tell whether XML 1.0 can carry a key: no control characters but tab, newline and return."""
    return all(char >= " " or char in "\t\n\r" for char in key) and "\ufffe" not in key and "\uffff" not in key


def _xml_text(key: str) -> str:
    return escape(key, {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;"})


def _chained(first: bytes | memoryview, rest: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    yield first
    yield from rest
