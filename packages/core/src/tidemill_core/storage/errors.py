"""What object stores raise, beside `ObjectNotFound` and `PreconditionFailed` of the kernel.

    StorageError
    ├── KeyRefused         (Permanent) this store cannot hold that key
    ├── StoreRefused       (Permanent) wrong credentials, bucket or request
    └── StoreUnavailable   (Transient) throttled, overloaded, or not reachable

Every message names the store by its URL, which never holds a secret.
"""

from __future__ import annotations

from tidemill_core.errors import PermanentError, StorageError, TransientError


class KeyRefused(StorageError, PermanentError):
    """This store cannot hold an object under that key."""

    def __init__(self, url: str, key: str, reason: str) -> None:
        self.url, self.key, self.reason = url, key, reason
        super().__init__(f"{url} cannot hold the key {key!r}: {reason}")


class StoreRefused(StorageError, PermanentError):
    """The store answered, and said no: credentials, bucket name or request are wrong."""

    def __init__(self, url: str, doing: str, *, status: int | None = None, reason: str = "") -> None:
        self.url, self.status = url, status
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
