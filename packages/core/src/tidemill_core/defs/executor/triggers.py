"""Trigger rules: when a step may start, given how the steps that it needs have ended; pure."""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

TRIGGER_TAG = "tidemill/trigger"
"""Step tag that names its rule; without it, Dagster's own rule holds (`all_success`)."""
Decision = Literal["wait", "run", "skip", "hold"]
"""`hold`: it never starts, because something that it needs failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """How the steps that one step needs stand, as sets of step keys."""

    every: AbstractSet[str]
    succeeded: AbstractSet[str]
    failed: AbstractSet[str]
    """Failed, or held because of a failure."""
    skipped: AbstractSet[str]

    @property
    def is_over(self) -> bool:
        """Whether all have ended."""
        return self.every <= self.succeeded | self.failed | self.skipped


def decide(rule: str, needed: Needed) -> Decision:
    """Decide about a step by its rule.

    Args:
        rule: A key of `RULES`.
        needed: The steps that it needs.
    """
    return RULES[rule](needed)


def _all_done(needed: Needed) -> Decision:
    return "run" if needed.is_over else "wait"


def _one_failed(needed: Needed) -> Decision:
    if needed.failed:
        return "run"
    return "skip" if needed.is_over else "wait"


def _one_success(needed: Needed) -> Decision:
    if needed.succeeded:
        return "run"
    if not needed.is_over:
        return "wait"
    return "hold" if needed.failed else "skip"


def _none_failed(needed: Needed) -> Decision:
    if needed.failed:
        return "hold"
    return "run" if needed.is_over else "wait"


def _none_failed_min_one_success(needed: Needed) -> Decision:
    decision = _none_failed(needed)
    return "skip" if decision == "run" and needed.every and not needed.succeeded else decision


def _always(_needed: Needed) -> Decision:
    return "run"


RULES: Mapping[str, Callable[[Needed], Decision]] = {
    "all_done": _all_done,
    "one_failed": _one_failed,
    "one_success": _one_success,
    "none_failed": _none_failed,
    "none_failed_min_one_success": _none_failed_min_one_success,
    "always": _always,
}
"""Every rule but `all_success`, by the names that Airflow's users know."""
