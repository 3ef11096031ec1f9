"""Follow pandas, pyarrow, DuckDB and eager polars while a traced call runs: one module a library."""
