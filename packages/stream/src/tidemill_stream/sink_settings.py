"""What is asked of a sink's settings before it is opened, and where sinks are found.

It lies below the configuration, which is made of every installed sink's settings, and so below `sinks/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from tidemill_core.config import Config
from tidemill_core.errors import PluginError
from tidemill_core.plugins import Registry

OUTPUTS = ("rows", "windows", "dlq")
"""What a pipeline puts out: rows that pass, closed windows, dead letters."""


class SinkSettings(Config):
    """Base of every sink's settings: what is asked of a sink before it is opened.

    A sink's model adds ``type: Literal["name"]`` and its own fields, and answers `outputs`.
    """

    type: str
    """Which sink: the name of its entry point."""
    takes_windows_if_any: ClassVar[bool] = False
    """Whether a pipeline without windows may use this sink although `outputs` names ``windows``."""

    def outputs(self) -> Mapping[str, str]:
        """Tell which of `OUTPUTS` the sink takes, and the table, prefix or other place each goes to."""
        raise NotImplementedError(f"{type(self).__qualname__} must answer outputs()")

    def place(self) -> str:
        """Name the sink in logs, results and stored progress, without secrets; differs between a pipeline's sinks."""
        return self.type

    def owned(self) -> list[str]:
        """Name what only one pipeline of a file may write."""
        return []

    def resources(self) -> set[str]:
        """Name the Dagster resources the sink takes its servers from."""
        return set()

    def kinds(self) -> set[str]:
        """Name the technologies of its outputs, as Dagster's asset graph shows them."""
        return set()

    def asset_facts(self, output: str) -> Mapping[str, str]:
        """Describe an output in its asset's metadata; the fact ``table`` becomes Dagster's table name."""
        place = self.outputs().get(output)
        return {} if place is None else {self.type: place}


SINKS: Registry[Callable[[Any, Any], Any]] = Registry("tidemill.stream.sinks", "stream sink")
_Opener = TypeVar("_Opener", bound=Callable[..., Any])


def takes(config_type: type[SinkSettings]) -> Callable[[_Opener], _Opener]:
    """Say which settings the function that opens a sink takes: they become its attribute ``config_type``."""

    def mark(opener: _Opener) -> _Opener:
        vars(opener)["config_type"] = config_type
        return opener

    return mark


def why_unusable(name: str) -> str | None:
    """Tell why the sink called `name` cannot stand in a pipeline; None if it can."""
    try:
        model = getattr(SINKS.get(name), "config_type", None)
    except PluginError as error:
        return str(error)
    if not (isinstance(model, type) and issubclass(model, SinkSettings)):
        return f"stream sink {name!r} has no config_type that derives from SinkSettings; its author must add one"
    return None
