"""What a load can run into.

LoadError
├── SourceMissing     (Permanent) no file matches
├── SourceUnreadable  (Permanent) a file is not what its format says
├── SourceChanged     (Permanent) a file was rewritten during the load, or since it was loaded
├── RangesDiffer      (Permanent) a file is loaded in part, as other byte ranges than it is cut into now
├── SchemaConflict    (Permanent) the files, or files and table, disagree about a column
├── TooManyRejects    (Permanent) more bad rows than allowed
└── LoadBusy          (Transient) another process loads this table now
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill_core.errors import PermanentError, TidemillError, TransientError


class LoadError(TidemillError):
    """A load could not be done."""


class SourceMissing(LoadError, PermanentError):
    """No file matches what was asked for."""

    def __init__(self, pattern: str, hidden: Sequence[str] = ()) -> None:
        self.pattern, self.hidden = pattern, hidden
        passed = ""
        if hidden:
            passed = (
                f" but {len(hidden)} hidden ones, such as {hidden[0]}, which are passed over unless the pattern's part"
                " begins with `_` or `.`, too"
            )
        super().__init__(f"no file matches {pattern}{passed}; set `allow_empty` if that is all right")


class SourceUnreadable(LoadError, PermanentError):
    """A file is not what its format says."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url} cannot be read: {reason}")


class SourceChanged(LoadError, PermanentError):
    """A file is not the one that was planned, or that was loaded before."""

    def __init__(self, url: str, what: str) -> None:
        self.url = url
        super().__init__(f"{url} {what}")


class RangesDiffer(LoadError, PermanentError):
    """A file was loaded in part, as other byte ranges than it is cut into now."""

    def __init__(self, url: str, ranges: int) -> None:
        self.url, self.ranges = url, ranges
        super().__init__(
            f"{url} is loaded in part: {ranges} of its byte ranges, which are not those it is cut into now; load it"
            " with the `split`, `split_bytes` and CSV options of before, or delete its rows and its lines in"
            " tidemill.load_ledger"
        )


class SchemaConflict(LoadError, PermanentError):
    """Files, or files and table, disagree about a column."""

    def __init__(self, column: str, reason: str) -> None:
        self.column = column
        super().__init__(f"column {column!r}: {reason}")


class TooManyRejects(LoadError, PermanentError):
    """More rows are bad than `max_rejects` allows."""

    def __init__(self, table: str, limit: int, example: str) -> None:
        self.table, self.limit = table, limit
        super().__init__(
            f"{table}: more than {limit} rows cannot be loaded, such as {example}; "
            "correct the files or the column types, or raise `max_rejects`"
        )


class LoadBusy(LoadError, TransientError):
    """Another process loads this table at this moment."""

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(f"another process is loading {table}; try again when it has finished")
