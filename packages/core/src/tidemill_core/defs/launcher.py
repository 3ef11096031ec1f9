"""The run launcher of a Tidemill home: Dagster's own, which also tells its run monitoring whose process is gone."""

import dagster as dg

from tidemill_core.defs._dagster import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from tidemill_core.defs.dag.status import is_lost, owner_of


class WatchedRunLauncher(DefaultRunLauncher):
    """Starts runs as Dagster's default does; the daemon fails those whose process was killed.

    It looks at all runs of DAGs in the instance, also at those that `dagster job execute` or `tidemill` began.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether the daemon may ask about a run."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Tell whether the process of a run is there; of runs that do not name theirs nothing is known."""
        if is_lost(run):
            return CheckRunHealthResult(WorkerStatus.FAILED, f"its process ({owner_of(run)}) is gone")
        return CheckRunHealthResult(WorkerStatus.RUNNING)
