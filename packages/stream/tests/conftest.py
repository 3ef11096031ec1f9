"""What the stream's tests share: a pipeline of flights, its records, and servers."""

from __future__ import annotations

import pytest
from tidemill_stream.config import PipelineConfig
from tidemill_stream.plan import Plan
from tidemill_stream.testing.flights import FLIGHTS, counted, flight_records


@pytest.fixture(scope="session")
def make_plan():
    """Compile the flights pipeline with changes at its top level."""

    def make(**changes):
        return Plan(PipelineConfig.model_validate({**FLIGHTS, **changes}))

    return make


@pytest.fixture(scope="session")
def make_records():
    """Make values of the flights topic, the same for the same seed."""
    return flight_records


@pytest.fixture(scope="session")
def as_set():
    """Turn rows into a set that can be compared, whatever their order; duplicates stay visible by their count."""
    return counted
