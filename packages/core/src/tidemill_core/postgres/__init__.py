"""The one way rows enter PostgreSQL: connections, names, types, DDL, binary COPY, upsert and swap.

Names are imported when first used, so `import tidemill_core.postgres` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill_core.lazy import lazy_names

if TYPE_CHECKING:
    from tidemill_core.postgres.adapt import Fault, faults
    from tidemill_core.postgres.connection import connect, dataset_urn, open_pool, postgres_errors, redact
    from tidemill_core.postgres.copy import CopyResult, CopyWriter, copy_into
    from tidemill_core.postgres.ddl import columns_for, ddl_for, sql_type
    from tidemill_core.postgres.errors import ColumnRefused, PostgresRefused, PostgresUnavailable, ValueRefused
    from tidemill_core.postgres.identifiers import TableName, check_identifier, quote, safe_identifiers
    from tidemill_core.postgres.policy import Policy
    from tidemill_core.postgres.swapping import dependents, swap, swap_in
    from tidemill_core.postgres.types import ColumnType, column_types, table_exists
    from tidemill_core.postgres.write import add_columns, create_table, merge_from, replace_where, upsert

__all__ = [
    "ColumnRefused",
    "ColumnType",
    "CopyResult",
    "CopyWriter",
    "Fault",
    "Policy",
    "PostgresRefused",
    "PostgresUnavailable",
    "TableName",
    "ValueRefused",
    "add_columns",
    "check_identifier",
    "column_types",
    "columns_for",
    "connect",
    "copy_into",
    "create_table",
    "dataset_urn",
    "ddl_for",
    "dependents",
    "faults",
    "merge_from",
    "open_pool",
    "postgres_errors",
    "quote",
    "redact",
    "replace_where",
    "safe_identifiers",
    "sql_type",
    "swap",
    "swap_in",
    "table_exists",
    "upsert",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "adapt": ["Fault", "faults"],
        "connection": ["connect", "dataset_urn", "open_pool", "postgres_errors", "redact"],
        "copy": ["CopyResult", "CopyWriter", "copy_into"],
        "ddl": ["columns_for", "ddl_for", "sql_type"],
        "errors": ["ColumnRefused", "PostgresRefused", "PostgresUnavailable", "ValueRefused"],
        "identifiers": ["TableName", "check_identifier", "quote", "safe_identifiers"],
        "policy": ["Policy"],
        "swapping": ["dependents", "swap", "swap_in"],
        "types": ["ColumnType", "column_types", "table_exists"],
        "write": ["add_columns", "create_table", "merge_from", "replace_where", "upsert"],
    },
)
