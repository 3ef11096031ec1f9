"""IO managers: frames and Arrow tables to Parquet in any object store, and to PostgreSQL tables."""
