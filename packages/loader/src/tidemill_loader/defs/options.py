"""How a load looks in Dagster: the options of its asset."""

from collections.abc import Mapping

from pydantic import SecretStr
from tidemill_core.config import Config

from tidemill_loader.config import LoadConfig, Names


class AssetFields(Config):
    """How a load looks in Dagster."""

    asset_key: str | None = None
    """Key with ``/`` between its parts, such as ``raw/planes``; default the table's schema and name."""
    deps: Names = ()
    """Keys of the assets that make the files."""
    description: str | None = None
    """What the table holds."""
    group: str | None = None
    """Asset group; unset means the layer of the data, the first part of the asset key."""
    tags: Mapping[str, str] = {}
    """Dagster tags of the asset."""
    postgres_url: SecretStr | None = None
    """Where to load; default the resource ``postgres``."""


class AssetLoad(LoadConfig, AssetFields):
    """One load, one asset."""
