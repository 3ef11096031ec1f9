"""First sync of 5,000 objects of 4 KiB, S3 to S3 through the client, 16 workers, every object verified."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import compare
from benchmarks.sync._server import Server, fill, ours, rclone, serving

COUNT, SIZE_BYTES, WORKERS = 5_000, 4 << 10, 16


def main(*, count: int = COUNT, rounds: int = 5) -> None:
    """Fill a bucket, and let each tool copy it into an empty one."""
    with serving() as server:
        fill(server.bucket("source"), count, SIZE_BYTES)
        at_once = ("--transfers", str(WORKERS), "--checkers", str(WORKERS))
        cases = [
            ours(server, "tidemill", "--workers", str(WORKERS)),
            rclone(server, "rclone", *at_once),
            rclone(server, "rclone --s3-no-head", "--s3-no-head", *at_once),
        ]
        compare(
            "sync_small" if count == COUNT else "sync_small_tiny",
            [replace(case, before=lambda: _fresh(server)) for case in cases if case is not None],
            baseline="rclone" if cases[1] else "tidemill",
            rounds=rounds,
            packages=("tidemill-sync",),
            note=f"{count} x 4 KiB, S3 to S3 (versitygw), {WORKERS} workers; rclone 1.75.2",
        )


def _fresh(server: Server) -> None:
    server.clear("target")
    for path in server.folder.glob("sync.db*"):
        path.unlink()
    server.mark()


if __name__ == "__main__":
    main()
