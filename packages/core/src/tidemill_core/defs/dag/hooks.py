"""Hooks of DAG files: a log line, a webhook or a command when a task or a run has ended."""

import json
import logging
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.request import Request, urlopen

import dagster as dg

from tidemill_core.dag.spec import CommandHook, Hook, Hooks, LogHook, WebhookHook
from tidemill_core.dag.template import render

DONE_TAG = "tidemill/hooks"
_SKIPPED: set[tuple[str, str]] = set()
"""Run and key of the steps of this process whose condition was false."""


def note_skipped(run_id: str, step_key: str) -> None:
    """Keep the success hooks of a step from running: Dagster takes a step without output for a success."""
    _SKIPPED.add((run_id, step_key))


def run_hooks(hooks: Sequence[Hook], facts: Mapping[str, str], log: logging.Logger) -> None:
    """Run hooks one after the other; one that fails is logged and never fails the run.

    Args:
        hooks: What to do.
        facts: ``dag``, ``id``, ``status`` and ``task``, for ``${run.name}``.
        log: Where log hooks and failures are written.
    """
    for hook in hooks:
        try:
            _run_hook(hook, facts, log)
        except Exception as error:  # noqa: BLE001 - a hook must never decide the fate of a run
            log.warning("hook %s of %s failed: %s", hook.type, facts["dag"], error)


def _run_hook(hook: Hook, facts: Mapping[str, str], log: logging.Logger) -> None:
    if isinstance(hook, LogHook):
        log.info("%s", render(hook.message, {"run": facts}))
    elif isinstance(hook, WebhookHook):
        body = json.dumps({**facts, "run_id": facts["id"]}).encode()
        headers = {"Content-Type": "application/json", **hook.headers}
        request = Request(hook.url, data=body, headers=headers, method="POST")  # noqa: S310 - http(s) by the schema
        with urlopen(request, timeout=hook.timeout_s) as answer:  # noqa: S310 - as above
            answer.read()
    elif isinstance(hook, CommandHook):
        command = hook.run if isinstance(hook.run, str) else list(hook.run)
        env = {**os.environ, **{f"TIDEMILL_{name.upper()}": value for name, value in facts.items()}}
        subprocess.run(
            ["/bin/sh", "-c", command] if isinstance(command, str) else command,
            env=env,
            timeout=hook.timeout_s,
            check=True,
        )


def task_hooks(dag: str, task: str, hooks: Hooks) -> set[dg.HookDefinition]:
    """Make Dagster's hooks of one task; they run inside the run, with every way to start it."""
    found: set[dg.HookDefinition] = set()
    pairs = (("success", hooks.on_success, dg.success_hook), ("failure", hooks.on_failure, dg.failure_hook))
    for status, wanted, decorator in pairs:
        if not wanted:
            continue

        def fire(context: dg.HookContext, wanted: Sequence[Hook] = wanted, status: str = status) -> None:
            if (context.run_id, context.step_key) in _SKIPPED:
                _SKIPPED.discard((context.run_id, context.step_key))
                return
            facts = {"dag": dag, "id": context.run_id, "status": status, "task": task}
            run_hooks(wanted, facts, context.log)

        found.add(decorator(name=f"{dag}__{task}__on_{status}")(_only_context(fire)))
    return found


def _only_context(fire: Callable[[dg.HookContext], None]) -> Callable[[dg.HookContext], None]:
    """Hide the default arguments, which Dagster would take for inputs."""

    def hook(context: dg.HookContext) -> None:
        fire(context)

    return hook


def run_sensors(dag: str, hooks: Hooks, job: Any) -> list[dg.SensorDefinition]:
    """Make the sensors that run a DAG's hooks once per run; the daemon evaluates them.

    `tidemill dag run` runs the hooks itself and tags the run, so that nothing fires twice.
    """
    found: list[dg.SensorDefinition] = []
    pairs = (
        ("success", hooks.on_success, dg.DagsterRunStatus.SUCCESS),
        ("failure", hooks.on_failure, dg.DagsterRunStatus.FAILURE),
    )
    for status, wanted, run_status in pairs:
        if not wanted:
            continue

        @dg.run_status_sensor(
            run_status=run_status,
            name=f"{dag}_on_{status}",
            monitored_jobs=[job],
            default_status=dg.DefaultSensorStatus.RUNNING,
        )
        def sensor(
            context: dg.RunStatusSensorContext, wanted: Sequence[Hook] = wanted, status: str = status
        ) -> dg.SkipReason | None:
            run = context.dagster_run
            if DONE_TAG in run.tags:
                return dg.SkipReason("the command line has run the hooks")
            run_hooks(wanted, {"dag": dag, "id": run.run_id, "status": status, "task": ""}, context.log)
            return None

        found.append(sensor)
    return found
