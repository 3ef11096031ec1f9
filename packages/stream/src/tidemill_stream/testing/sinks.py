"""What every sink must do; subclass `SinkSuite` and give the fixture `bench`."""

# ruff: noqa: D102, PLR2004  # a test's name is its sentence

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tidemill_core.testing.suites import Suite

from tidemill_stream.config import PipelineConfig
from tidemill_stream.errors import Fenced
from tidemill_stream.plan import Plan
from tidemill_stream.progress import Claim, Partition
from tidemill_stream.running.session import Session
from tidemill_stream.sink_settings import SINKS
from tidemill_stream.sinks._base import CountsRows, KeepsLetters, Sink, SinkContext, sink_context
from tidemill_stream.testing import fake_messages, replay
from tidemill_stream.testing.flights import FLIGHTS, counted, flight_records

ONE, TWO = Partition("flights", 0), Partition("flights", 1)
Tables = Mapping[str, Sequence[Mapping[str, Any]]]


class SinkBench:
    """One sink under test: opens it anew, and reads what a user of its outputs reads.

    Args:
        settings: The sink as it stands in a pipeline file; it takes rows, windows and dead letters.
        tables: Reads the stored rows, by output name.
        name: Of the pipeline.
        context: Makes the sink's context of a plan.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        tables: Callable[[], Tables],
        *,
        name: str = "flights",
        context: Callable[[Plan], SinkContext] = sink_context,
    ) -> None:
        self.plan = Plan(PipelineConfig.model_validate({**FLIGHTS, "name": name, "sinks": [settings]}))
        self.context, self.tables = context(self.plan), tables

    def open(self, **changes: Any) -> Sink:
        """Open the sink as one more worker does."""
        settings = self.plan.config.sinks[0]
        sink: Sink = SINKS.get(settings.type)(settings, replace(self.context, **changes))
        sink.prepare()
        return sink

    def session(self, **changes: Any) -> Session:
        """Start one more worker."""
        return Session(self.plan, [self.open(**changes)])

    def holds(self, truth: Tables) -> bool:
        """Whether the sink holds these rows, windows and dead letters, each once."""
        found = self.tables()
        return all(counted(found[name]) == counted(truth[name]) for name in ("rows", "windows", "dlq"))


class SinkSuite(Suite):
    """The contract of `Sink`: all or nothing, fenced by epoch, restartable, and readable while it grows."""

    @pytest.fixture
    def bench(self) -> SinkBench:
        """The sink under test, empty."""
        raise AssertionError("subclass SinkSuite and give the fixture `bench`")

    def test_outputs_equal_a_replay_over_several_commits_and_claims(self, bench: SinkBench) -> None:
        logs = {ONE: fake_messages(flight_records(150, seed=1)), TWO: fake_messages(flight_records(90, seed=2))}

        for end in (40, 95, 150):
            session = bench.session()
            offsets = session.claim({each: Claim(start=0, incarnation="id:A", log_end=150) for each in logs})
            for partition, messages in logs.items():
                session.feed(partition, messages[offsets[partition] : end])
            session.commit()
        session.flush()
        session.commit()

        assert bench.holds(replay(bench.plan, logs, flush=True))
        progress = bench.open().read(["flights"])
        assert {each: (p.offset, p.epoch, p.incarnation) for each, p in progress.items()} == {
            ONE: (150, 3, "id:A"),
            TWO: (90, 3, "id:A"),
        }
        assert progress[TWO].log_end == 150

    def test_an_overtaken_owner_is_refused_and_changes_nothing(self, bench: SinkBench) -> None:
        messages = fake_messages(flight_records(60))
        zombie = bench.session()
        zombie.claim({ONE: Claim(start=0), TWO: Claim(start=0)})
        zombie.feed(ONE, messages)
        owner = bench.session()
        owner.claim({ONE: Claim(start=0)})

        with pytest.raises(Fenced):
            zombie.commit()
        owner.feed(ONE, messages)
        owner.commit()

        assert bench.holds(replay(bench.plan, {ONE: messages}))

    def test_an_owner_overtaken_after_a_commit_is_refused(self, bench: SinkBench) -> None:
        messages = fake_messages(flight_records(60))
        zombie = bench.session()
        zombie.claim({ONE: Claim(start=0)})
        zombie.feed(ONE, messages[:20])
        zombie.commit()
        owner = bench.session()
        assert owner.claim({ONE: Claim(start=0)}) == {ONE: 20}
        owner.feed(ONE, messages[20:])
        owner.commit()
        zombie.feed(ONE, messages[20:40])

        with pytest.raises(Fenced):
            zombie.commit()

        assert bench.holds(replay(bench.plan, {ONE: messages}))

    def test_renewal_tells_the_overtaken(self, bench: SinkBench) -> None:
        first, second = bench.open(), bench.open()
        first.claim({ONE: Claim(start=0)})
        first.renew([ONE])
        second.claim({ONE: Claim(start=0)})

        with pytest.raises(Fenced):
            first.renew([ONE])

    def test_a_restart_drops_only_the_partition_it_names(self, bench: SinkBench) -> None:
        old, other = fake_messages(flight_records(60, seed=3)), fake_messages(flight_records(60, seed=4))
        session = bench.session()
        session.claim({ONE: Claim(start=0, incarnation="id:A"), TWO: Claim(start=0, incarnation="id:A")})
        session.feed(ONE, old)
        session.feed(TWO, other)
        session.commit()
        new = fake_messages(flight_records(30, seed=5))

        session = bench.session()
        offsets = session.claim({ONE: Claim(start=0, incarnation="id:B", restart=True)})
        session.feed(ONE, new)
        session.commit()

        assert offsets == {ONE: 0}
        assert bench.holds(replay(bench.plan, {ONE: new, TWO: other}))
        assert bench.open().read(["flights"])[ONE].incarnation == "id:B"

    def test_reading_claims_nothing(self, bench: SinkBench) -> None:
        session = bench.session()
        session.claim({ONE: Claim(start=0)})

        bench.open().read(["flights"])
        session.feed(ONE, fake_messages(flight_records(10)))

        assert session.commit()

    def test_nothing_is_stored_of_other_topics(self, bench: SinkBench) -> None:
        bench.open().claim({ONE: Claim(start=0)})

        assert bench.open().read(["others"]) == {}
        assert set(bench.open().read(["flights"])) == {ONE}

    def test_without_the_fence_an_overtaken_owner_writes_twice(self, bench: SinkBench) -> None:
        """The control of the tests above: they do see a double."""
        messages = fake_messages(flight_records(60))
        zombie = bench.session(is_fencing=False)
        zombie.claim({ONE: Claim(start=0)})
        zombie.feed(ONE, messages)
        owner = bench.session()
        owner.claim({ONE: Claim(start=0)})
        owner.feed(ONE, messages)
        owner.commit()

        zombie.commit()

        assert not bench.holds(replay(bench.plan, {ONE: messages}))

    def test_what_it_counts_and_reads_again_is_what_it_holds(self, bench: SinkBench) -> None:
        session = bench.session()
        session.claim({ONE: Claim(start=0)})
        session.feed(ONE, fake_messages(flight_records(150)))
        session.flush()
        session.commit()
        sink, tables = bench.open(), bench.tables()

        if isinstance(sink, CountsRows):
            assert {name: len(tables[name]) for name in ("rows", "windows")} == dict(sink.held())
        if isinstance(sink, KeepsLetters):
            read = sorted((each.offset, each.reason, each.value) for each in sink.letters())
            assert read == sorted((row["offset"], row["reason"], _bytes(row["value"])) for row in tables["dlq"])
            reason = read[0][1]
            assert {reason} == {each.reason for each in sink.letters([reason])}

    def test_its_settings_tell_what_it_takes_and_where(self, bench: SinkBench) -> None:
        settings = bench.plan.config.sinks[0]

        assert {"rows", "windows", "dlq"} == set(settings.outputs())
        assert settings.place() == bench.open().name


def _bytes(value: Any) -> bytes | None:
    return None if value is None else bytes(value)
