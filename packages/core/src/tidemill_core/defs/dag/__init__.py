"""DAG files as Dagster definitions: compile, run, watch, report."""
