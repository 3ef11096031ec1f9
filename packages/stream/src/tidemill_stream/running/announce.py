"""Tell lineage what was read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill_core.lineage_hooks import Column, announce_read, announce_wrote

from tidemill_stream.config import ObjectStoreSinkConfig, PostgresSinkConfig
from tidemill_stream.kafka.source import log_urn
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Counts
from tidemill_stream.sinks._base import SinkContext

if TYPE_CHECKING:
    import pyarrow as pa


def announce(plan: Plan, servers: str, context: SinkContext, totals: Counts, *, asset_keys: Mapping[str, str]) -> None:
    """Announce the topics as read, and each output of each sink as written from them."""
    if not totals.consumed:
        return
    job = f"stream/{plan.config.name}"
    topics = [log_urn(servers, topic) for topic in plan.config.source.topics]
    for urn in topics:
        announce_read(urn, job=job, rows=totals.consumed)
    counts = {"rows": totals.rows, "windows": totals.windows, "dlq": None}
    for name, urn in dataset_urns(plan, context):
        columns = _columns(plan, name, plan.arrow_schemas[name], topics)
        announce_wrote(urn, job=job, inputs=topics, columns=columns, rows=counts[name], asset_key=asset_keys.get(name))


def dataset_urns(plan: Plan, context: SinkContext) -> list[tuple[str, str]]:
    """Name every dataset the pipeline writes, with the output it holds."""
    found = []
    for sink in plan.config.sinks:
        if isinstance(sink, PostgresSinkConfig):
            from tidemill_core.postgres import dataset_urn

            url = context.postgres_url() if sink.url is None else sink.url.get_secret_value()
            tables = {"rows": sink.rows_table, "windows": sink.windows_table, "dlq": sink.dlq_table}
            found += [(name, dataset_urn(url, table)) for name, table in tables.items() if table]
        elif isinstance(sink, ObjectStoreSinkConfig):
            store = context.open_store(sink.url)
            prefixes = {"rows": sink.rows, "windows": sink.windows, "dlq": sink.dlq}
            found += [(name, store.uri(f"{prefix}/")) for name, prefix in prefixes.items() if prefix]
    return found


def _columns(plan: Plan, output: str, schema: pa.Schema, topics: list[str]) -> list[Column]:
    sources = {column.name: column.path for column in plan.columns} if output == "rows" else {}
    if output == "windows" and plan.window is not None:
        sources = {key.name: key.path for key in plan.window.keys}
        sources |= {name: agg.field for name, agg in plan.window.config.aggs.items() if agg.field is not None}
    return [
        Column(
            name=field.name,
            type=str(field.type),
            sources=tuple((topic, sources[field.name]) for topic in topics if field.name in sources),
        )
        for field in schema
    ]
