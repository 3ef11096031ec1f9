"""Running: the bounded drain, the service, and what both do with partitions and sinks."""
