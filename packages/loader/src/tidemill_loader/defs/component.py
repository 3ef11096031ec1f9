"""`LoadComponent`: every load is an asset with its checks."""

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
from pydantic import Field, model_validator
from tidemill_core.defs import ConfigComponent

from tidemill_loader.config import LoadFields, Names
from tidemill_loader.defs.assets import load_asset
from tidemill_loader.defs.options import AssetFields, AssetLoad


class LoadAttributes(LoadFields, AssetFields):
    """One load by its own attributes, or several under ``loads``."""

    files: Names = ()
    """Local paths or URLs of files, folders or patterns (for a single load)."""
    table: str | None = None
    """``schema.table`` (for a single load)."""
    loads: tuple[AssetLoad, ...] = Field(default=())
    """Several loads, each an asset; nothing else may stand beside them."""

    @model_validator(mode="after")
    def _one_or_many(self) -> "LoadAttributes":
        others = sorted(self.model_fields_set - {"loads"})
        if self.loads and others:
            raise ValueError(f"`loads` stands alone; move {', '.join(others)} into each load")
        if not self.loads and not (self.files and self.table):
            raise ValueError("give `files` and `table`, or a list of `loads`")
        return self

    def each(self) -> tuple[AssetLoad, ...]:
        """The loads, one or many."""
        if self.loads:
            return self.loads
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "loads"}
        return (AssetLoad(**given),)


class LoadComponent(ConfigComponent):
    """Load files into PostgreSQL, in parallel, each exactly once.

    One load is one asset, with checks that its rows are those of its files and that the
    table has the columns the files call for. A run that was killed goes on where it
    ended; a run over unchanged files does nothing and says so. Files under ``lake://``
    are read from the resource ``lake``, rows go to the resource ``postgres``. A relative path
    is one beside the ``defs.yaml`` if that is there, else one in the working folder.
    """

    config_type = LoadAttributes
    needs_resources: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {"files": "planes/*.csv", "table": "raw.planes", "key": ["tailnum"]}
    example_files: ClassVar[Mapping[str, str]] = {
        "planes/example.csv": "tailnum,year,seats\nN10156,2004,55\nN102UW,1998,182\n"
    }
    tags = ("postgres", "parquet", "csv", "json")
    produces = ("asset", "asset_check")

    def build(self, config: LoadAttributes, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make one asset per load."""
        path = Path(context.path)
        folder = path if path.is_dir() else path.parent
        loads = [
            each.model_copy(update={"files": tuple(_beside(folder, name) for name in each.files)})
            for each in config.each()
        ]
        return dg.Definitions(assets=[load_asset(each) for each in loads])


def _beside(folder: Path, name: str) -> str:
    """Find a relative path or pattern beside the ``defs.yaml``, by its parts before the first pattern."""
    if "://" in name or Path(name).is_absolute():
        return name
    plain = takewhile(lambda part: not set(part) & set("*?[{"), Path(name).parts)
    start = Path(*plain)
    return str(folder / name) if start.parts and (folder / start).exists() else name
