"""Doubles and suites for tests: a fake API with faults, a transport without a network, the store suite."""
