"""Sign requests to Azure Blob Storage with an account key."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import datetime
from email.utils import format_datetime

from tidemill_core.storage._http import Headers, Request

VERSION = "2023-11-03"
_SIGNED = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


def sign(request: Request, account: str, secret: bytes, *, base_path: str, now: datetime) -> Headers:
    """Add date, version and signature to a request's headers; `secret` is the account's decoded key.

    See https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key.
    """
    headers = dated(request, now)
    text = _string_to_sign(request, headers, f"/{account}{base_path}{request.path}")
    signature = b64encode(hmac.new(secret, text.encode(), hashlib.sha256).digest()).decode()
    return {**headers, "Authorization": f"SharedKey {account}:{signature}"}


def dated(request: Request, now: datetime) -> dict[str, str]:
    """A request's headers with its date and the version of the protocol."""
    return {**request.headers, "x-ms-date": format_datetime(now, usegmt=True), "x-ms-version": VERSION}


def _string_to_sign(request: Request, headers: Headers, resource: str) -> str:
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    if len(request.body):
        lower["content-length"] = str(len(request.body))
    own = sorted((name, value) for name, value in lower.items() if name.startswith("x-ms-"))
    query = sorted((name.lower(), value) for name, value in request.query.items())
    return "\n".join(
        [
            request.method,
            *(lower.get(name, "") for name in _SIGNED),
            *(f"{name}:{value}" for name, value in own),
            resource + "".join(f"\n{name}:{value}" for name, value in query),
        ]
    )
