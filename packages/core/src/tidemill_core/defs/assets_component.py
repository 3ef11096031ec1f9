"""Put assets written in Python into a DAG file or a ``defs.yaml``, with their inputs and IO managers."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field

from tidemill_core.config import Config
from tidemill_core.dag.callables import import_callable
from tidemill_core.defs.component import ConfigComponent
from tidemill_core.errors import ConfigError


class AssetsConfig(Config):
    """Which Python assets to load."""

    load: tuple[str, ...] = Field(min_length=1)
    """References ``package.module:name`` of assets, asset checks, or lists of them; a module may also lie
    beside the ``defs.yaml``."""


class AssetsComponent(ConfigComponent):
    """Load assets and checks that are written in Python.

    An asset that takes frames and returns one through IO managers stays an ordinary
    ``@dg.asset``; a DAG file adds order, retries and pools:

        - name: delays
          use: tidemill_core.AssetsComponent
          with: {load: ["my_project.marts:delays"]}
          needs: [weather]
    """

    config_type = AssetsConfig
    example: ClassVar[Mapping[str, Any]] = {"load": ["example_marts:delays"]}
    example_files: ClassVar[Mapping[str, str]] = {
        "example_marts.py": (
            "import dagster as dg\n\n\n@dg.asset\ndef delays() -> None:\n"
            '    """Return a frame here, and an IO manager writes it."""\n'
        )
    }
    tags: ClassVar = ("python",)
    produces: ClassVar = ("asset", "asset_check")

    def build(self, config: AssetsConfig, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Import and collect.

        Raises:
            ConfigError: A reference names something else.
        """
        beside = Path(context.path)
        folder = beside if beside.is_dir() else beside.parent
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        found = [(name, each) for name in config.load for each in _flat(import_callable(name, Path.cwd()))]
        for reference, each in found:
            if not isinstance(each, dg.AssetsDefinition | dg.AssetSpec | dg.AssetChecksDefinition):
                raise ConfigError(f"{reference} is a {type(each).__name__}, not an asset or an asset check")
        checks = [each for _, each in found if isinstance(each, dg.AssetChecksDefinition)]
        assets = [each for _, each in found if not isinstance(each, dg.AssetChecksDefinition)]
        return dg.Definitions(assets=assets, asset_checks=checks)


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value
