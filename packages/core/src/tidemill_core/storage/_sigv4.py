"""Sign requests to S3 (AWS Signature Version 4, single chunk, unsigned payload).

The body is protected by TLS and by its CRC-32, which the store checks; hashing it once
more for the signature would double the cost of an upload.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from tidemill_core.storage._http import Headers, Request

_ALGORITHM = "AWS4-HMAC-SHA256"
_PAYLOAD = "UNSIGNED-PAYLOAD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An access key; `token` is set for temporary ones."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Leave secret and token out."""
        return f"Credentials({self.access_key!r})"


def sign(
    request: Request,
    credentials: Credentials,
    *,
    host: str,
    base_path: str,
    region: str,
    now: datetime,
    payload: str = _PAYLOAD,
) -> Headers:
    """Add date and signature to a request's headers; `payload` is the body's SHA-256 where it is signed.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    headers = {**request.headers, "host": host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    signed = _canonical(headers)
    names = ";".join(signed)
    canonical = "\n".join(
        [
            request.method,
            f"{base_path}{request.path}" or "/",
            request.encoded_query(),
            *(f"{name}:{value}" for name, value in signed.items()),
            "",
            names,
            payload,
        ]
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_key, stamp[:8], region)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return {
        **headers,
        "Authorization": f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }


def _canonical(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted((name.lower(), " ".join(value.split())) for name, value in headers.items()))


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
