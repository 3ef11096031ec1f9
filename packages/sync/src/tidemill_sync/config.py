"""What to mirror, and within which limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, StringConstraints, model_validator
from tidemill_core.config import Config
from tidemill_core.retry import RetryPolicy

from tidemill_sync.filters import Filter, compile_filter

Pattern = Annotated[str, StringConstraints(min_length=1)]
Unknown = Literal["compare", "size", "copy"]


class SyncConfig(Config):
    """One mirror: a source, a target, and how far a run may go."""

    source: str = "lake://"
    """What to mirror: ``file://``, ``s3://bucket/prefix``, ``gs://``, ``az://``, or ``lake://`` of the settings."""
    target: str = "mirror://"
    """Where to: any URL that a source may be; ``mirror://`` is the settings' mirror."""
    include: tuple[Pattern, ...] = ()
    """Patterns of keys to mirror; empty means all. ``*`` stays in a folder, ``**`` does not, ``/`` first anchors."""
    exclude: tuple[Pattern, ...] = ()
    """Patterns of keys to leave alone on both sides; they win over `include`."""
    filters: tuple[str, ...] = ()
    """Ordered rules, ``+ PATTERN`` or ``- PATTERN``; the first that matches decides, before `include` and `exclude`."""
    min_size_bytes: int | None = Field(default=None, ge=0)
    """Leave smaller source objects out."""
    max_size_bytes: int | None = Field(default=None, ge=0)
    """Leave larger source objects out."""
    min_age_s: float | None = Field(default=None, ge=0)
    """Leave source objects out that were modified less than so many seconds before the run."""
    max_age_s: float | None = Field(default=None, ge=0)
    """Leave source objects out that were modified more than so many seconds before the run."""
    prune: bool = False
    """Delete target objects that the source does not have."""
    max_delete_percent: float = Field(default=50.0, ge=0, le=100)
    """Refuse to delete more than this part of the target's objects."""
    max_delete: int | None = Field(default=None, ge=0)
    """Refuse to delete more objects than this; unset means no such limit."""
    allow_empty_source: bool = False
    """Let an empty source empty the target (when pruning)."""
    unknown: Unknown = "compare"
    """Objects of equal size on both sides that no earlier run knows: read and ``compare`` both, trust the ``size``, or
    ``copy`` again."""
    metadata: bool = True
    """Keep content type and user metadata where both stores have them; one more request per copied object."""
    workers: int = Field(default=16, ge=1, le=256)
    """Objects copied at once."""
    large_bytes: int = Field(default=8 << 20, ge=1 << 20)
    """Larger objects are streamed in parts instead of being read whole."""
    resume_bytes: int = Field(default=64 << 20, ge=8 << 20)
    """Larger objects are written by parts of 8 MiB that the manifest notes, where the target can (S3, Azure): a run
    that was killed inside one goes on with the parts that are there."""
    orphan_after_s: float = Field(default=604_800, ge=0)
    """Uploads of this sync that nobody has gone on with for so many seconds since they began are aborted."""
    memory_bytes: int = Field(default=48 << 20, ge=1 << 20)
    """Bytes of objects in memory at once, of all copies together; a large one takes 42 MiB while it is streamed, and
    more beyond 58 GiB, where its parts must be larger."""
    bytes_per_s: int | None = Field(default=None, gt=0)
    """Bandwidth limit of all copies together; unset means none."""
    retry: RetryPolicy = RetryPolicy(attempts=5, delay_s=0.5, max_delay_s=30)
    """How often one object is tried."""
    max_failures: int = Field(default=100, ge=1)
    """End the run once so many objects have failed."""
    trash: str | None = None
    """Prefix in the target under which deleted and replaced objects are kept, such as ``.trash/``; it takes no part in
    the sync, on either side. Unset keeps nothing."""
    change_log: Path | None = None
    """File to which a line of JSON is appended for every key that a run changes or fails to change."""
    manifest: SecretStr | None = None
    """``sqlite:///path`` or ``postgresql://...`` of what was copied; unset means the settings' PostgreSQL if one is
    named, else ``sync.db`` in their home."""
    commit_rows: int = Field(default=200, ge=1)
    """Copied objects per commit of the manifest; a killed run looks again at so many at most."""

    @model_validator(mode="after")
    def _check_patterns(self) -> Self:
        self.key_filter()
        if self.trash is not None and not _is_prefix(self.trash):
            raise ValueError(f"trash must be a prefix of keys such as '.trash/', not {self.trash!r}")
        return self

    @property
    def trash_prefix(self) -> str | None:
        """The trash, ending in a slash."""
        return None if self.trash is None else self.trash.rstrip("/") + "/"

    def key_filter(self) -> Filter:
        """Which keys take part.

        Raises:
            ValueError: A rule or pattern cannot be read.
        """
        takes, trash = compile_filter(self.filters, self.include, self.exclude), self.trash_prefix
        if trash is None:
            return takes
        return lambda key: not key.startswith(trash) and takes(key)


def _is_prefix(text: str) -> bool:
    """Tell whether every store can hold keys under this prefix."""
    return all(segment not in {"", ".", ".."} for segment in text.removesuffix("/").split("/"))


class ServeConfig(Config):
    """The sync service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8087, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    token: SecretStr | None = None
    """Bearer token that every request but the health checks must carry; may be unset on loopback only."""
    database: Path = Path(".tidemill/sync-jobs.db")
    """SQLite file of the jobs."""
    allow: tuple[str, ...] = ("lake://", "mirror://")
    """URLs under which sources and targets of jobs must lie; ``s3://`` allows every bucket."""
    mirrors: tuple[SyncConfig, ...] = ()
    """Mirrors that bucket events feed (`POST /events`)."""
    runs_at_once: int = Field(default=1, ge=1, le=32)
    """Jobs that run at the same time."""

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        if self.token is None and self.host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(f"a service on {self.host} needs a token")
        return self
