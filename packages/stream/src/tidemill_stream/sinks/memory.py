"""A sink in this process's memory, for tests and for trying a pipeline out; it keeps the whole contract."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from tidemill_stream.errors import Fenced
from tidemill_stream.progress import Claim, Output, Partition, Progress
from tidemill_stream.sink_settings import OUTPUTS, SinkSettings, takes
from tidemill_stream.sinks._base import Lease, SinkContext, Written


class MemorySinkConfig(SinkSettings):
    """Everything into lists of this process: for tests and for trying a pipeline out."""

    takes_windows_if_any: ClassVar[bool] = True

    type: Literal["memory"]
    """This sink."""
    name: str = "memory"
    """Which of the process's memory sinks."""

    def outputs(self) -> Mapping[str, str]:
        """Take everything."""
        return dict.fromkeys(OUTPUTS, self.name)

    def place(self) -> str:
        """Name the sink by its lists."""
        return f"memory:{self.name}"

    def asset_facts(self, output: str) -> Mapping[str, str]:  # noqa: ARG002 - the contract's signature
        """Nothing that outlives the process."""
        return {}


@dataclass(slots=True)
class MemoryTables:
    """What a memory sink holds: outputs in commit order, and progress."""

    outputs: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"rows": [], "windows": [], "dlq": []})
    progress: dict[Partition, tuple[Progress, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[tuple[str, str], MemoryTables] = {}


def memory_tables(pipeline: str, name: str = "memory") -> MemoryTables:
    """Find what the memory sink `name` of a pipeline holds."""
    return _TABLES.setdefault((pipeline, name), MemoryTables())


@takes(MemorySinkConfig)
def open_memory(config: MemorySinkConfig, context: SinkContext) -> MemorySink:
    """Open the memory sink of a pipeline."""
    tables = memory_tables(context.plan.config.name, config.name)
    return MemorySink(config.place(), tables, is_fencing=context.is_fencing)


class MemorySink:
    """Outputs as lists of dictionaries."""

    def __init__(self, name: str, tables: MemoryTables, *, is_fencing: bool = True) -> None:
        self.name, self.tables, self._is_fencing = name, tables, is_fencing
        self._epochs: dict[Partition, int] = {}

    def prepare(self) -> None:
        """Nothing to create."""

    def read(self, topics: Sequence[str]) -> dict[Partition, Progress]:
        """Read the stored progress."""
        with self.tables.lock:
            return {
                partition: progress.unpack(state)
                for partition, (progress, state) in self.tables.progress.items()
                if partition.topic in topics
            }

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        """Raise the epochs."""
        with self.tables.lock:
            for partition, claim in claims.items():
                fresh = Progress(offset=claim.start, incarnation=claim.incarnation)
                found, state = self.tables.progress.get(partition, (fresh, fresh.pack()))
                epoch = found.epoch + 1
                if claim.restart:
                    self._drop(partition)
                    found, state = fresh, fresh.pack()
                incarnation, log_end = claim.incarnation or found.incarnation, max(claim.log_end, found.log_end)
                found = replace(found, epoch=epoch, incarnation=incarnation, log_end=log_end)
                self.tables.progress[partition] = (found, state)
                self._epochs[partition] = epoch
        return {p: progress for p, progress in self.read([p.topic for p in claims]).items() if p in claims}

    def commit(self, outputs: Sequence[Output]) -> Written:
        """Append outputs and store progress, all or nothing."""
        rows = {"rows": 0, "windows": 0, "dlq": 0}
        with self.tables.lock:
            self._check([output.partition for output in outputs])
            for output in outputs:
                for name, batches in output.batches().items():
                    for batch in batches:
                        self.tables.outputs[name] += batch.to_pylist()
                        rows[name] += batch.num_rows
                progress = replace(output.progress, epoch=self._epochs[output.partition])
                self.tables.progress[output.partition] = (progress, progress.pack())
        return Written(rows=rows)

    def renew(self, partitions: Sequence[Partition]) -> None:
        """Check that the partitions are still ours."""
        with self.tables.lock:
            self._check(partitions)

    def release(self, partitions: Sequence[Partition]) -> None:
        """Forget the epochs of partitions we give up."""
        for partition in partitions:
            self._epochs.pop(partition, None)

    def lease(self, topics: Sequence[str]) -> Lease | None:  # noqa: ARG002 - the contract's signature
        """Nobody else sees this process's memory."""
        return None

    def tidy(self) -> int:
        """Nothing is left behind."""
        return 0

    def close(self) -> None:
        """Keep the tables: they outlive the sink."""
        self._epochs.clear()

    def _check(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            epoch = self._epochs.get(partition, -1)
            if self._is_fencing and self.tables.progress[partition][0].epoch != epoch:
                raise Fenced(self.name, *partition, epoch)

    def _drop(self, partition: Partition) -> None:
        topic, number = partition
        for name in ("rows", "windows"):
            kept = [r for r in self.tables.outputs[name] if (r["_topic"], r["_partition"]) != (topic, number)]
            self.tables.outputs[name] = kept
        dead = [r for r in self.tables.outputs["dlq"] if (r["topic"], r["partition"]) != (topic, number)]
        self.tables.outputs["dlq"] = dead
