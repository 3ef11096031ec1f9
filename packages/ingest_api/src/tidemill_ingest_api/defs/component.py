"""A Dagster component that fetches the streams of a REST API, an asset for each."""

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

import dagster as dg
from tidemill_core.dag.cron import CronLine, TimeZoneName
from tidemill_core.defs import PACKAGE_TAG, ConfigComponent, dagster_errors, layer, materialization

from tidemill_ingest_api.config import SourceConfig, StreamConfig
from tidemill_ingest_api.fetching.fetch import StreamReport, run_stream, table_spec
from tidemill_ingest_api.fetching.runs import connected, opened

POSTGRES = "postgres"


class IngestConfig(SourceConfig):
    """A source, and when Dagster fetches it."""

    schedule: CronLine | None = None
    """Cron expression of a schedule over all streams; unset means none."""
    timezone: TimeZoneName = "UTC"
    """Time zone of the schedule."""
    deps: tuple[str, ...] = ()
    """Asset keys (parts joined by ``/``) that must be there first."""
    group: str | None = None
    """Asset group; unset means the layer of the data, the first part of the asset key."""
    pool: str | None = None
    """Concurrency pool; unset means ``api/HOST``, so that one API is asked by one step at a time."""


class IngestComponent(ConfigComponent):
    """Fetch REST APIs into PostgreSQL or SQLite, exactly once: an asset per stream.

    `base_url` may be ``env:NAME`` or ``resource:NAME`` (a Dagster resource with
    `get_base_url()`), looked up when a run starts. Without `store`, rows go to the
    database of the resource `postgres`.
    """

    config_type = IngestConfig
    produces: ClassVar = ("asset", "asset_check", "schedule")
    tags: ClassVar = ("api", "rest", "ingestion", "postgres", "sqlite")
    needs_resources: ClassVar[bool] = True
    example: ClassVar[Mapping[str, Any]] = {
        "source": "github",
        "base_url": "https://api.github.com",
        "streams": [
            {
                "name": "issues",
                "path": "/repos/dagster-io/dagster/issues",
                "params": {"sort": "updated", "direction": "asc", "per_page": 100, "since": "{cursor}"},
                "paginate": {"type": "link_header"},
                "conditional": "etag",
                "cursor": {"field": "updated_at", "lag_s": 300},
                "primary_key": ["id"],
                "fields": {"id": "int64", "number": "int32", "title": "string", "updated_at": "timestamp"},
            }
        ],
    }

    def build(self, config: Any, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002  # the base's signature
        """Make the assets, and the schedule where there is one."""
        config = config if isinstance(config, IngestConfig) else IngestConfig(**dict(config))
        assets = [build_stream_asset(config, stream) for stream in config.streams]
        if config.schedule is None:
            return dg.Definitions(assets=assets)
        job = dg.define_asset_job(f"{config.source}_ingest", selection=dg.AssetSelection.assets(*assets))
        schedule = dg.ScheduleDefinition(
            name=f"{config.source}_ingest_schedule",
            job=job,
            cron_schedule=config.schedule,
            execution_timezone=config.timezone,
        )
        return dg.Definitions(assets=assets, jobs=[job], schedules=[schedule])


def build_stream_asset(config: IngestConfig, stream: StreamConfig) -> dg.AssetsDefinition:
    """Make the asset of one stream; its checks run in the same step."""
    key = dg.AssetKey(list(stream.asset_path))
    kind, _, name = config.base_url.partition(":")
    needed = {POSTGRES} if config.store is None else set()
    needed |= {name} if kind == "resource" else set()
    host = urlsplit(config.base_url).hostname if kind.startswith("http") else config.source

    @dg.asset(
        key=key,
        name=None,
        deps=_deps(config, stream),
        group_name=config.group or layer(key),
        tags={PACKAGE_TAG: "ingest_api"},
        kinds={"rest", _store_kind(config)},
        code_version=table_spec(config, stream).fingerprint,
        pool=config.pool or f"api/{host}",
        required_resource_keys=needed,
        description=f"Stream {stream.name!r} of {config.source!r}, table {stream.table_name}.",
        check_specs=[
            dg.AssetCheckSpec("has_rows", asset=key, description="The table is not empty."),
            dg.AssetCheckSpec("unique_key", asset=key, description=f"({', '.join(stream.primary_key)}) names one row."),
            dg.AssetCheckSpec("no_rejects", asset=key, description="Every record fitted its declared types."),
        ],
    )
    def fetched(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster reads it
        return fetch_in_dagster(context, config, stream)

    return fetched


def _deps(config: IngestConfig, stream: StreamConfig) -> list[dg.AssetKey]:
    """What must be there first: the declared assets, and the parent whose rows a child is read for."""
    above = [config.stream(stream.parent.stream).asset_path] if stream.parent else []
    return [dg.AssetKey(dep.split("/")) for dep in config.deps] + [dg.AssetKey(list(path)) for path in above]


def fetch_in_dagster(
    context: dg.AssetExecutionContext, config: IngestConfig, stream: StreamConfig
) -> dg.MaterializeResult[Any]:
    """Fetch a stream and tell Dagster what was done."""

    def resource(name: str) -> object:
        return getattr(context.resources, name)

    url = config.store.get_secret_value() if config.store else context.resources.postgres.get_url()
    with dagster_errors(), opened(url) as store, connected(config, resource=resource) as client:
        report = run_stream(config, stream, store, client)
        spec = table_spec(config, stream)
        repeated = store.duplicates(spec)
    said = "no row changed" if report.is_unchanged else f"{report.inserted} new, {report.updated} changed"
    context.log.info("%s: %d pages (%d unchanged), %s", report.table, report.pages, report.not_modified, said)
    return dg.MaterializeResult(
        metadata=_metadata(report, stream),
        data_version=dg.DataVersion(str(report.version)),
        check_results=[
            dg.AssetCheckResult(check_name="has_rows", passed=report.rows > 0, metadata={"rows": report.rows}),
            dg.AssetCheckResult(check_name="unique_key", passed=repeated == 0, metadata={"repeated_keys": repeated}),
            dg.AssetCheckResult(
                check_name="no_rejects", passed=report.rejected == 0, metadata={"rejected": report.rejected}
            ),
        ],
    )


def _metadata(report: StreamReport, stream: StreamConfig) -> dict[str, Any]:
    facts = {
        name: getattr(report, name)
        for name in (
            "requests",
            "retries",
            "pages",
            "not_modified",
            "records",
            "inserted",
            "updated",
            "unchanged",
            "duplicates",
            "rejected",
            "rereads",
            "partitions",
            "splits",
            "commits",
            "wait_s",
            "cursor",
        )
    }
    return materialization(
        rows=report.rows,
        table=report.table,
        schema=[(name, field.type) for name, field in stream.fields.items()],
        bytes=report.bytes,
        seconds=report.seconds,
        did_work=not report.is_unchanged,
        **facts,
    )


def _store_kind(config: IngestConfig) -> str:
    if config.store is None:
        return "postgres"
    scheme = config.store.get_secret_value().partition(":")[0]
    return "postgres" if scheme.startswith("postgres") else scheme
