"""Apache Kafka: one node in KRaft mode, from its jars."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Launch
from tidemill_core.services.errors import ServiceStartFailed
from tidemill_core.services.fetching import fetch_maven, maven_version, tool
from tidemill_core.services.processes import free_port

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaService:
    """A Kafka broker that is its own controller.

    Attributes:
        heap: The JVM's ``-Xmx``.
    """

    heap: str = "1g"

    @property
    def name(self) -> str:
        """``kafka``."""
        return "kafka"

    @property
    def version(self) -> str:
        """The pinned version of Apache Kafka."""
        return maven_version("kafka")

    def fetch(self) -> Path:
        """Download the jars."""
        tool(self.name, "java")
        return fetch_maven(self.name, self.version)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Write server.properties and format the log folder once."""
        java, jars, data = tool(self.name, "java"), f"{self.fetch()}/*", folder / "data"
        properties = folder / "server.properties"
        properties.write_text(_PROPERTIES.format(port=port, controller=free_port(), data=data))
        if not (data / "meta.properties").exists():
            self._format(java, jars, folder)
        bootstrap = f"127.0.0.1:{port}"
        return Launch(
            command=(java, f"-Xmx{self.heap}", "-cp", jars, "kafka.Kafka", str(properties)),
            cwd=folder,
            url=bootstrap,
            settings={"TIDEMILL_KAFKA_BOOTSTRAP": bootstrap, "TIDEMILL_TEST_KAFKA_BOOTSTRAP": bootstrap},
        )

    def is_ready(self, launch: Launch) -> bool:
        """Ask for metadata: a broker that takes part in the cluster lists itself."""
        host, _, port = launch.url.rpartition(":")
        try:
            return brokers(host, int(port)) > 0
        except (OSError, struct.error):
            return False

    def _format(self, java: str, jars: str, folder: Path) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        log = folder / "format.log"
        command = [java, "-Xmx256m", "-cp", jars, "kafka.tools.StorageTool", "format", "-t", cluster]
        with log.open("wb") as output:
            code = subprocess.run(
                [*command, "-c", str(folder / "server.properties")], stdout=output, stderr=output, check=False
            ).returncode
        if code != 0:
            raise ServiceStartFailed(self.name, f"formatting its folder ended with {code}", log)


def brokers(host: str, port: int) -> int:
    """Count the brokers a Kafka server knows (a Metadata request, version 1, for no topics).

    Raises:
        OSError: It cannot be reached.
    """
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    with socket.create_connection((host, port), timeout=5) as connection:
        connection.sendall(struct.pack(">i", len(body)) + body)
        with connection.makefile("rb") as answer:
            _size, _correlation, count = struct.unpack(">iii", answer.read(12))
    return int(count)
