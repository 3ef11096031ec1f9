"""The contract every emitter keeps, and how one is found by name and opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from pydantic import Field, ValidationError
from tidemill_core.config import Config, dotted
from tidemill_core.errors import ConfigError, TidemillError
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


class Target(Config):
    """A sink that runs go to: which emitter, and where it writes."""

    type: str = Field(min_length=1)
    """Name of a registered emitter."""
    url: str = Field(min_length=1)
    """Address or file, as that emitter takes it."""


EMITTERS: Registry[Callable[..., Emitter]] = Registry("tidemill.lineage.emitters", "lineage emitter")
"""Openers by name: one with ``config_type`` is called with that model, any other with the URL."""


Opener = TypeVar("Opener", bound=Callable[..., Emitter])


def takes(config_type: type[Target]) -> Callable[[Opener], Opener]:
    """Mark an opener as one that is called with a model of its own, and say which."""

    def mark(opener: Opener) -> Opener:
        opener.config_type = config_type  # type: ignore[attr-defined]  # functions have room for it
        return opener

    return mark


def parse_target(value: object, *, where: str) -> Target:
    """Check one target against the model of its emitter.

    Args:
        value: ``{"type": ..., "url": ...}`` and what else that emitter takes.
        where: What is named in faults, such as a variable.

    Raises:
        ConfigError: A value is missing, unknown or out of its bounds.
        PluginError: No installed package has an emitter of that name.
    """
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        names = ", ".join(EMITTERS.names())
        raise ConfigError(f'{where} is no target: {{"type": ..., "url": ...}} wanted, with a type of: {names}')
    opener = EMITTERS.get(value["type"])
    model = cast("type[Target]", getattr(opener, "config_type", Target))
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{dotted(each['loc']) or 'target'}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"{where} ({value['type']}): {faults}") from error


def parse_targets(values: object, *, where: str) -> list[Target]:
    """Check a list of targets.

    Raises:
        ConfigError: It is no list, or one of them is wrong; says which.
        PluginError: As `parse_target`.
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, dict)):
        raise ConfigError(
            f'{where}: a list of targets wanted, such as [{{"type": "neo4j", "url": "bolt://host:7687"}}]'
        )
    return [parse_target(each, where=f"{where}[{number}]") for number, each in enumerate(values)]


def open_target(target: Target) -> Emitter:
    """Open the emitter of a target.

    Raises:
        ConfigError: Its address or settings are wrong, or the emitter cannot be opened.
        PluginError: No installed package has an emitter of that name.
    """
    opener = EMITTERS.get(target.type)
    given: Any = target if hasattr(opener, "config_type") else target.url
    try:
        return opener(given)
    except TidemillError:
        raise
    except Exception as error:  # the opener of a stranger
        raise ConfigError(f"lineage emitter {target.type!r} cannot be opened: {error!r}") from error


def open_emitter(kind: str, url: str, **options: object) -> Emitter:
    """Open the emitter called `kind` on a file or an endpoint.

    Raises:
        ConfigError: The address or an option is wrong.
        PluginError: No installed package has an emitter of that name.
    """
    return open_target(parse_target({"type": kind, "url": url, **options}, where="emitter"))
