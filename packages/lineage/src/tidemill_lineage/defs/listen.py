"""Listen in every process that loads the code location, and know which Dagster run an event belongs to."""

import dagster as dg
from tidemill_core.settings import Settings

from tidemill_lineage import hooks


def install(settings: Settings | None = None) -> None:
    """Keep what the assets of this code location announce; call it once in ``definitions.py``.

    Each step process loads the definitions, so each listens. See `tidemill_lineage.hooks.install`.
    """
    hooks.install(settings, run_id=_RunIds())


class _RunIds:
    """The Dagster run of the current step; threads that a step starts itself get the last one seen."""

    def __init__(self) -> None:
        self._last: str | None = None

    def __call__(self) -> str | None:
        try:
            self._last = dg.OpExecutionContext.get().run_id
        except dg.DagsterError:  # not in a step, or in a thread of one
            return self._last
        return self._last
