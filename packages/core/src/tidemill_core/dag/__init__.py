"""DAG files: one schema for YAML, JSON, Python and the Dagster component; pure, without Dagster."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_core.dag.load import LoadedDag, load_dags, loaded_dag
    from tidemill_core.dag.spec import DagSpec, RetrySpec, TaskSpec

__all__ = ["DagSpec", "LoadedDag", "RetrySpec", "TaskSpec", "load_dags", "loaded_dag"]
_HOMES = {"LoadedDag": "load", "load_dags": "load", "loaded_dag": "load"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'spec')}"), name)
