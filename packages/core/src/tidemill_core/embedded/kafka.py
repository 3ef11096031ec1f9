"""The embedded Kafka broker of a Tidemill home: librdkafka's mock, in a process of its own.

It speaks Kafka's protocol from memory. What it cannot do decides who may use it: it has no
CreateTopics (topics make themselves, with 4 partitions), no transactions that hide aborted
records, and it keeps about 5 MB per partition, dropping the head of the log silently when
more comes; so producers must compress large batches, and consumers must check that the low
watermark is 0. Its topics end with it; `EmbeddedServer.identity` tells one broker from the next.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from tidemill_core.embedded._base import EmbeddedServer
from tidemill_core.embedded.lease import acquire
from tidemill_core.services._base import Launch
from tidemill_core.services.errors import ServiceMissing

PARTITIONS = 4
"""Partitions of every topic of the mock."""
STATE = "broker.json"
"""File in the broker's folder that says where it listens."""
IDLE_S = 60.0
"""Seconds without any lease after which the broker ends."""


def ensure_kafka(home: Path) -> EmbeddedServer:
    """Take part in the mock broker of `home`, starting it if it does not run.

    The broker ends by itself a minute after the last process that takes part.

    Raises:
        ServiceError: confluent-kafka is not installed, or the broker did not start.
    """
    folder = home.absolute() / "kafka"
    lease = acquire(KafkaMockService(), folder, stop_last=False)
    state = json.loads((folder / STATE).read_text())
    return EmbeddedServer(
        url=state["bootstrap"], pid=lease.running.pid, started=lease.started, identity=state["identity"]
    )


def identity_of(home: Path, bootstrap: str) -> str | None:
    """Name the embedded broker that listens at `bootstrap`; None if it is not the one of `home`."""
    try:
        state = json.loads((home.absolute() / "kafka" / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(state["identity"]) if state.get("bootstrap") == bootstrap else None


def producer_defaults() -> dict[str, str | int]:
    """Give producer options that the mock needs and that suit a real broker too.

    Large compressed batches: the mock serves one message set per fetch, and drops what
    exceeds its few megabytes per partition.
    """
    return {
        "enable.idempotence": "true",
        "acks": "all",
        "linger.ms": 100,
        "batch.num.messages": 10_000,
        "batch.size": 1_000_000,
        "compression.type": "zstd",
    }


def consumer_defaults() -> dict[str, str | int]:
    """Give consumer options under which the mock is fast and that suit a real broker too."""
    return {"fetch.wait.max.ms": 5, "fetch.min.bytes": 1, "auto.offset.reset": "earliest"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaMockService:
    """The mock broker.

    Attributes:
        idle_s: Seconds without any lease after which it ends by itself.
    """

    idle_s: float = IDLE_S

    @property
    def name(self) -> str:
        """``kafka-mock``."""
        return "kafka-mock"

    @property
    def version(self) -> str:
        """Version of confluent-kafka."""
        try:
            return version("confluent-kafka")
        except PackageNotFoundError:
            return "none"

    def fetch(self) -> Path:
        """Check that the client library, which the broker is part of, is installed."""
        if find_spec("confluent_kafka") is None:
            raise ServiceMissing(self.name, "confluent-kafka", "install `tidemill-core[servers]`")
        return Path(sys.executable)

    def prepare(self, folder: Path, port: int) -> Launch:  # noqa: ARG002 - librdkafka chooses the port
        """Forget the last broker."""
        (folder / STATE).unlink(missing_ok=True)
        module = ("-m", "tidemill_core.embedded.kafka_mock")
        return Launch(
            command=(sys.executable, *module, str(folder), str(self.idle_s)), cwd=folder, url=str(folder / STATE)
        )

    def is_ready(self, launch: Launch) -> bool:
        """The broker has written where it listens, and accepts connections there."""
        try:
            host, _, port = json.loads(Path(launch.url).read_text())["bootstrap"].rpartition(":")
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError, KeyError):
            return False
        return True
