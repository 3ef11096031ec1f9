"""What ships for tests: the pytest plugin with service fixtures, and the conformance suites."""
