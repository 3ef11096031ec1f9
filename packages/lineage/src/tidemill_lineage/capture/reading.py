"""What was seen of one call, made ready to read its polars plans by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill_lineage.capture import flow
from tidemill_lineage.capture.flow import Flow, Influences
from tidemill_lineage.capture.watch.trail import Trail
from tidemill_lineage.model import DatasetUrn


class Readings:
    """The polars inputs of a call, the frames that stand for values of other libraries, and what these are made of.

    Args:
        trail: Of the call; None if nothing was watched.
        inputs: The polars frames the call was given.
    """

    def __init__(self, trail: Trail | None, inputs: Sequence[tuple[DatasetUrn, Any]]) -> None:
        self.trail, self.is_complete = trail, trail is not None
        explained = trail.explained.items() if trail is not None else ()
        self.inputs = [*inputs, *((urn, frame.lazy()) for urn, (frame, _) in explained)]
        self.made: Sequence[tuple[Any, Any]] = trail.made if trail is not None else ()
        self._known: dict[DatasetUrn, Flow] | None = None
        self._left: Influences | None = None

    def known(self) -> Mapping[DatasetUrn, Flow]:
        """What each stand-in is made of, down to real datasets."""
        if self._known is None:
            self._known = {}
            if self.trail is not None:
                for urn in sorted(self.trail.given(), key=_number):
                    self._known[urn] = flow.substituted(self._flow_of(urn), self._known)
        return self._known

    def literal(self, value: Any) -> Influences:
        """What reaches a literal of a plan: nothing, unless something left the frames that it may be made of."""
        if self.trail is None:
            return {}
        return self.trail.of_literal(value)

    def deciding(self) -> Influences:
        """What may have decided which way the function went."""
        return self.trail.deciding() if self.trail is not None else {}

    def whole(self) -> Influences:
        """All inputs, as wholes."""
        return (
            self.trail.everything()
            if self.trail is not None
            else {(u, ""): frozenset({"TRANSFORMATION?"}) for u, _ in self.inputs}
        )

    def _flow_of(self, urn: DatasetUrn) -> Flow:
        from tidemill_lineage.capture.polars_plan import walk

        assert self.trail is not None
        explained = self.trail.explained.get(urn)
        if explained is not None:
            return explained[1].to_flow()
        frame = self.trail.frames[urn]
        try:
            return walk(frame.lazy(), [each for each in self.inputs if each[0] != urn], self.made, self.literal)
        except Exception:  # noqa: BLE001  # a private interface of polars: what it does not show is assumed
            names = frame.collect_schema().names()
            everything = self.whole()
            return Flow(dict.fromkeys(names, everything), {}, frozenset(each for each, _ in everything))


def _number(urn: DatasetUrn) -> int:
    return int(urn.rpartition("/")[2])
