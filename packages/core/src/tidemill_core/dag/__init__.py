"""DAG files: one schema for YAML, JSON, Python and the Dagster component; pure, without Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_core.dag.load import LoadedDag, load_dags, loaded_dag
    from tidemill_core.dag.spec import DagSpec, RetrySpec, TaskSpec

__all__ = ["DagSpec", "LoadedDag", "RetrySpec", "TaskSpec", "load_dags", "loaded_dag"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "load": ["LoadedDag", "load_dags", "loaded_dag"],
        "spec": ["DagSpec", "RetrySpec", "TaskSpec"],
    },
)
