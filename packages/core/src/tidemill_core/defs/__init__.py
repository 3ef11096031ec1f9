"""Tidemill for Dagster: components, resources, IO managers and an executor.

Names are loaded when they are used, so that importing one costs no more than it needs.
"""

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_core.defs.assets_component import AssetsComponent
    from tidemill_core.defs.component import ConfigComponent
    from tidemill_core.defs.dag.component import DagComponent
    from tidemill_core.defs.dag.jobs import definitions_from_dags
    from tidemill_core.defs.executor.threads import executor_by_name, threads_executor
    from tidemill_core.defs.failures import dagster_errors
    from tidemill_core.defs.home import prepare_home
    from tidemill_core.defs.io_managers.parquet import ParquetIOManager
    from tidemill_core.defs.io_managers.postgres import PostgresIOManager
    from tidemill_core.defs.metadata import PACKAGE_TAG, column_schema, layer, materialization
    from tidemill_core.defs.resources import (
        HttpResource,
        KafkaResource,
        ObjectStoreResource,
        PostgresResource,
        default_resources,
    )
    from tidemill_core.defs.resources_component import ResourcesComponent
    from tidemill_core.defs.staleness import unchanged
    from tidemill_core.defs.versions import code_version

__all__ = [
    "PACKAGE_TAG",
    "AssetsComponent",
    "ConfigComponent",
    "DagComponent",
    "HttpResource",
    "KafkaResource",
    "ObjectStoreResource",
    "ParquetIOManager",
    "PostgresIOManager",
    "PostgresResource",
    "ResourcesComponent",
    "code_version",
    "column_schema",
    "dagster_errors",
    "default_resources",
    "definitions_from_dags",
    "executor_by_name",
    "layer",
    "materialization",
    "prepare_home",
    "threads_executor",
    "unchanged",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "assets_component": ["AssetsComponent"],
        "component": ["ConfigComponent"],
        "dag.component": ["DagComponent"],
        "executor.threads": ["executor_by_name", "threads_executor"],
        "failures": ["dagster_errors"],
        "home": ["prepare_home"],
        "io_managers.parquet": ["ParquetIOManager"],
        "io_managers.postgres": ["PostgresIOManager"],
        "dag.jobs": ["definitions_from_dags"],
        "metadata": ["PACKAGE_TAG", "column_schema", "layer", "materialization"],
        "resources": ["HttpResource", "KafkaResource", "ObjectStoreResource", "PostgresResource", "default_resources"],
        "resources_component": ["ResourcesComponent"],
        "staleness": ["unchanged"],
        "versions": ["code_version"],
    },
)
