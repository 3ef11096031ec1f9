"""Kafka to PostgreSQL or an object store: validate, filter, window, exactly once.

    from tidemill_stream import Plan, PipelineConfig, drain, produce, read_manifest

Names are loaded when they are used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_stream.config import PipelineConfig, PipelinesConfig
    from tidemill_stream.defs import StreamDrainComponent, StreamServiceComponent
    from tidemill_stream.errors import Fenced
    from tidemill_stream.kafka.producer import Published, ensure_topic, produce, watermarks
    from tidemill_stream.plan import Plan
    from tidemill_stream.progress import Claim, Output, Partition, Progress
    from tidemill_stream.running.draining import DrainResult, drain
    from tidemill_stream.running.worker import Worker
    from tidemill_stream.sink_settings import SinkSettings
    from tidemill_stream.sinks._base import (
        Lease,
        Sink,
        SinkContext,
        StoredLetter,
        Written,
        sink_context,
    )
    from tidemill_stream.sinks.manifest import CommittedFile, read_manifest, sweep

__all__ = [
    "Claim",
    "CommittedFile",
    "DrainResult",
    "Fenced",
    "Lease",
    "Output",
    "Partition",
    "PipelineConfig",
    "PipelinesConfig",
    "Plan",
    "Progress",
    "Published",
    "Sink",
    "SinkContext",
    "SinkSettings",
    "StoredLetter",
    "StreamDrainComponent",
    "StreamServiceComponent",
    "Worker",
    "Written",
    "drain",
    "ensure_topic",
    "produce",
    "read_manifest",
    "sink_context",
    "sweep",
    "watermarks",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "defs": ["StreamDrainComponent", "StreamServiceComponent"],
        "config": ["PipelineConfig", "PipelinesConfig"],
        "running.draining": ["DrainResult", "drain"],
        "sinks.manifest": ["CommittedFile", "read_manifest", "sweep"],
        "plan": ["Plan"],
        "kafka.producer": ["Published", "ensure_topic", "produce", "watermarks"],
        "sinks._base": [
            "Lease",
            "Sink",
            "SinkContext",
            "StoredLetter",
            "Written",
            "sink_context",
        ],
        "sink_settings": ["SinkSettings"],
        "errors": ["Fenced"],
        "progress": ["Claim", "Output", "Partition", "Progress"],
        "running.worker": ["Worker"],
    },
)
