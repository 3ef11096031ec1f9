"""A DAG as its files have it, before and beside the model: what checks between its parts read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill_core.config import ConfigFault, Document, Place, dotted

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTask:
    """A task as its file has it."""

    value: Mapping[str, Any]
    document: Document
    path: KeyPath

    @property
    def name(self) -> str:
        """Its name, or an empty text."""
        name = self.value.get("name")
        return name if isinstance(name, str) else ""

    @property
    def needs(self) -> list[str]:
        """The names it needs, as far as they are texts."""
        needs = self.value.get("needs")
        return [need for need in needs if isinstance(need, str)] if isinstance(needs, list | tuple) else []

    @property
    def has_copies(self) -> bool:
        """Whether it has a matrix of lists that stand in the file."""
        matrix = self.value.get("matrix")
        if not isinstance(matrix, Mapping) or not matrix:
            return False
        return all(isinstance(each, list | tuple) for each in matrix.values())

    def place(self, *rest: str | int) -> Place:
        """Where a part of it stands."""
        return self.document.place((*self.path, *rest))

    def fault(self, message: str, *rest: str | int) -> ConfigFault:
        """Say what is wrong with a part of it."""
        return ConfigFault(self.place(*rest), dotted((*self.path, *rest)), message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDag:
    """A DAG as its files have it: own document, and tasks and parameters of all."""

    value: Mapping[str, Any]
    document: Document
    tasks: tuple[RawTask, ...]
    params: Mapping[str, tuple[Any, Document, KeyPath]]
    folder: Path | None

    @property
    def by_name(self) -> dict[str, RawTask]:
        """The tasks by name; of duplicates the first."""
        return {task.name: task for task in reversed(self.tasks) if task.name}
