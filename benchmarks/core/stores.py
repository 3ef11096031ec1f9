"""CPU an object of the S3 store against boto3 and obstore, on a server of the benchmark's own (versitygw)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from tidemill_core.services import s3

from benchmarks.harness import Case, compare
from benchmarks.peers import peer_python
from benchmarks.sync._server import Server, serving

PEERS = ("obstore==0.12.1", "boto3==1.44.5")
_CLIENT = Path(__file__).parent / "_store_client.py"
SHAPES = {
    "core_store_put_4k": ("put", 2_000, 4 << 10, 1),
    "core_store_get_4k": ("get", 2_000, 4 << 10, 1),
    "core_store_put_4k_16_threads": ("put", 4_000, 4 << 10, 16),
    "core_store_put_64m": ("put", 4, 64 << 20, 1),
    "core_store_get_64m": ("get", 4, 64 << 20, 1),
}
"""What is done, how often, of how many bytes, by how many threads."""


def main(rounds: int = 5, *, wanted: tuple[str, ...] = tuple(SHAPES), share: float = 1.0) -> None:
    """Run it; the goal is at most twice obstore's CPU for a PUT of 4 KiB."""
    python = peer_python("stores", PEERS)
    with serving() as server:
        server.bucket("bench")
        for name in wanted:
            doing, count, size_bytes, threads = SHAPES[name]
            counted = max(1, int(count * share))
            cases = [_case(server, "tidemill", sys.executable, (doing, counted, size_bytes, threads))]
            if python is not None:
                shape = (doing, counted, size_bytes, threads)
                cases += [_case(server, client, str(python), shape) for client in ("boto3", "obstore")]
            compare(
                name if share == 1 else f"{name}_tiny",
                cases,
                baseline="obstore" if python else "tidemill",
                rounds=rounds,
                packages=("tidemill-core",),
                note=(
                    f"{doing} of {counted} x {size_bytes >> 10} KiB by {threads} thread(s), versitygw; "
                    f"cpu_us_per_object leaves out imports and connecting; {', '.join(PEERS).replace('==', ' ')}"
                ),
            )


def _case(server: Server, client: str, python: str, shape: tuple[str, int, int, int]) -> Case:
    env = {"BENCH_URL": server.url, "BENCH_KEY": s3.ACCESS_KEY, "BENCH_SECRET": s3.SECRET_KEY}

    def facts(output: str) -> Mapping[str, float]:
        found: dict[str, float] = json.loads(output.strip().splitlines()[-1])
        return found

    command = [python, str(_CLIENT), client, *map(str, shape)]
    return Case(client, command, env=env, before=lambda: server.clear("bench"), facts=facts)


if __name__ == "__main__":
    main()
