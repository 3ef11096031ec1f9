"""Give a project the shared resources by one ``defs.yaml``."""

from collections.abc import Mapping
from typing import Any, ClassVar

import dagster as dg

from tidemill_core.config import Config
from tidemill_core.defs.component import ConfigComponent
from tidemill_core.defs.resources import RESOURCES, shared_resource


class ResourcesConfig(Config):
    """Which shared resources a project takes."""

    only: tuple[str, ...] | None = None
    """Keys of the resources to take; unset means all that are installed."""
    leave_out: tuple[str, ...] = ()
    """Keys that the project defines itself, such as `io_manager`."""


class ResourcesComponent(ConfigComponent):
    """The resources and IO managers that Tidemill's components ask for, filled from the settings.

    They are `postgres`, `lake`, `kafka`, `http`, `lineage`, `io_manager` and `postgres_io_manager`, as far as
    the packages that bring them are installed. What is not set is an embedded server or a local folder.
    """

    config_type = ResourcesConfig
    example: ClassVar[Mapping[str, Any]] = {}
    tags: ClassVar[tuple[str, ...]] = ("resources",)
    produces: ClassVar[tuple[str, ...]] = ("resource",)

    def build(self, config: ResourcesConfig, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make the resources.

        Raises:
            PluginError: A key is none that is installed; names the nearest one.
        """
        del context
        wanted = RESOURCES.names() if config.only is None else config.only
        return dg.Definitions(resources={key: shared_resource(key) for key in wanted if key not in config.leave_out})
