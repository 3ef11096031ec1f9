"""Start a server in a folder and remember it there, so that any later process finds, reuses or stops it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tidemill_core.services import processes
from tidemill_core.services._base import Launch, Service
from tidemill_core.services.errors import ServiceStartFailed
from tidemill_core.services.files import locked, open_place, write_private

RECORD = "service.json"
LOG = "server.log"
PORT = "port"
_LOG_LIMIT = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One started server, as its folder remembers it."""

    name: str
    version: str
    pid: int
    born: str
    """When the process began; tells it from a later one with its pid."""
    port: int
    url: str
    settings: Mapping[str, str]
    stop_signal: int
    stop_s: float
    folder: str

    @property
    def log(self) -> Path:
        """The server's own output."""
        return Path(self.folder) / LOG

    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return processes.birth(self.pid) == self.born

    def stop(self) -> bool:
        """Stop the server and forget it; False if it was gone already."""
        stopped = processes.stop(self.pid, self.born, stop_signal=self.stop_signal, timeout_s=self.stop_s)
        if self == recall(Path(self.folder)):
            (Path(self.folder) / RECORD).unlink(missing_ok=True)
        return stopped


def recall(folder: Path) -> Running | None:
    """Read what was last started in `folder`, alive or not."""
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
        return Running(**found)
    except (FileNotFoundError, ValueError, TypeError):
        return None


def find(folder: Path) -> Running | None:
    """Read what runs in `folder` now."""
    found = recall(folder)
    return found if found is not None and found.is_alive() else None


def start(service: Service, folder: Path, *, fresh: bool = False) -> tuple[Running, bool]:
    """Start `service` in `folder`, unless it runs there already; one caller at a time.

    Args:
        service: What to start.
        folder: Keeps configuration, data, log and record; made if missing.
        fresh: Throw away the data of an earlier server that has ended.

    Returns:
        The server, and whether this call started it.

    Raises:
        ServiceError: A tool is missing, or the server ended or did not answer in time.
    """
    folder = folder.absolute()
    with locked(folder / "start.lock"):
        found = find(folder)
        if found is not None:
            return found, False
        return launch(service, folder, fresh=fresh), True


def launch(service: Service, folder: Path, *, fresh: bool = False) -> Running:
    """Start `service` in `folder`; the caller holds the folder's start lock."""
    service.fetch()
    if fresh:
        _clear(folder)
    _rotate(folder / LOG)
    try:
        return _launch_once(service, folder, _usual_port(folder))
    except ServiceStartFailed:
        # Another process may have taken the port between our probe and the server's bind.
        return _launch_once(service, folder, processes.free_port())


def _launch_once(service: Service, folder: Path, port: int) -> Running:
    how = service.prepare(folder, port)
    pid = processes.spawn(how, folder / LOG)
    born = processes.birth(pid) or ""
    running = Running(
        name=service.name,
        version=service.version,
        pid=pid,
        born=born,
        port=port,
        url=how.url,
        settings=dict(how.settings),
        stop_signal=int(how.stop_signal),
        stop_s=how.stop_s,
        folder=str(folder),
    )
    write_private(folder / RECORD, json.dumps(asdict(running), indent=2))
    (folder / PORT).write_text(str(port))
    _await_ready(service, how, running)
    return running


def _await_ready(service: Service, how: Launch, running: Running) -> None:
    ended = False

    def settled() -> bool:
        nonlocal ended
        ended = not running.is_alive()
        return ended or service.is_ready(how)

    in_time = processes.wait_until(settled, how.start_s)
    if ended:
        raise ServiceStartFailed(service.name, "the process ended at once", running.log)
    if not in_time:
        running.stop()
        raise ServiceStartFailed(service.name, f"no answer within {how.start_s:g} s", running.log)


def _usual_port(folder: Path) -> int:
    """Choose the port that the folder's last server had, if it is free, so that URLs stay what they were."""
    try:
        port = int((folder / PORT).read_text())
    except (FileNotFoundError, ValueError):
        return processes.free_port()
    return port if processes.is_free(port) else processes.free_port()


def _clear(folder: Path) -> None:
    shutil.rmtree(open_place(folder), ignore_errors=True)
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        elif not each.name.endswith(".lock") and each.name != "lease":
            each.unlink()


def _rotate(log: Path) -> None:
    """Keep the last log beside the new one once it has grown large."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
