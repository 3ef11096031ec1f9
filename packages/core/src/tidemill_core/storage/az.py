"""Azure Blob Storage (block blobs) over its REST API."""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from itertools import chain
from time import sleep
from typing import Any
from urllib.parse import quote, unquote

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._azure import AzureAccess
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, in_parallel, part_size, parts_of
from tidemill_core.storage._http import Endpoint, Reply, Request, byte_range, http_date, sliced
from tidemill_core.storage._listing import Xml, parse
from tidemill_core.storage._objects import (
    MISSING,
    UNSATISFIABLE,
    bucket_and_prefix,
    clean_etag,
    conditions,
    delete_each,
    described,
    is_conditional,
    lost_race,
    md5_base64,
    metadata_headers,
)
from tidemill_core.storage._objects import if_match as if_match_header
from tidemill_core.storage._streams import resumed
from tidemill_core.storage._uploads import SentPart, Upload, send_missing
from tidemill_core.storage.errors import KeyRefused, StoreRefused

PART_BYTES = 6 << 20
"""Larger bodies are staged as blocks of at least this size."""
PAGE_KEYS = 5_000
"""Keys per listing request."""
_MOST_PARTS = 50_000
_META = "x-ms-meta-"
_NAME = re.compile(r"\$(root|web|logs)|[a-z0-9](-?[a-z0-9]){0,62}")


def open_az(url: str, options: StorageOptions) -> AzStore:
    """Open ``az://container/prefix``.

    Account and identity come from the options, else from ``AZURE_STORAGE_*``, else from
    azure-identity's chain (service principal, workload or managed identity, az login).

    Raises:
        ConfigError: The name is none, no account is named, or the options contradict each other.
    """
    container, prefix = bucket_and_prefix(url, "container")
    if not _NAME.fullmatch(container):
        raise ConfigError(f"{url!r}: {container!r} is no container's name; they are of a-z, 0-9 and '-'")
    return AzStore(container, prefix, AzureAccess(f"az://{container}/{prefix}".rstrip("/"), container, options))


class AzStore:
    """Block blobs in one container, under a prefix; see `ObjectStore` for the contract."""

    def __init__(self, container: str, prefix: str, access: AzureAccess) -> None:
        self._access = access
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"az://{container}/{prefix}".rstrip("/")
        self._endpoint = Endpoint(self._url, access)

    @property
    def url(self) -> str:
        """Where keys begin."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """All but some keys: Azure reads a backslash as a slash and resolves dot segments."""
        return Capabilities(any_key=False)

    def list(self, prefix: str = "", *, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield blobs, 5,000 a request, ascending by UTF-8 key; what precedes `start_after` is read and dropped."""
        query = {"restype": "container", "comp": "list", "prefix": self._base + prefix, "maxresults": str(PAGE_KEYS)}
        doing = f"list {prefix!r}"
        while True:
            reply = self._endpoint.send(Request(method="GET", path="", query=query, doing=doing))
            page = parse(reply.body, self._url, doing)
            for blob in ((blobs := page.child("Blobs")) is not None and blobs.children("Blob")) or ():
                info = self._listed(blob)
                if info.key and (start_after is None or info.key > start_after):
                    yield info
            marker = page.text("NextMarker")
            if not marker:
                return
            query = {**query, "marker": marker}

    def head(self, key: str) -> ObjectInfo:
        """Describe one blob."""
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
        """Read a blob in chunks; a broken connection goes on at the same byte of the same version."""

        def ask(start: int, etag: str | None) -> Request:
            return self._request("GET", key, "read", headers={**byte_range(start, None), **if_match_header(etag)})

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
        """Write a block blob, from staged blocks if it is large."""
        about = self._write_headers(key, conditions(if_absent=if_absent, etag=if_match), content_type, metadata)
        part_bytes = part_size(body, PART_BYTES, _MOST_PARTS)
        parts = parts_of(body, part_bytes)
        first = next(parts)
        with self._lost_races(key, if_absent=if_absent, if_match=if_match):
            if len(first) < part_bytes:
                size, reply = len(first), self._put_once(key, first, about)
            else:
                size, reply = self._put_blocks(key, first, parts, about)
        return self._written(key, size, reply, about, metadata)

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
        """Write a blob from staged blocks; those that the store still has are not sent again."""
        about = self._write_headers(key, conditions(if_absent=if_absent, etag=if_match), content_type, metadata)
        kept = self._still_there(key, upload)
        upload_id = upload.upload_id if kept else None
        if upload_id is None:
            upload_id = secrets.token_hex(8)
            upload.began(upload_id)
        sent = send_missing(upload, kept, lambda number, part: self._stage(key, upload_id, number, part))
        with self._lost_races(key, if_absent=if_absent, if_match=if_match):
            reply = self._commit(key, sent, about)
        return self._written(key, upload.size_bytes, reply, about, metadata)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Do nothing: Azure drops staged blocks after a week, or with the blob's next write, and not on demand."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete blobs, a few at a time."""
        delete_each(keys, lambda key: self._endpoint.send(self._request("DELETE", key, "delete"), also=MISSING))

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy on the server, and wait until it is done."""
        place = self._access.place()
        # The source is read by what its URL says, so that a SAS has to stand there, too.
        source = f"{place.origin}{place.path}{self._path(source_key)}" + (f"?{place.query}" if place.query else "")
        request = self._request("PUT", target_key, "write", headers={"x-ms-copy-source": source})
        try:
            reply = self._endpoint.send(request)
        except ObjectNotFound as error:
            raise ObjectNotFound(self._url, source_key) from error
        while reply.headers.get("x-ms-copy-status") == "pending":
            sleep(0.2)
            reply = self._endpoint.send(self._request("HEAD", target_key, "read"))
        if reply.headers.get("x-ms-copy-status") not in {None, "success"}:
            reason = reply.headers.get("x-ms-copy-status-description", "")
            raise StoreRefused(self._url, f"copy {source_key!r}", reason=reason)
        return self.head(target_key)

    def uri(self, key: str) -> str:
        """The ``az://`` URL of one blob."""
        return f"{self._url}/{key}"

    def reader_options(self) -> dict[str, Any]:
        """Account, identity and endpoint in polars' words; a token is renewed."""
        identity = self._access.identity
        options = {
            "azure_storage_account_name": identity.account,
            "azure_storage_endpoint": identity.endpoint_url,
            **({"azure_allow_http": "true"} if identity.endpoint_url.startswith("http://") else {}),
            **_READER_IDENTITY[identity.kind](identity.secret),
        }
        provider = self._reader_token if identity.kind == "entra" else None
        return {"storage_options": options, "credential_provider": provider}

    def _reader_token(self) -> tuple[dict[str, str | None], int | None]:
        """The token of the time and its end, as polars asks for them during a long scan."""
        return {"bearer_token": self._access.token()}, self._access.expires_at()

    def _write_headers(
        self,
        key: str,
        condition: Mapping[str, str],
        content_type: str | None,
        metadata: Mapping[str, str] | None,
    ) -> dict[str, str]:
        return {
            "x-ms-blob-content-type": content_type or "application/octet-stream",
            **metadata_headers(self._url, key, metadata, prefix=_META, is_identifier=True),
            **condition,
        }

    @contextmanager
    def _lost_races(self, key: str, *, if_absent: bool, if_match: str | None) -> Iterator[None]:
        """Tell what Azure answers to a write whose condition does not hold, in the contract's word."""
        try:
            yield
        except ObjectNotFound as error:
            raise lost_race(self._url, error, if_match) from error
        except StoreRefused as error:
            if if_absent and "BlobAlreadyExists" in str(error):
                raise PreconditionFailed(self._url, key) from error
            raise

    def _written(
        self, key: str, size: int, reply: Reply, about: Mapping[str, str], metadata: Mapping[str, str] | None
    ) -> ObjectInfo:
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=clean_etag(reply.headers.get("ETag")),
            modified_at=http_date(reply.headers.get("Last-Modified")),
            content_type=about["x-ms-blob-content-type"],
            metadata=dict(metadata or {}),
        )

    def _put_once(self, key: str, body: bytes | memoryview, headers: Mapping[str, str]) -> Reply:
        more = {"x-ms-blob-type": "BlockBlob", "Content-MD5": md5_base64(body)}
        return self._endpoint.send(
            self._request(
                "PUT", key, "write", headers={**headers, **more}, body=body, is_repeatable=not is_conditional(headers)
            )
        )

    def _put_blocks(
        self, key: str, first: bytes | memoryview, rest: Iterator[bytes | memoryview], headers: Mapping[str, str]
    ) -> tuple[int, Reply]:
        """Stage blocks a few at a time, then commit their list; blocks never committed expire by themselves."""
        upload_id = secrets.token_hex(8)
        staged = in_parallel(lambda number, part: self._stage(key, upload_id, number, part), chain([first], rest))
        return sum(each.size_bytes for each in staged), self._commit(key, staged, headers)

    def _stage(self, key: str, upload_id: str, number: int, part: bytes | memoryview) -> SentPart:
        # All blocks of a blob, those of other uploads included, must have names of one length.
        block, checksum = b64encode(f"{upload_id}-{number:06}".encode()).decode(), md5_base64(part)
        query, headers = {"comp": "block", "blockid": block}, {"Content-MD5": checksum}
        self._endpoint.send(self._request("PUT", key, "write", query=query, headers=headers, body=part))
        return SentPart(number=number, size_bytes=len(part), etag=block, checksum=checksum)

    def _commit(self, key: str, parts: Iterable[SentPart], headers: Mapping[str, str]) -> Reply:
        blocks = "".join(f"<Latest>{each.etag}</Latest>" for each in parts)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()
        query = {"comp": "blocklist"}
        request = self._request("PUT", key, "write", query=query, headers=headers, body=body, is_repeatable=False)
        return self._endpoint.send(request)

    def _still_there(self, key: str, upload: Upload) -> dict[int, SentPart]:
        """The told parts that the store holds as staged blocks; another write to the blob has dropped them all."""
        if upload.upload_id is None:
            return {}
        query = {"comp": "blocklist", "blocklisttype": "uncommitted"}
        request = self._request("GET", key, "list the parts of", query=query)
        try:
            answer = parse(self._endpoint.send(request).body, self._url, request.doing)
        except ObjectNotFound:
            return {}
        listed = answer.child("UncommittedBlocks")
        staged = {block.text("Name"): block.text("Size") for block in (listed and listed.children("Block")) or ()}
        return {number: part for number, part in upload.parts.items() if staged.get(part.etag) == str(part.size_bytes)}

    def _request(self, method: str, key: str, verb: str, **more: Any) -> Request:
        checked_key(self._url, key)
        if "\\" in key or any(segment in {".", ".."} for segment in key.split("/")):
            raise KeyRefused(self._url, key, "Azure would store it under another name")
        return Request(method=method, path=self._path(key), doing=f"{verb} {key!r}", key=key, **more)

    def _path(self, key: str) -> str:
        return "/" + quote(self._base + key, safe="/~")

    def _listed(self, blob: Xml) -> ObjectInfo:
        name, properties = blob.child("Name"), blob.child("Properties")
        assert name is not None
        assert properties is not None
        text = unquote(name.own_text()) if name.attribute("Encoded") == "true" else name.own_text()
        return ObjectInfo(
            key=text[len(self._base) :],
            size_bytes=int(properties.text("Content-Length")),
            etag=clean_etag(properties.text("Etag")),
            modified_at=parsedate_to_datetime(properties.text("Last-Modified")),
            content_type=properties.text("Content-Type") or None,
        )


_READER_IDENTITY: Mapping[str, Callable[[str], dict[str, str]]] = {
    "key": lambda secret: {"azure_storage_account_key": secret},
    "sas": lambda secret: {"azure_storage_sas_token": secret},
    "anonymous": lambda _: {"azure_skip_signature": "true"},
    "entra": lambda _: {},
}
"""What polars calls the secret of an identity."""
