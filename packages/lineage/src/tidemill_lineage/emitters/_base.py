"""The contract every emitter keeps, and how one is found by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from tidemill_core.plugins import Registry

from tidemill_lineage.model import Run


class Emitter(Protocol):
    """Takes finished runs. Called from one thread at a time; emitting a run again changes nothing."""

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters; holds no secret."""

    def emit(self, runs: Sequence[Run]) -> None:
        """Write runs, all or some; raise an `EmitError` if any could not be written."""

    def close(self) -> None:
        """Give up connections; the emitter is not used again."""


EMITTERS: Registry[Callable[..., Emitter]] = Registry("tidemill.lineage.emitters", "lineage emitter")


def open_emitter(kind: str, url: str, **options: object) -> Emitter:
    """Open the emitter called `kind` on a file or an endpoint.

    Raises:
        PluginError: No installed package has an emitter of that name.
    """
    return EMITTERS.get(kind)(url, **options)
