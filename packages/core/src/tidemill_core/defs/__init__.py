"""Tidemill for Dagster: components, resources, IO managers and an executor.

Names are loaded when they are used, so that importing one costs no more than it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_core.defs.assets_component import AssetsComponent
    from tidemill_core.defs.component import ConfigComponent
    from tidemill_core.defs.dag_component import DagComponent
    from tidemill_core.defs.executor import executor_by_name, threads_executor
    from tidemill_core.defs.failures import dagster_errors
    from tidemill_core.defs.home import prepare_home
    from tidemill_core.defs.io_managers.parquet import ParquetIOManager
    from tidemill_core.defs.io_managers.postgres import PostgresIOManager
    from tidemill_core.defs.jobs import definitions_from_dags
    from tidemill_core.defs.metadata import column_schema, materialization
    from tidemill_core.defs.resources import (
        HttpResource,
        KafkaResource,
        ObjectStoreResource,
        PostgresResource,
        default_resources,
    )

__all__ = [
    "AssetsComponent",
    "ConfigComponent",
    "DagComponent",
    "HttpResource",
    "KafkaResource",
    "ObjectStoreResource",
    "ParquetIOManager",
    "PostgresIOManager",
    "PostgresResource",
    "column_schema",
    "dagster_errors",
    "default_resources",
    "definitions_from_dags",
    "executor_by_name",
    "materialization",
    "prepare_home",
    "threads_executor",
]

_HOMES = {
    "AssetsComponent": "assets_component",
    "ConfigComponent": "component",
    "DagComponent": "dag_component",
    "HttpResource": "resources",
    "KafkaResource": "resources",
    "ObjectStoreResource": "resources",
    "ParquetIOManager": "io_managers.parquet",
    "PostgresIOManager": "io_managers.postgres",
    "PostgresResource": "resources",
    "column_schema": "metadata",
    "dagster_errors": "failures",
    "default_resources": "resources",
    "definitions_from_dags": "jobs",
    "executor_by_name": "executor",
    "materialization": "metadata",
    "prepare_home": "home",
    "threads_executor": "executor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
