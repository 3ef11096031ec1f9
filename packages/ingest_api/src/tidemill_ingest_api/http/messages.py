"""A request and its answer, and what a header may carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent; header names are lower case."""

    url: str
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer; header names are lower case, the body is decompressed, `value` is its JSON (status 200)."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    value: Any = None


class Transport(Protocol):
    """Sends one request and reads the whole answer; does not follow redirects or try again."""

    def send(self, request: Request, *, max_bytes: int) -> Response:
        """Send a request.

        Raises:
            UpstreamUnavailable: No whole answer came.
            ResponseTooLarge: It is larger than `max_bytes`.
            PrivateAddress: Its host leads to an address that is not allowed.
        """

    def close(self) -> None:
        """Release connections."""


def check_header(name: str, value: str) -> None:
    """Refuse what no header can carry, without showing it.

    Raises:
        ValueError: The name is no token, or the value holds a line break or another character that is not
            printable ASCII (RFC 9110 5.5).
    """
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ValueError(
            f"the value for header {name!r} has a line break, a space at its end or another character that a header"
            " cannot carry; does the variable or file it comes from end with a line break?"
        )


__all__ = ["Request", "Response", "Transport", "check_header"]
