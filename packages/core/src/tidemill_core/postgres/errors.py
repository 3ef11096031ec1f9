"""What PostgreSQL, or our encoding for it, can refuse.

PostgresError
├── PostgresUnavailable  (Transient) no connection, deadlock, server stopping, resources
├── PostgresRefused      (Permanent) everything else the server says no to
├── ColumnRefused        (Permanent) a column's type cannot become the target's
└── ValueRefused         (Record)    one value cannot become the target's type exactly
"""

from __future__ import annotations

from tidemill_core.errors import PermanentError, PostgresError, RecordError, TransientError


class PostgresUnavailable(PostgresError, TransientError):
    """The server cannot answer now; `sqlstate` is None when no connection was made."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class PostgresRefused(PostgresError, PermanentError):
    """The server refused a statement or a value; `sqlstate` tells why."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class ColumnRefused(PostgresError, PermanentError):
    """No value of this column's type can be written to the target column exactly."""

    def __init__(self, column: str, reason: str) -> None:
        self.column, self.reason = column, reason
        super().__init__(f"column {column!r}: {reason}")


class ValueRefused(PostgresError, RecordError):
    """One value cannot be written exactly; `row` counts from 0 in the data as given."""

    def __init__(self, column: str, row: int, reason: str) -> None:
        self.column, self.row, self.reason = column, row, reason
        super().__init__(f"column {column!r}, row {row}: {reason}")
