"""A load of 40 files and a sync of 5,000 keys as steps of their own, for Celery workers to share."""

import os
from pathlib import Path

import dagster as dg
from tidemill_core.defs import executor_by_name

FILES, ROWS = 40, 500
PREFIXES, KEYS = 20, 250


def place() -> Path:
    return Path(os.environ["SPREAD_PLACE"])


def lay_out(folder: Path) -> None:
    """Write what is loaded and mirrored."""
    (folder / "files").mkdir(parents=True)
    for number in range(FILES):
        lines = [f"{number * ROWS + row},{number}" for row in range(ROWS)]
        (folder / "files" / f"{number:02}.csv").write_text("\n".join(["id,file", *lines]) + "\n")
    for prefix in range(PREFIXES):
        within = folder / "lake" / f"p{prefix:02}"
        within.mkdir(parents=True)
        for key in range(KEYS):
            (within / f"{key:03}").write_text(f"{prefix}/{key}")


@dg.op(out=dg.DynamicOut(int))
def files():
    for number in range(FILES):
        yield dg.DynamicOutput(number, mapping_key=f"{number:02}")


@dg.op(out=dg.DynamicOut(int))
def prefixes():
    for prefix in range(PREFIXES):
        yield dg.DynamicOutput(prefix, mapping_key=f"p{prefix:02}")


@dg.op
def load(number: int) -> int:
    from tidemill_loader.config import LoadConfig
    from tidemill_loader.engine import run_load

    config = LoadConfig(
        table=f"spread.part_{number:02}", files=[str(place() / "files" / f"{number:02}.csv")], mode="append"
    )
    return run_load(config, os.environ["TIDEMILL_POSTGRES_URL"]).rows


@dg.op
def mirror(prefix: int) -> int:
    from tidemill_sync import SyncConfig, sync

    within = f"p{prefix:02}"
    done = sync(SyncConfig(source=str(place() / "lake" / within), target=str(place() / "mirror" / within), prune=True))
    return done.copied


@dg.op
def total(loaded: list[int], copied: list[int]) -> None:
    """What the steps say they did; a step that is done again adds nothing."""


@dg.job(
    executor_def=executor_by_name(os.environ.get("TIDEMILL_EXECUTOR", "in_process")),
    resource_defs={"io_manager": dg.FilesystemIOManager(base_dir=os.environ.get("SPREAD_PLACE", ".") + "/io")},
)
def spread():
    total(files().map(load).collect(), prefixes().map(mirror).collect())


defs = dg.Definitions(jobs=[spread])
