"""The pools of a deployment and how much each bears; `python -m tidemill_deploy.pools` sets them.

Dagster keeps the limits in its storage, not in dagster.yaml, whose `default_limit: 1` is for every pool that is not
named here: `kafka` (one publisher of a topic at a time) and each `api/<host>` (a rate limit is per client).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

POOLS: Mapping[str, int] = {
    "kafka": 1,  # a publisher that begins again continues at the high watermark: two would both send what is missing
    "postgres": 8,  # a load opens up to 4 connections; 8 loads stay below PostgreSQL's default of 100
    "object_store": 8,  # a sync keeps up to 32 requests in flight; S3 takes 5,500 reads per second and prefix
}


def set_limits(instance: "dg.DagsterInstance", pools: Mapping[str, int] = POOLS) -> list[str]:
    """Set each pool's limit; returns one line for each that was changed. Twice is no error."""
    storage = instance.event_log_storage
    changed = []
    current = {each.name: each.limit for each in storage.get_pool_limits()}
    for pool, limit in pools.items():
        if current.get(pool) != limit:
            storage.set_concurrency_slots(pool, limit)
            changed.append(f"{pool}: {limit}")
    return changed


def main() -> None:
    """Set the limits on the instance of DAGSTER_HOME."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        for line in set_limits(instance) or ["every pool has its limit"]:
            print(line)  # noqa: T201 - the result of the command


if __name__ == "__main__":
    main()
