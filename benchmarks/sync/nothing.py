"""A run in which nothing has changed: 200,000 keys a side in one flat prefix, listed, compared, nothing copied."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from tidemill_sync.manifests._base import job_id
from tidemill_sync.manifests.open import open_manifest
from tidemill_sync.plan import Entry

from benchmarks.harness import Case, compare
from benchmarks.sync._lists import etag_of, key_of
from benchmarks.sync._server import ours, rclone, s5cmd

COUNT, LARGE = 200_000, 1_000_000


class Lists:
    """The listing server in a process of its own; as much of `Server` as the commands ask."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "benchmarks.sync._lists", str(count)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"
        self._before = 0

    def mark(self) -> None:
        """Count from here on."""
        self._before = self._requests()

    def seen(self) -> Mapping[str, float]:
        """Requests since the mark."""
        return {"requests": self._requests() - self._before}

    def stop(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()

    def _requests(self) -> int:
        with urllib.request.urlopen(f"{self.url}/requests") as reply:
            return int(reply.read())


@contextmanager
def listing(count: int) -> Iterator[Lists]:
    """Serve two equal buckets, with the notes of an earlier run beside."""
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-sync-") as folder:
        lists = Lists(Path(folder), count)
        try:
            with closing(open_manifest(f"sqlite:///{folder}/sync.db")) as manifest:
                notes = (Entry(key_of(each), 4096, etag_of(each), etag_of(each)) for each in range(count))
                manifest.save(job_id("s3://source", "s3://target"), notes)
            yield lists
        finally:
            lists.stop()


def main(*, count: int = COUNT, large: int = LARGE, rounds: int = 3) -> None:
    """Let each tool find that nothing has changed; then ours alone with more keys."""
    with listing(count) as lists:
        cases = [
            ours(lists, "tidemill"),
            rclone(lists, "rclone --checksum", "--checksum"),
            s5cmd(lists, "s5cmd"),
        ]
        found = [_marked(case, lists) for case in cases if case is not None]
        with listing(large) as larger:
            many = _marked(ours(larger, f"tidemill, {large} keys a side"), larger)
            compare(
                "sync_nothing" if count == COUNT else "sync_nothing_tiny",
                [*found, many],
                baseline="rclone --checksum" if len(found) > 1 else "tidemill",
                rounds=rounds,
                packages=("tidemill-sync",),
                note=f"{count} keys a side, flat, from a server that only lists; rclone 1.75.2, s5cmd 2.3.0",
            )


def _marked(case: Case, lists: Lists) -> Case:
    from dataclasses import replace

    return replace(case, before=lists.mark)


if __name__ == "__main__":
    main()
