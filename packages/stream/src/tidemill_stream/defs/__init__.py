"""Tidemill's stream processor for Dagster."""

from tidemill_stream.defs.component import StreamDrainComponent, StreamDrainConfig
from tidemill_stream.defs.service import StreamServiceComponent, StreamServiceConfig

__all__ = ["StreamDrainComponent", "StreamDrainConfig", "StreamServiceComponent", "StreamServiceConfig"]
