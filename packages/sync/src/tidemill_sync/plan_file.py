"""Keep a plan in a Parquet file: a row per key with what both listings showed, and the configuration beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from tidemill_core.extras import needs_extra
from tidemill_core.storage import ObjectInfo

from tidemill_sync.config import SyncConfig
from tidemill_sync.errors import PlanFileWrong
from tidemill_sync.plan import Action, Kind

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_ABOUT = b"tidemill.sync.plan"
_VERSION = 1
_ROWS = 10_000
_KINDS = frozenset(get_args(Kind)) - {"skip"}
_NEEDS = {"copy": ("source",), "delete": ("target",), "replace": ("source", "target"), "compare": ("source", "target")}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAbout:
    """What a plan was made for."""

    config: SyncConfig
    source: str
    """URL of the source as it was opened."""
    target: str
    source_objects: int
    target_objects: int
    made_at: str

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values, without passwords."""
        config = self.config.model_dump(mode="json", exclude={"manifest"}, exclude_defaults=True)
        manifest = self.config.manifest.get_secret_value() if self.config.manifest else ""
        if manifest.startswith("sqlite:"):
            config["manifest"] = manifest
        names = ("source", "target", "source_objects", "target_objects", "made_at")
        return {"version": _VERSION, "config": config, **{name: getattr(self, name) for name in names}}


class PlanWriter:
    """Writes a plan beside its place, and puts it there when it is whole.

    Args:
        path: The file; one of this name is replaced.

    Raises:
        PlanFileWrong: It cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with needs_extra():
            import pyarrow.parquet as pq
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer: pq.ParquetWriter = pq.ParquetWriter(self._beside, _schema(), compression="zstd")
        except OSError as error:
            raise PlanFileWrong(path, f"cannot be written: {_reason(error)}") from error

    def write(self, actions: Iterable[Action]) -> None:
        """Add actions, ascending by key."""
        import pyarrow as pa

        remaining = iter(actions)
        while batch := list(islice(remaining, _ROWS)):
            try:
                self._writer.write_table(pa.Table.from_pylist(list(map(_row, batch)), schema=_schema()))
            except OSError as error:
                raise PlanFileWrong(self._path, f"cannot be written: {_reason(error)}") from error

    def finish(self, about: PlanAbout) -> None:
        """Put the file in its place."""
        try:
            self._writer.add_key_value_metadata({_ABOUT: json.dumps(about.as_dict()).encode()})
            self._writer.close()
            self._beside.replace(self._path)
        except OSError as error:
            raise PlanFileWrong(self._path, f"cannot be written: {_reason(error)}") from error

    def discard(self) -> None:
        """Remove what was not finished; nothing after `finish`."""
        with suppress(OSError):
            self._writer.close()
        self._beside.unlink(missing_ok=True)


class PlanFile:
    """A plan that was kept; it is looked through as a whole when it is opened.

    Args:
        path: The file.

    Raises:
        PlanFileWrong: It is no plan, or one that cannot be carried out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with needs_extra():
            import pyarrow as pa
            import pyarrow.parquet as pq
        try:
            self._file = pq.ParquetFile(path)
        except OSError as error:
            raise PlanFileWrong(path, f"cannot be read: {_reason(error)}") from error
        except pa.ArrowException as error:
            raise PlanFileWrong(path, "is no Parquet file") from error
        self.about = self._read_about()
        last: str | None = None
        for row in self._rows():
            self._check(row, last)
            last = row["key"]

    def actions(self) -> Iterator[Action]:
        """Read the actions, ascending by key, in constant memory."""
        return map(_action, self._rows())

    def _read_about(self) -> PlanAbout:
        found = (self._file.schema_arrow.metadata or {}).get(_ABOUT) or (self._file.metadata.metadata or {}).get(_ABOUT)
        if found is None:
            raise PlanFileWrong(self._path, "is no plan of `tidemill sync plan --out`")
        try:
            facts = json.loads(found)
            if facts.pop("version") != _VERSION:
                raise PlanFileWrong(self._path, "was made by another version of Tidemill; make the plan again")
            return PlanAbout(**{**facts, "config": SyncConfig(**facts["config"])})
        except (ValueError, KeyError, TypeError) as error:
            raise PlanFileWrong(self._path, f"says wrongly what it was made for: {error}") from error

    def _rows(self) -> Iterator[dict[str, Any]]:
        import pyarrow as pa

        try:
            if self._file.schema_arrow.remove_metadata() != _schema():
                raise PlanFileWrong(self._path, "has other columns than a plan")
            for batch in self._file.iter_batches(batch_size=_ROWS):
                yield from batch.to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise PlanFileWrong(self._path, f"is damaged: {error}") from error

    def _check(self, row: Mapping[str, Any], last: str | None) -> None:
        kind, key = row["kind"], row["key"]
        if key is None or kind not in _KINDS:
            raise PlanFileWrong(self._path, f"has a row of kind {kind!r} for the key {key!r}")
        if last is not None and key <= last:
            raise PlanFileWrong(self._path, f"has {key!r} after {last!r}; keep its rows in the order of their keys")
        for side in _NEEDS.get(kind, ()):
            if row[f"{side}_size_bytes"] is None or row[f"{side}_modified_at"] is None:
                raise PlanFileWrong(self._path, f"does not say what the {side} of {key!r} was")


def _reason(error: OSError) -> str:
    """Tell it in the system's words; those of pyarrow name its source file."""
    return os.strerror(error.errno) if error.errno else str(error)


def _schema() -> pa.Schema:
    import pyarrow as pa

    text, when = pa.string(), pa.timestamp("us", "UTC")
    side = (("size_bytes", pa.int64()), ("etag", text), ("modified_at", when))
    about = [(f"{which}_{name}", kind) for which in ("source", "target") for name, kind in side]
    return pa.schema([("kind", text), ("key", text), ("reason", text), *about])


def _row(action: Action) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": action.kind, "key": action.key, "reason": action.reason}
    for side, info in (("source", action.source), ("target", action.target)):
        if info is not None:
            row |= {f"{side}_{name}": getattr(info, name) for name in ("size_bytes", "etag", "modified_at")}
    return row


def _action(row: Mapping[str, Any]) -> Action:
    def seen(side: str) -> ObjectInfo | None:
        if row[f"{side}_size_bytes"] is None:
            return None
        modified_at = cast("datetime", row[f"{side}_modified_at"])
        return ObjectInfo(
            key=row["key"],
            size_bytes=row[f"{side}_size_bytes"],
            etag=row[f"{side}_etag"],
            modified_at=modified_at.astimezone(UTC),
        )

    return Action(
        kind=row["kind"], key=row["key"], reason=row["reason"] or "", source=seen("source"), target=seen("target")
    )
