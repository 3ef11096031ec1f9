"""What a stranger's manifest is tested with: subclass `ManifestSuite`, and give its fixture."""

from __future__ import annotations

from tidemill_sync.testing.manifests import ManifestSuite

__all__ = ["ManifestSuite"]
