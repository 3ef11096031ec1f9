"""Tell lineage what was read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tidemill_core.lineage_hooks import Column, announce_read, announce_wrote

from tidemill_stream.kafka.source import log_urn
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Counts
from tidemill_stream.sinks._base import NamesDatasets, SinkContext, open_sinks

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
    for name, urn in dataset_urns(context):
        columns = _columns(plan, name, plan.arrow_schemas[name], topics)
        announce_wrote(urn, job=job, inputs=topics, columns=columns, rows=counts[name], asset_key=asset_keys.get(name))


def dataset_urns(context: SinkContext) -> list[tuple[str, str]]:
    """Name every dataset the pipeline writes, with the output it holds."""
    sinks = open_sinks(context)
    try:
        return [named for sink in sinks if isinstance(sink, NamesDatasets) for named in sink.datasets().items()]
    finally:
        for sink in sinks:
            sink.close()


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
