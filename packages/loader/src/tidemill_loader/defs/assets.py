"""The asset of one load: run it, report it, check it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
from tidemill_core.defs import PACKAGE_TAG, PostgresResource, dagster_errors, layer, materialization
from tidemill_core.defs.resources import ObjectStoreResource
from tidemill_core.storage import ObjectStore, open_store, resolve_url

if TYPE_CHECKING:
    from tidemill_loader.defs.options import AssetLoad
    from tidemill_loader.engine import LoadResult

POOL = "postgres"
ROWS_CHECK, SCHEMA_CHECK = "rows_equal_source", "schema_as_planned"


def load_asset(load: "AssetLoad") -> dg.AssetsDefinition:
    """Make the asset of a load."""
    key = dg.AssetKey(load.asset_key.split("/") if load.asset_key else [load.target.schema, load.target.name])

    @dg.asset(
        key=key,
        deps=[dg.AssetKey(dep.split("/")) for dep in load.deps],
        description=load.description or f"{', '.join(load.files)} in the table {load.target}.",
        group_name=load.group or layer(key),
        kinds={"postgres", *_file_kinds(load)},
        tags={PACKAGE_TAG: "loader", **load.tags},
        pool=POOL,
        required_resource_keys=_resources(load),
        check_specs=[
            dg.AssetCheckSpec(ROWS_CHECK, asset=key, description="Every row of the files is loaded or rejected."),
            dg.AssetCheckSpec(SCHEMA_CHECK, asset=key, description="The table has the columns the files call for."),
        ],
    )
    def load_files(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        return _run(context, load, key)

    return load_files


def _file_kinds(load: "AssetLoad") -> set[str]:
    from tidemill_core.errors import ConfigError

    from tidemill_loader.formats import format_for

    try:
        return {format_for(load.format, file) for file in load.files}
    except ConfigError:
        return {"file"}


def _resources(load: "AssetLoad") -> set[str]:
    uses_lake = any(file.startswith("lake://") for file in load.files)
    return ({"lake"} if uses_lake else set()) | (set() if load.postgres_url else {"postgres"})


def _run(context: dg.AssetExecutionContext, load: "AssetLoad", key: dg.AssetKey) -> dg.MaterializeResult[Any]:
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_loader.config import LoadConfig
    from tidemill_loader.engine import run_load
    from tidemill_loader.progress import LogProgress

    config = LoadConfig(**{name: getattr(load, name) for name in load.model_fields_set & set(LoadConfig.model_fields)})
    with dagster_errors(), stop_on_signals() as stop:
        result = run_load(
            config,
            _url(context, load),
            opener=lambda url: _open(context, url),
            stop=stop,
            progress=LogProgress(),
            job=f"load/{key.to_user_string()}",
            asset_key=key.to_user_string(),
        )
    context.log.info(result.sentence())
    return dg.MaterializeResult(
        asset_key=key,
        metadata=_metadata(context, load, result),
        check_results=list(_checks(result, key)),
        data_version=dg.DataVersion(result.version),
    )


def _url(context: dg.AssetExecutionContext, load: "AssetLoad") -> str:
    if load.postgres_url is not None:
        return load.postgres_url.get_secret_value()
    return cast("PostgresResource", context.resources.postgres).get_url()


def _open(context: dg.AssetExecutionContext, url: str) -> ObjectStore:
    """Open a store; ``lake://`` is the resource's, with its credentials."""
    scheme, _, path = url.partition("://")
    if scheme != "lake":
        return open_store(resolve_url(url))
    return cast("ObjectStoreResource", context.resources.lake).open(path)


def _metadata(context: dg.AssetExecutionContext, load: "AssetLoad", result: "LoadResult") -> dict[str, Any]:
    from tidemill_core.postgres import redact

    database = redact(_url(context, load)).rpartition("/")[2]
    return materialization(
        rows=result.table_rows,
        table=f"{database}.{result.table}",
        schema=list(result.columns.items()),
        bytes=result.bytes,
        seconds=result.seconds,
        mode=result.mode,
        files=result.files,
        rows_loaded=result.rows,
        rows_rejected=result.total_rejected,
        units_loaded=result.units,
        units_already_loaded=result.units_skipped,
        did_work=not result.unchanged,
    )


def _checks(result: "LoadResult", key: dg.AssetKey) -> Sequence[dg.AssetCheckResult]:
    accounted = result.total_rows + result.total_rejected
    is_whole = result.source_rows is None or result.source_rows == accounted
    if result.mode == "replace":
        is_whole = is_whole and result.table_rows in (result.total_rows, None)
    rows = dg.AssetCheckResult(
        asset_key=key,
        check_name=ROWS_CHECK,
        passed=is_whole,
        metadata={
            "loaded": result.total_rows,
            "rejected": result.total_rejected,
            "in_table": -1 if result.table_rows is None else result.table_rows,
            **({} if result.source_rows is None else {"in_files": result.source_rows}),
        },
    )
    missing = [name for name in result.planned if name not in result.columns]
    schema = dg.AssetCheckResult(
        asset_key=key, check_name=SCHEMA_CHECK, passed=not missing, metadata={"missing_columns": missing}
    )
    return [rows, schema]
