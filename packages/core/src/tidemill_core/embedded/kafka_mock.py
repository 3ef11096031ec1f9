"""librdkafka's mock broker as a process: `python -m tidemill_core.embedded.kafka_mock FOLDER`.

It writes where it listens to the folder, and ends a minute after nobody holds the folder's
lease any more, or when it is told to.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from tidemill_core.embedded.kafka import IDLE_S, STATE
from tidemill_core.embedded.lease import LEASE, START_LOCK
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
    _until_unused(folder, stop, idle_s)
    with suppress(FileNotFoundError, ValueError):
        if json.loads((folder / STATE).read_text())["identity"] == identity:
            (folder / STATE).unlink()


def _until_unused(folder: Path, stop: threading.Event, idle_s: float) -> None:
    """Wait until told to stop, or until the lease has been free for `idle_s` seconds.

    The end is decided under the start lock, so that nobody takes part in a broker that is leaving.
    """
    last_used = time.monotonic()
    start_lock = os.open(folder / START_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lease = os.open(folder / LEASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while not stop.wait(min(1.0, idle_s / 4)):
        if not folder.exists():
            return
        if not _take(start_lock):
            last_used = time.monotonic()
            continue
        if not _take(lease):
            last_used = time.monotonic()
        elif time.monotonic() - last_used > idle_s:
            return  # both locks end with the process
        fcntl.flock(lease, fcntl.LOCK_UN)
        fcntl.flock(start_lock, fcntl.LOCK_UN)


def _take(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
