"""librdkafka's mock broker as a process: `python -m tidemill_core.embedded.kafka_mock FOLDER`.

It writes where it listens to the folder, and ends a minute after nobody holds the folder's
lease any more, or when it is told to.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from tidemill_core.embedded.kafka import IDLE_S, STATE
from tidemill_core.embedded.lease import until_unused
from tidemill_core.services.files import write_private


def serve(folder: Path, idle_s: float = IDLE_S) -> None:
    """Run the broker until it is told to stop or nobody has held the lease for `idle_s` seconds."""
    from confluent_kafka import Producer

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    owner = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 2})
    brokers = owner.list_topics(timeout=30).brokers.values()
    bootstrap = ",".join(f"{each.host}:{each.port}" for each in brokers)
    identity = str(uuid.uuid4())
    write_private(folder / STATE, json.dumps({"bootstrap": bootstrap, "identity": identity, "pid": os.getpid()}))
    until_unused(folder, idle_s, is_over=lambda pause_s: stop.wait(pause_s) or not folder.exists())
    with suppress(FileNotFoundError, ValueError):
        if json.loads((folder / STATE).read_text())["identity"] == identity:
            (folder / STATE).unlink()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
