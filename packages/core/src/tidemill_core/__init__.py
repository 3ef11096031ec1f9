"""The shared kernel of Tidemill, and DAG files compiled to Dagster."""
