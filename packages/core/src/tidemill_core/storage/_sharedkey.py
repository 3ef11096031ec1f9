"""Sign requests to Azure Blob Storage with an account key."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime
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


def signer(account: str, key: str | None, *, base_path: str) -> Callable[[Request], Headers]:
    """Sign with the account's key; without one, requests are anonymous.

    See https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key.
    """
    secret = b64decode(key) if key else None

    def signed(request: Request) -> Headers:
        headers = {
            **request.headers,
            "x-ms-date": format_datetime(datetime.now(UTC), usegmt=True),
            "x-ms-version": VERSION,
        }
        if secret is None:
            return headers
        text = _string_to_sign(request, headers, f"/{account}{base_path}{request.path}")
        signature = b64encode(hmac.new(secret, text.encode(), hashlib.sha256).digest()).decode()
        return {**headers, "Authorization": f"SharedKey {account}:{signature}"}

    return signed


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
