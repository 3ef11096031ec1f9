"""How runs reach the sinks: an outbox on disk, one writer, and one courier a sink."""
