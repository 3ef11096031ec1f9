"""Who may read: keys are compared by hash in constant time, and carry the tables they open."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from hashlib import sha256

from tidemill_ingest_api.config import KeyedServe, ServeConfig

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A reader; `key_id` is bounded, so it may be a metric's label."""

    key_id: str
    scopes: tuple[str, ...]

    def may_read(self, table: str) -> bool:
        """Whether the reader's scopes open a table."""
        return "*" in self.scopes or table in self.scopes


ANYBODY = Caller(key_id="anybody", scopes=("*",))


def identify(serve: ServeConfig, authorization: str | None, api_key: str | None) -> Caller | None:
    """Find the reader behind a request's headers; None when there is none.

    Args:
        serve: Who may read.
        authorization: The ``Authorization`` header.
        api_key: The ``X-API-Key`` header.
    """
    if not isinstance(serve.auth, KeyedServe):
        return ANYBODY
    scheme, _, token = (authorization or "").partition(" ")
    key = api_key or (token.strip() if scheme.lower() == "bearer" else "")
    digest = sha256(key.encode()).hexdigest()
    found = None
    for each in serve.auth.keys:  # all are compared, so that time tells nothing
        if hmac.compare_digest(each.sha256, digest):
            found = Caller(key_id=each.id, scopes=each.scopes)
    return found if key else None


def new_key() -> tuple[str, str]:
    """Make a key and its hash; 256 random bits need no slow hash."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    return key, sha256(key.encode()).hexdigest()
