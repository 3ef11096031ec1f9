"""Turn a window's records into its aggregates, one record at a time.

An accumulator is one flat list: a slot per operation, two for a mean (sum and count).
It holds only numbers, text and nulls, so it is stored in a checkpoint as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tidemill_stream.records.fields import access, compile_function

Accumulator = list[Any]

_STEPS = {
    "count": "a[{0}] += 1",
    "sum": "a[{0}] = v if a[{0}] is None else a[{0}] + v",
    "mean": "a[{0}] += v; a[{1}] += 1",
    "min": "a[{0}] = v if a[{0}] is None or v < a[{0}] else a[{0}]",
    "max": "a[{0}] = v if a[{0}] is None or v > a[{0}] else a[{0}]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reducer:
    """Functions over one accumulator: begin, add a record, add another accumulator, read the results."""

    create: Callable[[], Accumulator]
    update: Callable[[Accumulator, Any], None]
    merge: Callable[[Accumulator, Accumulator], None]
    finish: Callable[[Accumulator], tuple[Any, ...]]


def make_reducer(aggs: Sequence[tuple[str, str | None]]) -> Reducer:
    """Build the reducer of ``(operation, field path)`` pairs; a path of None counts records."""
    slots: list[tuple[str, int]] = []
    initial: Accumulator = []
    lines = []
    for op, path in aggs:
        slot = len(initial)
        slots.append((op, slot))
        initial += [0, 0] if op == "mean" else [0] if op == "count" else [None]
        step = _STEPS[op].format(slot, slot + 1)
        lines += [step] if path is None else [f"v = {access(path)}", f"if v is not None: {step}"]
    update = compile_function("update", "def update(a, r):\n    " + "\n    ".join(lines) + "\n", {})

    def merge(into: Accumulator, other: Accumulator) -> None:
        for op, slot in slots:
            if op == "mean":
                into[slot + 1] += other[slot + 1]
            into[slot] = _combine(op, into[slot], other[slot])

    def finish(accumulator: Accumulator) -> tuple[Any, ...]:
        return tuple(
            accumulator[slot] if op != "mean" else _mean(accumulator[slot], accumulator[slot + 1]) for op, slot in slots
        )

    return Reducer(create=initial.copy, update=update, merge=merge, finish=finish)


def _combine(op: str, left: Any, right: Any) -> Any:
    if left is None or right is None:
        return right if left is None else left
    if op in ("min", "max"):
        return min(left, right) if op == "min" else max(left, right)
    return left + right


def _mean(total: float, count: int) -> float | None:
    return total / count if count else None
