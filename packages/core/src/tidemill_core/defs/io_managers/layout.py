"""Where an asset's frames lie: one object per asset or partition, named so that any key is safe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from tidemill_core.errors import PermanentError

SUFFIX = ".parquet"
_UNSAFE = re.compile(r"[^\w.=:+@, -]|^\.+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one asset lies: `base` for all of it, and an object for each partition (or for None)."""

    base: str
    objects: Mapping[str | None, str]
    asset_key: str | None

    @property
    def is_partitioned(self) -> bool:
        """Whether the objects are partitions."""
        return None not in self.objects


def place_of(context: dg.InputContext | dg.OutputContext) -> Place:
    """Decide where the asset (or the output of an op) that `context` is about lies.

    Raises:
        PermanentError: The context is about no asset and no run.
    """
    if not context.has_asset_key:
        written = context.upstream_output if isinstance(context, dg.InputContext) else context
        if written is None:
            raise PermanentError("the input comes from nowhere: neither an asset nor an op's output feeds it")
        base = "/".join(map(safe, ("runs", *written.get_identifier())))
        return Place(base=base, objects={None: base + SUFFIX}, asset_key=None)
    base = "/".join(map(safe, context.asset_key.path))
    asset_key = context.asset_key.to_user_string()
    if not context.has_asset_partitions:
        return Place(base=base, objects={None: base + SUFFIX}, asset_key=asset_key)
    objects: dict[str | None, str] = {key: f"{base}/{partition_path(key)}" for key in context.asset_partition_keys}
    return Place(base=base, objects=objects, asset_key=asset_key)


def annotation(context: dg.InputContext) -> object:
    """The type an input is annotated with; None when nobody said (a context built by hand)."""
    try:
        found: object = context.dagster_type.typing_type
    except dg.DagsterInvariantViolationError:
        return None
    return found


def partition_path(key: str) -> str:
    """Name a partition's object: its key, or ``dimension=key/...`` for one of several dimensions."""
    if isinstance(key, dg.MultiPartitionKey):
        parts = sorted(key.keys_by_dimension.items())
        return "/".join(f"{safe(dimension)}={safe(value)}" for dimension, value in parts) + SUFFIX
    return safe(key) + SUFFIX


def safe(name: str) -> str:
    """Write a name so that it is one path segment in any store and no glob: other bytes become ``~XX``."""
    return _UNSAFE.sub(lambda match: "".join(f"~{byte:02X}" for byte in match[0].encode()), name)
