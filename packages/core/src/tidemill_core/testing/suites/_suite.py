"""The base of every suite: known gaps become strict expected failures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest


class Suite:
    """Subclass a suite and give its fixture."""

    gaps: ClassVar[Mapping[str, str]] = {}
    """Test name (with its ``[parameter]`` where only that one fails) to the reason it must fail."""

    @pytest.fixture(autouse=True)
    def _expect_gaps(self, request: pytest.FixtureRequest) -> None:
        reason = self.gaps.get(request.node.name) or self.gaps.get(request.node.originalname)
        if reason:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
