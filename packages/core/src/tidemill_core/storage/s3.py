"""S3 and compatible stores over its REST API, exact for every key."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import md5
from http import HTTPStatus
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed, StorageError
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._aws import AwsAccess
from tidemill_core.storage._aws_hosts import AccessPoint, Bucket, split_url
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo, Page
from tidemill_core.storage._bodies import checked_key, in_parallel, part_size, parts_of
from tidemill_core.storage._http import Endpoint, Reply, Request, byte_range, http_date, sliced
from tidemill_core.storage._listing import Columns, columns, parse
from tidemill_core.storage._objects import (
    MISSING,
    UNSATISFIABLE,
    clean_etag,
    conditions,
    delete_each,
    described,
    is_conditional,
    lost_race,
    metadata_headers,
)
from tidemill_core.storage._objects import if_match as if_match_header
from tidemill_core.storage._streams import resumed
from tidemill_core.storage._uploads import SentPart, Upload, send_missing
from tidemill_core.storage.errors import StoreRefused, StoreUnavailable

PART_BYTES = 6 << 20
"""Larger bodies are sent in parts of at least this size."""
PAGE_KEYS = 1_000
"""Keys per listing request."""
_MOST_PARTS = 10_000
_DELETE_AT_ONCE = 1_000
_PASSING = frozenset({"InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"})
"""Codes of single keys, inside a 200, that may pass by themselves."""
_META = "x-amz-meta-"
_NOT_OURS = frozenset({int(HTTPStatus.FORBIDDEN), int(HTTPStatus.NOT_FOUND)})


def open_s3(url: str, options: StorageOptions) -> S3Store:
    """Open ``s3://bucket/prefix``, or ``s3://`` and the ARN of an access point.

    Keys, region, endpoint and the rest come from the options, else from AWS's own chain
    (environment, profile, container or instance role).

    Raises:
        ConfigError: The name is none, or the options contradict each other.
    """
    bucket, prefix = split_url(url)
    name = bucket.arn if isinstance(bucket, AccessPoint) else bucket.name
    store_url = f"s3://{name}/{prefix}".rstrip("/")
    return S3Store(bucket, prefix, AwsAccess(store_url, bucket, options), _encryption(options))


class S3Store:
    """Objects in one bucket, under a prefix; see `ObjectStore` for the contract.

    Every PUT carries its CRC-32, which the store compares with what arrived.
    """

    def __init__(self, bucket: Bucket, prefix: str, access: AwsAccess, encryption: Mapping[str, str]) -> None:
        self._bucket, self._access, self._encryption = bucket, access, encryption
        self._base = f"{prefix}/" if prefix else ""
        name = bucket.arn if isinstance(bucket, AccessPoint) else bucket.name
        self._url = f"s3://{name}/{prefix}".rstrip("/")
        self._endpoint = Endpoint(self._url, access)

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
        for page in self.list_pages(prefix, start_after=start_after):
            yield from map(page.info, range(len(page.keys)))

    def list_pages(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[Page]:
        """Yield the same by pages."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._base + prefix, "max-keys": str(PAGE_KEYS)}
        if start_after:
            query["start-after"] = self._base + start_after
        doing = f"list {prefix!r}"
        while True:
            reply = self._endpoint.send(Request(method="GET", path="", query=query, doing=doing))
            found = columns(reply.body, self._url, doing)
            if found.keys:
                yield self._page(found)
            if found.token is None:
                return
            query = {**query, "continuation-token": found.token}

    def _page(self, found: Columns) -> Page:
        keys, sizes, etags, modified = found.keys, list(map(int, found.sizes)), found.etags, found.modified
        if found.is_encoded:
            keys = [unquote_plus(key) if "%" in key or "+" in key else key for key in keys]
        if self._base and self._base in keys:  # the prefix itself is an object, but none under it
            own = keys.index(self._base)
            for column in (keys, sizes, etags, modified):
                del column[own]
        if skip := len(self._base):
            keys = [key[skip:] for key in keys]
        bare = [each.strip('"') if each[:1] == '"' else clean_etag(each) for each in etags]

        def info(index: int) -> ObjectInfo:
            return ObjectInfo(
                key=keys[index],
                size_bytes=sizes[index],
                etag=bare[index],
                modified_at=datetime.fromisoformat(modified[index]),
            )

        return Page(keys=keys, sizes_bytes=sizes, etags=bare, info=info)

    def head(self, key: str) -> ObjectInfo:
        """Describe one object."""
        return described(key, self._endpoint.send(self._request("HEAD", key, "read")), meta_prefix=_META)

    def get(self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None) -> bytes:
        """Read bytes [start, end)."""
        if end is not None and end <= start:
            self.head(key)
            return b""
        headers = {**byte_range(start, end), **if_match_header(if_match)}
        reply = self._endpoint.send(self._request("GET", key, "read", headers=headers), also=UNSATISFIABLE)
        return sliced(reply, start, end)

    def fetch(self, key: str, *, if_match: str | None = None) -> tuple[ObjectInfo, bytes]:
        """Read and describe one object by one request."""
        reply = self._endpoint.send(self._request("GET", key, "read", headers=if_match_header(if_match)))
        return described(key, reply, meta_prefix=_META), reply.body

    def stream(self, key: str, *, chunk_bytes: int = 8 << 20, if_match: str | None = None) -> Iterator[bytes]:
        """Read an object in chunks; a broken connection goes on at the same byte of the same version."""

        def ask(start: int, etag: str | None) -> Request:
            headers = {**byte_range(start, None), **if_match_header(etag)}
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
        condition = conditions(if_absent=if_absent, etag=if_match)
        about = {
            "Content-Type": content_type or "application/octet-stream",
            **self._encryption,
            **metadata_headers(self._url, key, metadata, prefix=_META),
        }
        part_bytes = part_size(body, PART_BYTES, _MOST_PARTS)
        parts = parts_of(body, part_bytes)
        first = next(parts)
        if len(first) < part_bytes:
            reply = self._put_once(key, first, {**about, **condition})
            return self._written(key, len(first), clean_etag(reply.headers.get("ETag")), reply, content_type, metadata)
        return self._put_parts(key, _chained(first, parts), about, condition, content_type, metadata)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects, 1,000 a request."""
        remaining = iter(keys)
        while batch := list(islice(remaining, _DELETE_AT_ONCE)):
            named = [key for key in batch if len(batch) > 1 and _is_xml(key)]
            if named:
                self._delete_many(named)
            alone = batch if not named else [key for key in batch if not _is_xml(key)]
            delete_each(alone, self._delete_one)

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy on the server (up to 5 GiB), metadata included."""
        checked_key(self._url, target_key)
        source = quote(f"{self._bucket.copy_source}/{self._base}{source_key}", safe="/~:")
        request = Request(
            method="PUT",
            path=self._path(target_key),
            headers={"x-amz-copy-source": source, **self._encryption},
            doing=f"copy {source_key!r} to {target_key!r}",
            key=source_key,
        )
        parse(self._endpoint.send(request).body, self._url, request.doing)
        return self.head(target_key)

    def uri(self, key: str) -> str:
        """The ``s3://`` URL of one object."""
        return f"{self._url}/{key}"

    def reader_options(self) -> dict[str, Any]:
        """Keys that are renewed, region and endpoint in polars' words.

        Raises:
            ConfigError: The store is an access point given by its ARN, which polars cannot reach.
        """
        if self._bucket.account:
            raise ConfigError(f"{self._url}: polars cannot read by an ARN; use the access point's alias as the bucket")
        access = self._access
        anywhere = Request(method="HEAD", path="", doing="find the region")
        access.make_sure(lambda: self._endpoint.send(anywhere, also=_NOT_OURS))
        site, place = access.site, access.place()
        options = {"aws_region": site.region}
        if access.keys() is None:
            options["aws_skip_signature"] = "true"
        if self._access.pays:
            options["aws_request_payer"] = "true"
        if site.endpoint_url or site.is_fips or site.is_dual_stack:
            is_path = place.path.endswith(f"/{self._bucket.name}")
            base = f"{place.origin}{place.path.removesuffix(f'/{self._bucket.name}') if is_path else place.path}"
            options |= {"aws_endpoint_url": base, "aws_virtual_hosted_style_request": str(not is_path).lower()}
        if place.origin.startswith("http://"):
            options["aws_allow_http"] = "true"
        provider = None if access.keys() is None else self._reader_keys
        return {"storage_options": options, "credential_provider": provider}

    def _reader_keys(self) -> tuple[dict[str, str | None], int | None]:
        """The keys of the time and their end, as polars asks for them during a long scan."""
        keys = self._access.keys()
        assert keys is not None
        found = {"aws_access_key_id": keys.access_key, "aws_secret_access_key": keys.secret_key}
        return {**found, "aws_session_token": keys.token}, self._access.expires_at()

    def _put_once(self, key: str, body: bytes | memoryview, headers: Mapping[str, str]) -> Reply:
        request = self._request(
            "PUT",
            key,
            "write",
            headers={**headers, "x-amz-checksum-crc32": _crc32(body)},
            body=body,
            is_repeatable=not is_conditional(headers),
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
        upload = self._begin(key, about)
        try:
            sent = in_parallel(lambda number, part: self._send_part(key, upload, number, part), parts)
            etag, reply = self._finish(key, upload, sent, conditions)
        except BaseException:  # undone whatever it was, and raised again
            self._abort(key, upload)
            raise
        return self._written(key, sum(each.size_bytes for each in sent), etag, reply, content_type, metadata)

    def put_upload(
        self,
        key: str,
        upload: Upload,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write an object by parts; those that the store still has are not sent again."""
        about = {
            "Content-Type": content_type or "application/octet-stream",
            **self._encryption,
            **metadata_headers(self._url, key, metadata, prefix=_META),
        }
        kept = self._still_there(key, upload)
        upload_id = upload.upload_id if kept is not None else None
        if upload_id is None:
            upload_id = self._begin(key, about)
            upload.began(upload_id)
        sent = send_missing(upload, kept or {}, lambda number, part: self._send_part(key, upload_id, number, part))
        try:
            etag, reply = self._finish(key, upload_id, sent, conditions(if_absent=if_absent, etag=if_match))
        except PreconditionFailed:
            self._abort(key, upload_id)
            raise
        return self._written(key, upload.size_bytes, etag, reply, content_type, metadata)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts."""
        request = self._request("DELETE", key, "abort the upload of", query={"uploadId": upload_id})
        self._endpoint.send(request, also=MISSING)

    def _still_there(self, key: str, upload: Upload) -> dict[int, SentPart] | None:
        """The told parts that the store has too; None if it has no such upload."""
        if upload.upload_id is None:
            return None
        found: dict[int, SentPart] = {}
        query = {"uploadId": upload.upload_id}
        while True:
            request = self._request("GET", key, "list the parts of", query=query)
            try:
                answer = parse(self._endpoint.send(request).body, self._url, request.doing)
            except ObjectNotFound:
                return None
            for number, etag, size in answer.rows("Part", ("PartNumber", "ETag", "Size")):
                told = upload.parts.get(int(number))
                if told is not None and (clean_etag(told.etag), told.size_bytes) == (clean_etag(etag), int(size)):
                    found[told.number] = told
            if answer.text("IsTruncated") != "true":
                return found
            query = {**query, "part-number-marker": answer.text("NextPartNumberMarker")}

    def _begin(self, key: str, about: Mapping[str, str]) -> str:
        headers = {**about, "x-amz-checksum-algorithm": "CRC32"}
        begin = self._request("POST", key, "write", query={"uploads": ""}, headers=headers)
        return parse(self._endpoint.send(begin).body, self._url, begin.doing).text("UploadId")

    def _send_part(self, key: str, upload: str, number: int, part: bytes | memoryview) -> SentPart:
        checksum = _crc32(part)
        query = {"partNumber": str(number), "uploadId": upload}
        headers = {"x-amz-checksum-crc32": checksum}
        reply = self._endpoint.send(self._request("PUT", key, "write", query=query, headers=headers, body=part))
        return SentPart(number=number, size_bytes=len(part), etag=reply.headers["ETag"], checksum=checksum)

    def _finish(
        self, key: str, upload: str, parts: Iterable[SentPart], conditions: Mapping[str, str]
    ) -> tuple[str | None, Reply]:
        listed = "".join(
            f"<Part><PartNumber>{each.number}</PartNumber><ETag>{escape(each.etag)}</ETag>"
            f"<ChecksumCRC32>{each.checksum}</ChecksumCRC32></Part>"
            for each in parts
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        finish = self._request(
            "POST", key, "write", query={"uploadId": upload}, headers=conditions, body=body, is_repeatable=False
        )
        reply = self._conditional(finish)
        return clean_etag(parse(reply.body, self._url, finish.doing).text("ETag")), reply

    def _abort(self, key: str, upload: str) -> None:
        from contextlib import suppress

        with suppress(StorageError):  # the first error is the one to tell
            request = self._request("DELETE", key, "abort the upload of", query={"uploadId": upload})
            self._endpoint.send(request, also=MISSING)

    def _conditional(self, request: Request) -> Reply:
        """Send a write; S3 answers 409 to one of two concurrent conditional writes, which may be sent again."""
        try:
            return self._endpoint.send(request)
        except ObjectNotFound as error:
            raise lost_race(self._url, error, request.headers.get("If-Match")) from error
        except StoreRefused as error:
            if error.status == HTTPStatus.CONFLICT and "ConditionalRequestConflict" in str(error):
                raise StoreUnavailable(
                    self._url, request.doing, "a concurrent conditional write is going on"
                ) from error
            raise

    def _delete_one(self, key: str) -> None:
        self._endpoint.send(self._request("DELETE", key, "delete"), also=MISSING)

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
        failed = [error for error in answer.children("Error") if error.text("Code") != "NoSuchKey"]
        refused = [error for error in failed if error.text("Code") not in _PASSING]
        for error in refused or failed:
            reason = f"{error.text('Key')!r}: {error.text('Code')} {error.text('Message')}"
            if refused:
                raise StoreRefused(self._url, request.doing, reason=reason)
            raise StoreUnavailable(self._url, request.doing, reason)

    def _request(self, method: str, key: str, verb: str, **more: Any) -> Request:
        checked_key(self._url, key)
        return Request(method=method, path=self._path(key), doing=f"{verb} {key!r}", key=key, **more)

    def _path(self, key: str) -> str:
        return "/" + quote(self._base + key, safe="/~")

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


def _encryption(options: StorageOptions) -> dict[str, str]:
    """The headers that ask for server-side encryption."""
    if options.s3_kms_key and options.s3_sse == "AES256":
        raise ConfigError("s3_kms_key is set, but s3_sse is AES256, which uses no key of KMS; set s3_sse to aws:kms")
    method = options.s3_sse or ("aws:kms" if options.s3_kms_key else None)
    headers: dict[str, str] = {"x-amz-server-side-encryption": method} if method else {}
    if options.s3_kms_key:
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = options.s3_kms_key
    return headers


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
