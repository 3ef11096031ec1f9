"""Trigger rules against the sentences that define them, over every way in which three needed steps can stand."""

import itertools
from collections.abc import Sequence

import pytest
from tidemill_core.defs.executor.triggers import RULES, Decision, Needed, decide

STANDS = ("waits", "succeeded", "failed", "skipped")


def oracle(rule: str, stands: Sequence[str]) -> Decision:  # noqa: PLR0911 - one line of the table each
    """Say what the documentation's table says, read line by line."""
    over = "waits" not in stands
    if rule == "always":
        return "run"
    if rule == "all_done":
        return "run" if over else "wait"
    if rule in ("one_failed", "one_success"):
        first = {"one_failed": "failed", "one_success": "succeeded"}[rule]
        if first in stands:
            return "run"
        if not over:
            return "wait"
        return "hold" if "failed" in stands else "skip"
    if "failed" in stands:
        return "hold"
    if not over:
        return "wait"
    return "run" if rule == "none_failed" or "succeeded" in stands else "skip"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_rule_decides_as_documented_whatever_the_needed_steps_did(rule: str, count: int) -> None:
    for stands in itertools.product(STANDS, repeat=count):
        keys = {name: {f"s{index}" for index, each in enumerate(stands) if each == name} for name in STANDS}
        needed = Needed(
            every={f"s{index}" for index in range(count)},
            succeeded=keys["succeeded"],
            failed=keys["failed"],
            skipped=keys["skipped"],
        )

        assert oracle(rule, stands) == decide(rule, needed), stands
