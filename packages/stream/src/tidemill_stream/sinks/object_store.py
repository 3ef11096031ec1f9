"""Rows, windows and dead letters as Parquet files in an object store, committed by a manifest.

Per commit and partition: first the data files, under names nobody else uses, then one
manifest entry that lists them and holds the offset and the window state. The entry can be
created only once, so it is the commit point and the fence in one (see `manifest`).
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tidemill_stream.errors import Fenced, PipelineInvalid
from tidemill_stream.progress import Claim, Output, Partition, Progress
from tidemill_stream.sink_settings import SinkSettings, takes
from tidemill_stream.sinks._base import Lease, SinkContext, StoredLetter, Written
from tidemill_stream.sinks.manifest import FileEntry, Manifest, data_key, entry_of, read_manifest, restarted, sweep

if TYPE_CHECKING:
    import pyarrow as pa


_CLAIM_TRIES = 20


_PREFIX = r"^[A-Za-z0-9_][A-Za-z0-9_.=-]*(/[A-Za-z0-9_][A-Za-z0-9_.=-]*)*$"
Prefix = Annotated[str, Field(pattern=_PREFIX)]


class ObjectStoreSinkConfig(SinkSettings):
    """Rows, windows and dead letters as Parquet files, committed by a manifest."""

    type: Literal["object_store"]
    """This sink."""
    url: str
    """Store and prefix: ``lake://events``, ``s3://bucket/prefix``, ``file:///folder``."""
    rows: Prefix | None = None
    """Key prefix of the row files; unset means rows are not stored here."""
    windows: Prefix | None = None
    """Key prefix of the window files."""
    dlq: Prefix | None = None
    """Key prefix of the dead-letter files."""
    manifest: Prefix = "_manifest"
    """Key prefix of the manifest, the list of committed files."""

    def outputs(self) -> Mapping[str, str]:
        """Tell the key prefix of each output that has one."""
        given = {"rows": self.rows, "windows": self.windows, "dlq": self.dlq}
        return {name: prefix for name, prefix in given.items() if prefix}

    def place(self) -> str:
        """Name the sink by its store."""
        return self.url

    def owned(self) -> list[str]:
        """Name the prefixes that no other pipeline may fill."""
        return [f"{self.url}/{prefix}" for prefix in (self.rows, self.windows) if prefix]

    def resources(self) -> set[str]:
        """Take the store's options from Dagster."""
        return {"lake"}

    def kinds(self) -> set[str]:
        """Show Parquet."""
        return {"parquet"}

    def asset_facts(self, output: str) -> Mapping[str, str]:
        """Tell the URL under which an output's files lie."""
        prefix = self.outputs().get(output)
        return {} if prefix is None else {"prefix": f"{self.url.rstrip('/')}/{prefix}/"}


@takes(ObjectStoreSinkConfig)
def open_object_store(config: ObjectStoreSinkConfig, context: SinkContext) -> ObjectStoreSink:
    """Open the object-store sink of a pipeline."""
    return ObjectStoreSink(config, context)


class ObjectStoreSink:
    """The exactly-once object-store sink."""

    def __init__(self, config: ObjectStoreSinkConfig, context: SinkContext) -> None:
        self.name = config.place()
        self._config, self._context = config, context
        self._pipeline = context.plan.config.name
        self._store = context.open_store(config.url)
        self._manifest = Manifest(self._store, config.manifest, self._pipeline)
        self._prefixes = dict(config.outputs())
        self._held: dict[Partition, tuple[int, int]] = {}  # the next entry's number, and our epoch

    def prepare(self) -> None:
        """Check that the store can keep the promise.

        Raises:
            PipelineInvalid: The store has no conditional writes.
        """
        if not self._store.capabilities.put_if_absent:
            raise PipelineInvalid(
                self._pipeline, f"{self._store.url} cannot create an object only if it is absent; choose another store"
            )

    def read(self, topics: Sequence[str]) -> dict[Partition, Progress]:
        """Read the newest entry of every partition."""
        heads = {partition: self._manifest.head(partition) for partition in self._manifest.partitions(topics)}
        return {partition: head.progress for partition, head in heads.items() if head is not None}

    def claim(self, claims: Mapping[Partition, Claim]) -> dict[Partition, Progress]:
        """Append a claim entry of the next epoch to each partition."""
        return {partition: self._claim_one(partition, claim) for partition, claim in sorted(claims.items())}

    def _claim_one(self, partition: Partition, claim: Claim) -> Progress:
        for _ in range(_CLAIM_TRIES):
            head = self._manifest.head(partition)
            progress = Progress(offset=claim.start) if head is None else head.progress
            if claim.restart:
                progress = restarted(progress, start=claim.start, incarnation=claim.incarnation)
            progress = replace(
                progress,
                epoch=progress.epoch + 1,
                incarnation=claim.incarnation or progress.incarnation,
                log_end=max(claim.log_end, progress.log_end),
            )
            seq = 1 if head is None else head.seq + 1
            if self._append("claim", partition, seq, progress, restart=claim.restart):
                self._held[partition] = seq + 1, progress.epoch
                return progress
        raise Fenced(self.name, *partition, -1)

    def commit(self, outputs: Sequence[Output]) -> Written:
        """Write the files of each partition, then its entry."""
        rows, size = dict.fromkeys(self._prefixes, 0), 0
        for output in outputs:
            for each in self._commit_one(output):
                rows[each.output] += each.rows
                size += each.bytes
        return Written(rows=rows, bytes=size)

    def _commit_one(self, output: Output) -> tuple[FileEntry, ...]:
        partition = output.partition
        if partition not in self._held:
            raise Fenced(self.name, *partition, -1)
        seq, epoch = self._held[partition]
        files = tuple(self._write_files(output, epoch))
        progress = replace(output.progress, epoch=epoch)
        if not self._append("commit", partition, seq, progress, files=files):
            del self._held[partition]
            self._store.delete([each.key for each in files])
            raise Fenced(self.name, *partition, epoch)
        self._held[partition] = seq + 1, epoch
        return files

    def _write_files(self, output: Output, epoch: int) -> list[FileEntry]:
        span = output.start, output.progress.offset
        files = []
        for name, batches in _batches(output).items():
            if name not in self._prefixes or not batches:
                continue
            data = _parquet(batches)
            key = data_key(self._prefixes[name], output.partition, span, epoch)
            self._store.put(key, data, content_type="application/vnd.apache.parquet")
            files.append(
                FileEntry(
                    output=name,
                    key=key,
                    start=span[0],
                    end=span[1],
                    rows=sum(batch.num_rows for batch in batches),
                    bytes=len(data),
                    sha256=sha256(data).hexdigest(),
                )
            )
        return files

    def _append(
        self, kind: Literal["claim", "commit"], partition: Partition, seq: int, progress: Progress, **more: Any
    ) -> bool:
        entry = entry_of(
            progress,
            partition,
            kind=kind,
            token=secrets.token_hex(16),
            owner=self._context.owner,
            pipeline=self._pipeline,
            epoch=progress.epoch,
            written_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **more,
        )
        return self._manifest.append(partition, seq, entry, progress.pack())

    def renew(self, partitions: Sequence[Partition]) -> None:
        """Check that no newer claim has been made."""
        for partition in partitions:
            seq, epoch = self._held.get(partition, (1, -1))
            if self._manifest.has_entry_after(partition, seq - 1):
                raise Fenced(self.name, *partition, epoch)

    def release(self, partitions: Sequence[Partition]) -> None:
        """Forget the epochs of partitions we give up."""
        for partition in partitions:
            self._held.pop(partition, None)

    def lease(self, topics: Sequence[str]) -> Lease | None:  # noqa: ARG002 - the contract's signature
        """A manifest knows owners, not whether they live."""
        return None

    def held(self) -> Mapping[str, int]:
        """Count the rows of the committed files; a committed file that is missing or of another size counts nothing."""
        committed = read_manifest(self._store, self._pipeline, self._config.manifest)
        found = {}
        for output in self._prefixes.keys() & {"rows", "windows"}:
            sizes = {info.key: info.size_bytes for info in self._store.list(f"{self._prefixes[output]}/")}
            found[output] = sum(
                each.rows for each in committed if each.output == output and sizes.get(each.key) == each.bytes
            )
        return found

    def letters(self, reasons: Sequence[str] = ()) -> Iterator[StoredLetter]:
        """Read the dead letters of the committed files."""
        import pyarrow.parquet as pq

        for each in read_manifest(self._store, self._pipeline, self._config.manifest):
            if each.output == "dlq":
                for row in pq.read_table(io.BytesIO(self._store.get(each.key))).to_pylist():
                    if not reasons or row["reason"] in reasons:
                        yield StoredLetter.of(row)

    def datasets(self) -> Mapping[str, str]:
        """Name each prefix by its store."""
        return {name: self._store.uri(f"{prefix}/") for name, prefix in self._prefixes.items()}

    def tidy(self) -> int:
        """Delete the files of commits that were abandoned (see `manifest.sweep`)."""
        return len(sweep(self._store, self._pipeline, self._prefixes.values(), prefix=self._config.manifest))

    def close(self) -> None:
        """Forget the epochs."""
        self._held.clear()


def _batches(output: Output) -> dict[Literal["rows", "windows", "dlq"], list[pa.RecordBatch]]:
    return {
        "rows": [batch for batch in output.rows if batch.num_rows],
        "windows": [] if output.windows is None else [output.windows],
        "dlq": [] if output.dead is None else [output.dead],
    }


def _parquet(batches: Sequence[pa.RecordBatch]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_batches(batches), buffer, compression="zstd")
    return buffer.getvalue()
