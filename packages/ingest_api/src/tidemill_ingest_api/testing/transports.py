"""A transport without a network: scripted answers, and a record of what was asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidemill_ingest_api.http.messages import Request, Response


@dataclass(slots=True)
class FakeTransport:
    """Gives `answers` in turn (an exception is raised); the last one is repeated."""

    answers: deque[Response | Exception]
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def send(self, request: Request, *, max_bytes: int) -> Response:  # noqa: ARG002  # the contract
        """Give the next answer."""
        self.asked.append((request.url, dict(request.headers)))
        self.requests.append(request)
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return Response(url=request.url, status=answer.status, headers=answer.headers, body=answer.body)

    def close(self) -> None:
        """There is nothing to release."""


def respond(status: int = 200, body: bytes = b"[]", **headers: str) -> Response:
    """Write an answer; ``_`` in a header's name is ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(url="", status=status, headers=named, body=body)
