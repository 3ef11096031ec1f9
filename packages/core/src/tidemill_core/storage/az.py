"""Azure Blob Storage (block blobs) over its REST API."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import sleep
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tidemill_core.errors import ConfigError, ObjectNotFound, PreconditionFailed
from tidemill_core.settings import StorageOptions
from tidemill_core.storage._base import Body, Capabilities, ObjectInfo
from tidemill_core.storage._bodies import checked_key, in_parallel, part_size, parts_of
from tidemill_core.storage._http import Endpoint, Reply, Request, byte_range, http_date, sliced
from tidemill_core.storage._listing import Xml, parse
from tidemill_core.storage._sharedkey import signer
from tidemill_core.storage._streams import resumed
from tidemill_core.storage.errors import KeyRefused, StoreRefused

PART_BYTES = 16 << 20
"""Larger bodies are staged as blocks of at least this size."""
PAGE_KEYS = 5_000
"""Keys per listing request."""
_MOST_PARTS = 50_000
_META = "x-ms-meta-"
_UNSATISFIABLE = frozenset({int(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)})
_MISSING = frozenset({int(HTTPStatus.NOT_FOUND)})


def open_az(url: str, options: StorageOptions) -> AzStore:
    """Open ``az://container/prefix``; account and key come from the options or ``AZURE_STORAGE_*``."""
    import os

    container, _, prefix = url.removeprefix("az://").partition("/")
    account = options.azure_account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    key = options.azure_key.get_secret_value() if options.azure_key else os.environ.get("AZURE_STORAGE_ACCOUNT_KEY")
    if not container:
        raise ConfigError(f"{url!r} needs a container: az://container/prefix")
    if not account:
        raise ConfigError(f"{url!r} needs the storage account: set TIDEMILL_AZURE_ACCOUNT")
    endpoint_url = options.azure_endpoint_url or f"https://{account}.blob.core.windows.net"
    return AzStore(container, prefix.strip("/"), endpoint_url=endpoint_url, account=account, key=key)


class AzStore:
    """Block blobs in one container, under a prefix; see `ObjectStore` for the contract."""

    def __init__(self, container: str, prefix: str, *, endpoint_url: str, account: str, key: str | None) -> None:
        self._endpoint_url, self._account, self._secret = endpoint_url.rstrip("/"), account, key
        self._base = f"{prefix}/" if prefix else ""
        self._url = f"az://{container}/{prefix}".rstrip("/")
        base_url = f"{self._endpoint_url}/{container}"
        self._endpoint = Endpoint(base_url, self._url, signer(account, key, base_path=urlsplit(base_url).path))
        self._origin = base_url

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
        """Read a blob in chunks; a broken connection goes on at the same byte of the same version."""

        def ask(start: int, etag: str | None) -> Request:
            return self._request("GET", key, "read", headers={**byte_range(start, None), **_if_match(etag)})

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
        condition = {"If-None-Match": "*"} if if_absent else _if_match(if_match)
        content_type = content_type or "application/octet-stream"
        about = {"x-ms-blob-content-type": content_type, **self._meta(key, metadata)}
        part_bytes = part_size(body, PART_BYTES, _MOST_PARTS)
        parts = parts_of(body, part_bytes)
        first = next(parts)
        try:
            if len(first) < part_bytes:
                size, reply = len(first), self._put_once(key, first, {**about, **condition})
            else:
                size, reply = self._put_blocks(key, first, parts, {**about, **condition})
        except (ObjectNotFound, StoreRefused) as error:
            if isinstance(error, ObjectNotFound) and if_match is not None:
                raise PreconditionFailed(self._url, key) from error
            if isinstance(error, StoreRefused) and if_absent and "BlobAlreadyExists" in str(error):
                raise PreconditionFailed(self._url, key) from error
            raise
        return ObjectInfo(
            key=key,
            size_bytes=size,
            etag=_etag(reply.headers.get("ETag")),
            modified_at=http_date(reply.headers.get("Last-Modified")),
            content_type=content_type,
            metadata=dict(metadata or {}),
        )

    def delete(self, keys: Iterable[str]) -> None:
        """Delete blobs, a few at a time."""

        def remove(key: str) -> None:
            self._endpoint.send(self._request("DELETE", key, "delete"), also=_MISSING)

        listed = list(keys)
        with ThreadPoolExecutor(min(16, len(listed)) or 1) as pool:
            for _ in pool.map(remove, listed):
                continue

    def copy(self, source_key: str, target_key: str) -> ObjectInfo:
        """Copy on the server, and wait until it is done."""
        source = f"{self._origin}{self._path(source_key)}"
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

    def reader_options(self) -> dict[str, str]:
        """Account, key and endpoint in polars' words."""
        options = {"azure_storage_account_name": self._account, "azure_storage_endpoint": self._endpoint_url}
        if self._secret:
            options["azure_storage_account_key"] = self._secret
        else:
            options["azure_skip_signature"] = "true"
        if self._endpoint_url.startswith("http://"):
            options["azure_allow_http"] = "true"
        return options

    def _put_once(self, key: str, body: bytes | memoryview, headers: Mapping[str, str]) -> Reply:
        is_conditional = any(name.startswith("If-") for name in headers)
        more = {"x-ms-blob-type": "BlockBlob", "Content-MD5": _md5(body)}
        return self._endpoint.send(
            self._request("PUT", key, "write", headers={**headers, **more}, body=body, is_repeatable=not is_conditional)
        )

    def _put_blocks(
        self, key: str, first: bytes | memoryview, rest: Iterator[bytes | memoryview], headers: Mapping[str, str]
    ) -> tuple[int, Reply]:
        """Stage blocks a few at a time, then commit their list; blocks never committed expire by themselves."""
        import secrets
        from itertools import chain

        upload = secrets.token_hex(8)

        def stage(number: int, part: bytes | memoryview) -> tuple[int, str]:
            block = b64encode(f"{upload}-{number:06}".encode()).decode()
            query = {"comp": "block", "blockid": block}
            headers = {"Content-MD5": _md5(part)}
            self._endpoint.send(self._request("PUT", key, "write", query=query, headers=headers, body=part))
            return len(part), block

        staged = in_parallel(stage, chain([first], rest))
        blocks = "".join(f"<Latest>{block}</Latest>" for _, block in staged)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{blocks}</BlockList>'.encode()
        request = self._request(
            "PUT", key, "write", query={"comp": "blocklist"}, headers=headers, body=body, is_repeatable=False
        )
        return sum(size for size, _ in staged), self._endpoint.send(request)

    def _request(self, method: str, key: str, verb: str, **more: Any) -> Request:
        checked_key(self._url, key)
        if "\\" in key or any(segment in {".", ".."} for segment in key.split("/")):
            raise KeyRefused(self._url, key, "Azure would store it under another name")
        return Request(method=method, path=self._path(key), doing=f"{verb} {key!r}", key=key, **more)

    def _path(self, key: str) -> str:
        return "/" + quote(self._base + key, safe="/~")

    def _meta(self, key: str, metadata: Mapping[str, str] | None) -> dict[str, str]:
        for name, value in (metadata or {}).items():
            if not (name.isascii() and name.isidentifier() and value.isascii() and value.isprintable()):
                reason = f"metadata {name!r} must be an identifier with a printable ASCII value"
                raise StoreRefused(self._url, f"write {key!r}", reason=reason)
        return {f"{_META}{name}": value for name, value in (metadata or {}).items()}

    def _listed(self, blob: Xml) -> ObjectInfo:
        name, properties = blob.child("Name"), blob.child("Properties")
        assert name is not None
        assert properties is not None
        text = unquote(name.own_text()) if name.attribute("Encoded") == "true" else name.own_text()
        return ObjectInfo(
            key=text[len(self._base) :],
            size_bytes=int(properties.text("Content-Length")),
            etag=_etag(properties.text("Etag")),
            modified_at=parsedate_to_datetime(properties.text("Last-Modified")),
            content_type=properties.text("Content-Type") or None,
        )

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


def _md5(body: bytes | memoryview) -> str:
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _if_match(etag: str | None) -> dict[str, str]:
    return {} if etag is None else {"If-Match": f'"{etag}"'}


def _etag(text: str | None) -> str | None:
    return text.strip().removeprefix("W/").strip('"') if text else None
