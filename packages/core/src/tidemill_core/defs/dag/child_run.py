"""A task that runs another DAG: its own run, in a process of its own, waited for.

``python -m tidemill_core.defs.dag.child_run`` is that process: a stop of the task is a SIGTERM to
it, which cancels the run; its exit code and outputs come back as those of a command do.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from tidemill_core.dag.errors import BadOutputs, RunSkipped
from tidemill_core.dag.load import LoadedDag, load_dags
from tidemill_core.dag.nested import output_tasks
from tidemill_core.dag.report import RunView, summary
from tidemill_core.dag.values import decode, encode, encode_outputs
from tidemill_core.errors import ExitCode, Stopped, TidemillError, exit_code

REQUEST = "TIDEMILL_CHILD_RUN"
STARTED_BY_TAG = "tidemill/started_by"
"""On a run that a task started: ``run id/task``."""
GRACE_S = 45.0
"""Seconds a run has to stop; longer than the executor gives its steps."""
_OF_A_TASK = ("TIDEMILL_DAG", "TIDEMILL_TASK", "TIDEMILL_RUN_ID", "TIDEMILL_PARTITION", "TIDEMILL_OUTPUTS", REQUEST)


def request(instance: dg.DagsterInstance, **what: Any) -> dict[str, str]:
    """Make the environment of the process that runs another DAG."""
    reference = None if instance.is_ephemeral else dg.serialize_value(instance.get_ref())
    asked = {**what, "params": encode(what["params"], where="params")}
    return {REQUEST: json.dumps({"instance": reference, **asked})}


def main() -> int:
    """Run the DAG that the environment asks for; write its outputs; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wanted = json.loads(os.environ[REQUEST])
    target = Path(os.environ["TIDEMILL_OUTPUTS"])
    for name in _OF_A_TASK:
        os.environ.pop(name, None)
    try:
        return _run(wanted, target)
    except (KeyboardInterrupt, Stopped):
        return ExitCode.INTERRUPTED
    except RunSkipped as skipped:
        _say(str(skipped))
        return ExitCode.DONE
    except TidemillError as error:
        _say(str(error))
        return exit_code(error)


def _say(line: str) -> None:
    """Write a line to the task's log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(wanted: Mapping[str, Any], target: Path) -> int:
    from tidemill_core.defs.dag.request import RunRequest
    from tidemill_core.defs.dag.runs import start_dag

    path, _, name = wanted["dag"].rpartition(":")
    found = next(each for each in load_dags(path) if each.spec.name == name)
    asked = RunRequest(
        params=decode(wanted["params"]),
        partition=wanted["partition"] if found.spec.partitions else None,
        tags={STARTED_BY_TAG: wanted["started_by"]},
    )
    with _instance(wanted["instance"]) as instance:
        ended = start_dag(found, asked, instance)
        for task in ended.tasks:
            if task.state == "failed":
                _say(f"{task.name}: {task.error}")
        _say(f"run {ended.id}: {summary(ended)}")
        if ended.state != "done":
            return _code(ended)
        made = output_tasks(found.spec)
        values = {name: _output(found, instance, ended.id, made[name][0], name) for name in wanted["outputs"]}
    written = encode_outputs(values, task=found.spec.name)
    target.write_text(json.dumps({**written, "child_run": ended.id}), encoding="utf-8")
    return ExitCode.DONE


def _output(found: LoadedDag, instance: dg.DagsterInstance, run_id: str, task: str, name: str) -> Any:
    from tidemill_core.defs.dag import outputs
    from tidemill_core.defs.dag.jobs import output_sources

    run = instance.get_run_by_id(run_id)
    sources: dict[str, Any] = {task: output_sources(found.spec)[task]}
    values = outputs.returned(instance, run, sources).get(task, {}) if run else {}
    if name not in values:
        raise BadOutputs(f"task {task!r} of DAG {found.spec.name!r} was skipped, so there is no output {name!r}")
    return values[name]


def _code(ended: RunView) -> int:
    if ended.state == "canceled":
        return ExitCode.INTERRUPTED
    return ExitCode.TEMPORARY if ended.is_temporary else ExitCode.FAILED


@contextmanager
def _instance(reference: str | None) -> Iterator[dg.DagsterInstance]:
    from tidemill_core.defs.executor.kept_connections import kept_connections

    if reference is None:
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance
        return
    own: Any = dg.deserialize_value(reference)
    with dg.DagsterInstance.from_ref(own) as instance, kept_connections(instance):
        yield instance


if __name__ == "__main__":
    sys.exit(main())
