"""Values that tasks hand to later tasks, kept as Dagster metadata so that any worker can read them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import BadOutputs

METADATA_KEY = "tidemill/outputs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one step's outputs are written down."""

    step_key: str
    asset_key: dg.AssetKey | None
    """None in a DAG of ops."""


def encode(values: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """Make the metadata entry that carries outputs."""
    return {METADATA_KEY: dg.MetadataValue.json(json.loads(json.dumps(dict(values), default=str)))} if values else {}


def read(
    instance: dg.DagsterInstance, run_id: str, sources: Sequence[Source], *, partition: str | None
) -> dict[str, Any]:
    """Read the outputs of a task; of a task with a matrix, each output is a list over its copies.

    Raises:
        BadOutputs: A step has never written any.
    """
    found = [_read_one(instance, run_id, source, partition) for source in sources]
    if len(found) == 1:
        return found[0]
    names = dict.fromkeys(name for values in found for name in values)
    return {name: [values.get(name) for values in found] for name in names}


def _read_one(instance: dg.DagsterInstance, run_id: str, source: Source, partition: str | None) -> dict[str, Any]:
    for metadata in _metadata(instance, run_id, source, partition):
        value = metadata.get(METADATA_KEY)
        if value is not None:
            return dict(value.value)
    raise BadOutputs(f"step {source.step_key!r} has returned no outputs yet; run it first, or drop --only / --from")


def _metadata(
    instance: dg.DagsterInstance, run_id: str, source: Source, partition: str | None
) -> Iterator[Mapping[str, Any]]:
    if source.asset_key is not None:
        partitions = [partition] if partition else None
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=source.asset_key, asset_partitions=partitions), limit=1
        ).records
        for record in records:
            if record.asset_materialization is not None:
                yield record.asset_materialization.metadata
        return
    run = instance.get_run_by_id(run_id)
    while run is not None:
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_OUTPUT):
            event = entry.dagster_event
            if event is not None and event.step_key == source.step_key:
                yield event.step_output_data.metadata
        run = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
