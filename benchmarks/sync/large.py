"""First sync of 8 objects of 64 MiB, S3 to S3 through the client, 8 workers, a checksum of every byte."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import compare
from benchmarks.sync._server import Server, fill, ours, rclone, serving

COUNT, SIZE_BYTES, WORKERS = 8, 64 << 20, 8


def main(*, count: int = COUNT, rounds: int = 3) -> None:
    """Fill a bucket, and let each tool copy it into an empty one."""
    with serving() as server:
        fill(server.bucket("source"), count, SIZE_BYTES)
        cases = [
            ours(server, "tidemill", "--workers", str(WORKERS)),
            rclone(server, "rclone", "--transfers", str(WORKERS), "--checkers", str(WORKERS)),
        ]
        compare(
            "sync_large" if count == COUNT else "sync_large_tiny",
            [replace(case, before=lambda: _fresh(server)) for case in cases if case is not None],
            baseline="rclone" if cases[1] else "tidemill",
            rounds=rounds,
            packages=("tidemill-sync",),
            note=f"{count} x 64 MiB, S3 to S3 (versitygw), {WORKERS} workers; rclone 1.75.2",
        )


def _fresh(server: Server) -> None:
    server.clear("target")
    for path in server.folder.glob("sync.db*"):
        path.unlink()
    server.mark()


if __name__ == "__main__":
    main()
