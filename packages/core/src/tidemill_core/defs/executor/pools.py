"""Slots of concurrency pools, claimed for the steps of one run."""

import time

import dagster as dg

from tidemill_core.defs._dagster import InstanceConcurrencyContext

CLAIM_FIRST_S = 0.1
CLAIM_LONGEST_S = 1.0


class PoolClaims(InstanceConcurrencyContext):
    """Dagster's pool claims, asked for again as soon as this run frees a slot."""

    def __init__(self, instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        super().__init__(instance, run)
        self._waiting: dict[str, dict[str, int]] = {}
        self._pool_of: dict[str, str] = {}

    def claim(self, concurrency_key: str, step_key: str, step_priority: int = 0) -> bool:
        """Ask for a slot; a refused step asks again after 0.1 s, later up to 1 s."""
        asked = self._pending_claim_counts[step_key]
        is_claimed = super().claim(concurrency_key, step_key, step_priority)
        waiting = self._waiting.setdefault(concurrency_key, {})
        if is_claimed:
            waiting.pop(step_key, None)
            self._pool_of[step_key] = concurrency_key
        elif self._pending_claim_counts[step_key] > asked:
            longest = CLAIM_LONGEST_S * max(1.0, len(waiting) / 50)
            self._pending_timeouts[step_key] = time.time() + min(longest, CLAIM_FIRST_S * 1.2**asked)
            waiting[step_key] = step_priority
        return is_claimed

    def free_step(self, step_key: str) -> None:
        """Give a slot back and let the next step of this run ask at once."""
        super().free_step(step_key)
        waiting = self._waiting.get(self._pool_of.get(step_key, ""), {})
        if waiting:
            first = max(waiting, key=waiting.__getitem__)
            self._pending_timeouts[first] = 0.0

    @property
    def next_claim_s(self) -> float | None:
        """Seconds until a refused step may ask again; None if none waits."""
        if not self.has_pending_claims():
            return None
        return min(self._pending_timeouts.values(), default=0.0) - time.time()
