"""The contract every emitter keeps, and how one is found by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidemill_core.plugins import Registry

from tidemill_lineage.model import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What delivery must know of a sink.

    Attributes:
        whole_runs: It wants what a job did in a run once, when the run has ended. Others get parts
            as the run goes on, and merge them.
        local: It writes to a disk of this machine, so that the end of a run can wait for it.
    """

    whole_runs: bool = False
    local: bool = False


class Emitter(Protocol):
    """Takes runs. Called from one thread at a time; emitting a run again changes nothing.

    A forked child calls it too: connections are to be opened anew there (see `PerProcess`).
    """

    @property
    def name(self) -> str:
        """What this kind of emitter is called in logs and counters."""

    @property
    def identity(self) -> str | None:
        """Which sink this is, the same in every process; without secrets. None: it dies with this process."""

    @property
    def traits(self) -> Traits:
        """What delivery must know of it."""

    def emit(self, runs: Sequence[Run]) -> None:
        """Write runs, all or some.

        Raises:
            EmitterDown: Not now; the same runs come again.
            EmitRefused: Never; runs refused one by one are told and left behind.
        """

    def close(self) -> None:
        """Give up connections; the emitter opens them again if it is used again."""


EMITTERS: Registry[Callable[..., Emitter]] = Registry("tidemill.lineage.emitters", "lineage emitter")


def open_emitter(kind: str, url: str, **options: object) -> Emitter:
    """Open the emitter called `kind` on a file or an endpoint.

    Raises:
        PluginError: No installed package has an emitter of that name.
    """
    return EMITTERS.get(kind)(url, **options)
