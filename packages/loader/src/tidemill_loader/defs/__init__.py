"""Dagster components of the loader."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_loader.defs.component import AssetLoad, LoadAttributes, LoadComponent

__all__ = ["AssetLoad", "LoadAttributes", "LoadComponent"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.component"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
