"""The columns a table has, in the words the encoder needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill_core.postgres.errors import PostgresRefused
from tidemill_core.postgres.identifiers import TableName

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnType:
    """One column of an existing table.

    Attributes:
        type: As SQL writes it, such as ``numeric(18,2)``.
        base: Wire type name (domains resolved): ``int4``, ``numeric``, ``_text`` for an array.
        kind: PostgreSQL's ``typtype`` of the base: ``b`` base, ``e`` enum, ``c`` composite.
        oid: Of the base type.
        typmod: Raw type modifier, -1 for none.
        element: Type of one element where this is an array.
    """

    name: str
    type: str
    base: str
    oid: int
    kind: str = "b"
    typmod: int = -1
    nullable: bool = True
    has_default: bool = False
    generated: bool = False
    element: ColumnType | None = None

    @property
    def precision(self) -> int | None:
        """Digits of a numeric(p,s), else None."""
        return ((self.typmod - 4) >> 16) & 0xFFFF if self.base == "numeric" and self.typmod > 0 else None

    @property
    def scale(self) -> int | None:
        """Decimal places of a numeric(p,s) (may be negative), else None."""
        if self.base != "numeric" or self.typmod <= 0:
            return None
        low = (self.typmod - 4) & 0x7FF
        return low - 2048 if low > 1023 else low  # noqa: PLR2004 - 11 bits, signed (numeric.c)

    @property
    def length(self) -> int | None:
        """Characters of a varchar(n) or char(n), else None."""
        return self.typmod - 4 if self.base in ("varchar", "bpchar") and self.typmod > 0 else None

    @property
    def sub_second_digits(self) -> int | None:
        """Digits of a timestamp(n), time(n) or interval(n), else None."""
        if self.typmod < 0 or self.base not in ("timestamp", "timestamptz", "time"):
            return None
        return self.typmod


_COLUMNS = """
WITH RECURSIVE resolved AS (
    SELECT a.attnum, a.atttypid AS oid, a.atttypmod AS typmod, 0 AS depth
    FROM pg_attribute a WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT r.attnum, t.typbasetype, t.typtypmod, r.depth + 1
    FROM resolved r JOIN pg_type t ON t.oid = r.oid WHERE t.typtype = 'd'
), base AS (SELECT DISTINCT ON (attnum) attnum, oid, typmod FROM resolved ORDER BY attnum, depth DESC)
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname, t.oid, t.typtype, b.typmod,
       NOT a.attnotnull, a.atthasdef OR a.attidentity <> '', a.attgenerated <> '',
       e.typname, e.oid, e.typtype, format_type(e.oid, b.typmod)
FROM pg_attribute a JOIN base b USING (attnum) JOIN pg_type t ON t.oid = b.oid
LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""


def column_types(conn: psycopg.Connection[Any], table: TableName | str) -> dict[str, ColumnType]:
    """Read the columns of an existing table, in their order.

    Raises:
        PostgresRefused: There is no such table.
    """
    from tidemill_core.postgres.connection import postgres_errors

    name = TableName.parse(table)
    with postgres_errors(f"columns of {name}"):
        rows = conn.execute(_COLUMNS, {"table": name.quoted}).fetchall()
    if not rows:
        raise PostgresRefused(f"table {name} has no columns")
    return {row[0]: _column(row) for row in rows}


def _column(row: tuple[Any, ...]) -> ColumnType:
    name, text, base, oid, kind, typmod, nullable, default, generated, element, element_oid, element_kind, of = row
    inner = None
    if element is not None:
        inner = ColumnType(name=name, type=of, base=element, oid=element_oid, kind=element_kind, typmod=typmod)
    return ColumnType(
        name=name,
        type=text,
        base=base,
        oid=oid,
        kind=kind,
        typmod=typmod,
        nullable=nullable,
        has_default=default,
        generated=generated,
        element=inner,
    )


def table_exists(conn: psycopg.Connection[Any], table: TableName | str) -> bool:
    """Tell whether a table of this name can be seen."""
    from tidemill_core.postgres.connection import postgres_errors

    name = TableName.parse(table)
    with postgres_errors(f"look for {name}"):
        row = conn.execute("SELECT to_regclass(%s) IS NOT NULL", (name.quoted,)).fetchone()
    return bool(row and row[0])
