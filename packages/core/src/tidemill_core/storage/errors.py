"""What object stores raise, beside `ObjectNotFound` and `PreconditionFailed` of the kernel.

    StorageError
    ├── KeyRefused         (Permanent) this store cannot hold that key
    ├── CredentialsMissing (Config)    nothing says who we are
    ├── StoreRefused       (Permanent) wrong bucket or request, or not allowed
    │   └── CredentialsRefused         expired, revoked or wrong credentials
    └── StoreUnavailable   (Transient) throttled, overloaded, or not reachable

Every message names the store by its URL, which never holds a secret.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill_core.errors import ConfigError, PermanentError, StorageError, TransientError


class KeyRefused(StorageError, PermanentError):
    """This store cannot hold an object under that key."""

    def __init__(self, url: str, key: str, reason: str) -> None:
        self.url, self.key, self.reason = url, key, reason
        super().__init__(f"{url} cannot hold the key {key!r}: {reason}")


class StoreRefused(StorageError, PermanentError):
    """The store answered, and said no: credentials, bucket name or request are wrong."""

    def __init__(self, url: str, doing: str, *, status: int | None = None, reason: str = "") -> None:
        self.url, self.status, self.reason = url, status, reason
        answer = f"HTTP {status}" if status else "refused"
        super().__init__(f"{url} refused to {doing}: {answer} {reason}".rstrip())


class StoreUnavailable(StorageError, TransientError):
    """The store is throttling, overloaded or not reachable; the same call may succeed later.

    Attributes:
        is_unclear: The request may have been carried out, although no answer came.
    """

    def __init__(
        self, url: str, doing: str, reason: str, *, retry_after_s: float | None = None, is_unclear: bool = False
    ) -> None:
        self.url, self.retry_after_s, self.is_unclear = url, retry_after_s, is_unclear
        super().__init__(f"{url} could not {doing}: {reason}; try again")


class CredentialsRefused(StoreRefused):
    """The store, or the service that issues tokens, does not accept who we say we are: sign in anew."""


class CredentialsMissing(StorageError, ConfigError):
    """Nothing says who we are, and nobody asked for anonymous requests.

    Attributes:
        looked: Where credentials were looked for, in order.
    """

    def __init__(self, url: str, looked: Sequence[str], remedy: str) -> None:
        self.url, self.looked = url, tuple(looked)
        super().__init__(
            f"{url}: no credentials found; looked at {'; '.join(looked)}. {remedy}, "
            "or ask anonymously by anonymous: true (TIDEMILL_ANONYMOUS=true)"
        )
