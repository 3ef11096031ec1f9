"""Benchmarks of the core: start-up, executor, metrics."""
