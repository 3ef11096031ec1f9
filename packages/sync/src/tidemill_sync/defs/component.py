"""A Dagster component that mirrors one place to another: an asset, and a check that compares both."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import dagster as dg
from pydantic import Field
from tidemill_core.dag.cron import CronLine, TimeZoneName
from tidemill_core.defs import PACKAGE_TAG, ConfigComponent, dagster_errors, layer, materialization
from tidemill_core.storage import ObjectStore, open_store

from tidemill_sync.config import SyncConfig
from tidemill_sync.engine import sync
from tidemill_sync.result import SyncResult
from tidemill_sync.verification import VerifyReport, verify

LAKE = "lake"
_LAKE_URL = "lake://"
_KINDS = {"s3": "s3", "gs": "gcs", "az": "azure", "file": "file"}


class SyncAssetConfig(SyncConfig):
    """A mirror, and how Dagster shows it."""

    asset_key: str = "lake/mirror"
    """Asset key, parts joined by ``/``."""
    deps: tuple[str, ...] = ()
    """Asset keys (parts joined by ``/``) that must be there first."""
    description: str | None = None
    """Description of the asset; unset names the places."""
    check: Literal["etags", "content", "off"] = "etags"
    """The asset check ``verify``: compare listings with what was noted, read every byte of both sides, or none."""
    schedule: CronLine | None = None
    """Cron expression of a schedule; unset means none."""
    timezone: TimeZoneName = "UTC"
    """Time zone of the schedule."""
    group: str | None = None
    """Asset group; unset means the layer of the data, the first part of the asset key."""
    pool: str = Field(default="object_store", min_length=1)
    """Concurrency pool."""


class SyncComponent(ConfigComponent):
    """Mirror an object store or folder to another, exactly and resumably.

    ``lake://`` is the resource `lake`, and ``mirror://`` the mirror of the settings. The
    check ``verify`` compares every object after each run; a failed copy fails the asset.
    """

    config_type = SyncAssetConfig
    produces: ClassVar = ("asset", "asset_check", "schedule")
    tags: ClassVar = ("s3", "gcs", "azure", "object store", "mirror")
    needs_resources: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "source": "lake://",
        "target": "mirror://",
        "asset_key": "lake/mirror",
        "exclude": ["tmp/**"],
    }

    def build(self, config: Any, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  # the base's signature
        """Make the asset, and the schedule where there is one."""
        config = config if isinstance(config, SyncAssetConfig) else SyncAssetConfig(**dict(config))
        asset = build_sync_asset(config)
        if config.schedule is None:
            return dg.Definitions(assets=[asset])
        name = config.asset_key.replace("/", "_").replace("-", "_")
        job = dg.define_asset_job(f"{name}_sync", selection=dg.AssetSelection.assets(asset))
        schedule = dg.ScheduleDefinition(
            name=f"{name}_sync_schedule",
            job=job,
            cron_schedule=config.schedule,
            execution_timezone=config.timezone,
        )
        return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def build_sync_asset(config: SyncAssetConfig) -> dg.AssetsDefinition:
    """Make the asset of one mirror; its check runs in the same step."""
    key = dg.AssetKey(config.asset_key.split("/"))
    checks = [dg.AssetCheckSpec("verify", asset=key, description="Every object of the source is in the target.")]

    @dg.asset(
        key=key,
        name=None,
        deps=[dg.AssetKey(dep.split("/")) for dep in config.deps],
        group_name=config.group or layer(key),
        tags={PACKAGE_TAG: "sync"},
        kinds=_kinds(config),
        pool=config.pool,
        required_resource_keys={LAKE} if _uses_lake(config) else set(),
        description=config.description or f"Mirror of {config.source} in {config.target}.",
        check_specs=[] if config.check == "off" else checks,
    )
    def mirrored(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it
        return sync_in_dagster(context, config)

    return mirrored


def sync_in_dagster(context: dg.AssetExecutionContext, config: SyncAssetConfig) -> dg.MaterializeResult[Any]:
    """Mirror, compare, and tell Dagster what was done."""
    with dagster_errors():
        source, target = _store(context, config.source), _store(context, config.target)
        result = sync(config, source=source, target=target, run_id=context.run.run_id)
        report = None
        if config.check != "off":
            report = verify(config, content=config.check == "content", source=source, target=target)
    context.log.info(f"{result.target}: {result.sentence()}")  # noqa: G004  # shown as text
    return dg.MaterializeResult(
        metadata=_metadata(result, report),
        check_results=[] if report is None else [_checked(config, report)],
    )


def _metadata(result: SyncResult, report: VerifyReport | None) -> dict[str, Any]:
    facts = {
        name: getattr(result, name)
        for name in ("source", "target", "copied", "replaced", "adopted", "deleted", "skipped", "vanished", "run_id")
    }
    verified = None if report is None else report.same
    return materialization(
        bytes=result.bytes,
        seconds=result.seconds,
        did_work=result.copied + result.replaced + result.deleted > 0,
        objects=result.source_objects,
        verified=verified,
        where=result.target,
        **facts,
    )


def _checked(config: SyncAssetConfig, report: VerifyReport) -> dg.AssetCheckResult:
    facts = {name: getattr(report, name) for name in ("same", "read", "missing", "different", "extra")}
    shown = [f"{each.kind} {each.key}: {each.reason}" for each in report.differences[:20]]
    return dg.AssetCheckResult(
        check_name="verify",
        passed=report.is_exact if config.prune else report.is_complete,
        metadata={**facts, "differences": dg.MetadataValue.json(shown)},
    )


def _store(context: dg.AssetExecutionContext, url: str) -> ObjectStore:
    if url.startswith(_LAKE_URL):
        store: ObjectStore = context.resources.lake.open(url.removeprefix(_LAKE_URL))
        return store
    return open_store(url)


def _uses_lake(config: SyncAssetConfig) -> bool:
    return config.source.startswith(_LAKE_URL) or config.target.startswith(_LAKE_URL)


def _kinds(config: SyncAssetConfig) -> set[str]:
    schemes = (url.partition("://")[0] for url in (config.source, config.target))
    return {"sync"} | {_KINDS[scheme] for scheme in schemes if scheme in _KINDS}
