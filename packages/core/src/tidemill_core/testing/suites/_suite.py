"""The base of every suite: known gaps become strict expected failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest


class Suite:
    """Subclass a suite and give its fixture."""

    gaps: ClassVar[Mapping[str, str]] = {}
    """Test name (with its ``[parameter]`` where only that one fails) to the reason it must fail."""
    races: ClassVar[Mapping[str, str]] = {}
    """Test name to the reason it fails now and then: a race in the server."""

    @pytest.fixture(autouse=True)
    def _expect_gaps(self, request: pytest.FixtureRequest) -> None:
        for known, is_strict in ((self.gaps, True), (self.races, False)):
            reason = known.get(request.node.name) or known.get(request.node.originalname)
            if reason:
                request.applymarker(pytest.mark.xfail(reason=reason, strict=is_strict))
