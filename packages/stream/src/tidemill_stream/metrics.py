"""The stream's Prometheus metrics; partitions are few, so they may be a label."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tidemill_core.telemetry.metrics import counter, gauge, histogram

from tidemill_stream.progress import Counts

if TYPE_CHECKING:
    from tidemill_stream.progress import Output

_PLACE = ("pipeline", "topic", "partition")

CONSUMED = counter("tidemill_stream_records_consumed_total", "Records read and accounted for.", _PLACE)
INVALID = counter("tidemill_stream_invalid_total", "Records that are invalid.", ("pipeline", "reason"))
FILTERED = counter("tidemill_stream_filtered_total", "Records the filter left out.", ("pipeline",))
LATE = counter("tidemill_stream_late_total", "Records that came after their window had closed.", ("pipeline",))
ROWS_WRITTEN = counter("tidemill_stream_rows_written_total", "Rows written.", ("pipeline", "sink"))
DEAD_LETTERS = counter("tidemill_stream_dlq_total", "Dead letters written.", ("pipeline",))
LAG = gauge("tidemill_stream_lag_records", "Records in the log after our position.", _PLACE)
WATERMARK_DELAY = gauge("tidemill_stream_watermark_delay_seconds", "Wall clock minus the watermark.", _PLACE)
CHECKPOINT = histogram("tidemill_stream_checkpoint_duration_seconds", "Time a commit took.", ("pipeline",))
CHECKPOINT_AGE = gauge(
    "tidemill_stream_checkpoint_age_seconds", "Time since the last commit or idle check.", ("pipeline",)
)
STATE_KEYS = gauge("tidemill_stream_state_keys", "Open windows.", _PLACE)
STATE_BYTES = gauge("tidemill_stream_state_bytes", "Size of the stored window state.", _PLACE)
REBALANCES = counter("tidemill_stream_rebalances_total", "Changes of the assignment.", ("pipeline",))
FENCED = counter(
    "tidemill_stream_fenced_total", "Commits refused because another worker had taken over.", ("pipeline",)
)
BATCH = histogram(
    "tidemill_stream_batch_size",
    "Records fetched at once.",
    ("pipeline",),
    buckets=(1, 10, 100, 1_000, 10_000, 100_000),
)
LATENCY = gauge(
    "tidemill_stream_end_to_end_latency_seconds", "From a record's Kafka timestamp to its commit.", ("pipeline",)
)


def batch(pipeline: str, size: int) -> None:
    """Note a fetched batch."""
    BATCH.labels(pipeline=pipeline).observe(size)


def processed(pipeline: str, output: Output, done: Counts) -> None:
    """Note what a commit of one partition covered."""
    place = {"pipeline": pipeline, "topic": output.partition.topic, "partition": output.partition.number}
    CONSUMED.labels(**place).inc(done.consumed)
    FILTERED.labels(pipeline=pipeline).inc(done.filtered)
    LATE.labels(pipeline=pipeline).inc(done.late)
    for reason, count in output.reasons.items():
        INVALID.labels(pipeline=pipeline, reason=reason).inc(count)
    if output.progress.windows:
        STATE_BYTES.labels(**place).set(len(output.progress.pack()))
    if output.last_timestamp_ms:
        LATENCY.labels(pipeline=pipeline).set(max(0.0, time.time() - output.last_timestamp_ms / 1000))


def committed(pipeline: str, seconds: float) -> None:
    """Note a commit."""
    CHECKPOINT.labels(pipeline=pipeline).observe(seconds)
