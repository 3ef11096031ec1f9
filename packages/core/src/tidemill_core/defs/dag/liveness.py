"""Runs say that their process lives; a run whose process is gone is marked as what it is, failed."""

import _thread
import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import dagster as dg

from tidemill_core.defs.dag.status import CANCEL_TAG, HEARTBEAT_TAG, is_lost, owner_of

HEARTBEAT_S = 15.0
_CLAIMS_TO_GO_ON = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)


@contextlib.contextmanager
def heartbeat(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Tell other machines that this process is alive, and hear from them that the run shall stop."""
    stop = threading.Event()
    threading.Thread(target=_beat, args=(instance, run_id, stop.wait), daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _beat(instance: dg.DagsterInstance, run_id: str, wait: Callable[[float], bool]) -> None:
    while not wait(HEARTBEAT_S):
        with contextlib.suppress(Exception):  # a missed beat is not worth a run
            instance.add_run_tags(run_id, {HEARTBEAT_TAG: f"{time.time():.0f}"})
            run = instance.get_run_by_id(run_id)
            if run is not None and CANCEL_TAG in run.tags:
                _thread.interrupt_main()
                return


def fail_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark every run as failed that claims to go on and whose process is gone; as cancelled if it was told to stop.

    Returns:
        Their ids.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=list(_CLAIMS_TO_GO_ON)))
    lost = [run for run in runs if is_lost(run)]
    for run in lost:
        why = f"The process that ran it ({owner_of(run)}) is gone: it was killed, or its machine is down."
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, why)
        else:
            instance.report_run_failed(run, why)
    return [run.run_id for run in lost]
