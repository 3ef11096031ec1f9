"""Conformance suites: subclass one, give its one fixture, and your backend is held to the contract.

    class TestMyStore(ObjectStoreSuite):
        @pytest.fixture
        def store(self):
            return open_store("mine://bucket")

A known gap of a server is named in `gaps` with its reason; it must fail, and fails
the run once it no longer does.
"""

from __future__ import annotations

from tidemill_core.testing.suites._suite import Suite
from tidemill_core.testing.suites.checkpoint import CheckpointStoreSuite
from tidemill_core.testing.suites.storage import ObjectStoreSuite

__all__ = ["CheckpointStoreSuite", "ObjectStoreSuite", "Suite"]
