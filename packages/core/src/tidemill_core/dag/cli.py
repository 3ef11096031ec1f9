"""`tidemill dag`: check, plan, run, follow and draw DAG files."""

from __future__ import annotations

import gc
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from tidemill_core.dag.report import exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dagster

    from tidemill_core.config import ConfigFault
    from tidemill_core.dag.errors import RunSkipped
    from tidemill_core.dag.load import LoadedDag
    from tidemill_core.dag.report import RunView
    from tidemill_core.defs.dag.request import RunRequest

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
PARAMS = click.option("--param", "-p", "params", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")


@click.group()
def dag() -> None:
    """DAG files: check, plan, run, follow."""


@dag.command()
@click.argument("paths", nargs=-1, required=True)
@click.option("--components", is_flag=True, help="Also build the components that tasks use (loads Dagster).")
@JSON
def validate(paths: tuple[str, ...], *, components: bool, as_json: bool) -> None:
    """Check every document of files and folders; name every fault with file and line."""
    from tidemill_core.config import ConfigFaults
    from tidemill_core.dag.load import load_dags

    faults: list[ConfigFault] = []
    names: list[str] = []
    for path in paths:
        try:
            found = load_dags(path)
            names += [each.spec.name for each in found]
        except ConfigFaults as wrong:
            faults += wrong.faults
            continue
        for each in found if components else ():
            faults += _component_faults(each)
    if as_json:
        listed = [
            {"file": fault.place.file, "line": fault.place.line, "key": fault.key, "message": fault.message}
            for fault in faults
        ]
        click.echo(json.dumps({"dags": names, "faults": listed}))
    elif not faults:
        click.echo(f"{len(names)} DAG{'s' if len(names) != 1 else ''} valid: {', '.join(names)}")
    if faults:
        raise ConfigFaults(faults)


@dag.command()
@click.argument("target", metavar="FILE_OR_NAME")
@PARAMS
@JSON
def plan(target: str, params: tuple[str, ...], *, as_json: bool) -> None:
    """Show what would run, in which order; nothing is run."""
    from tidemill_core.dag.expand import steps
    from tidemill_core.dag.find import find_dag
    from tidemill_core.dag.graph import levels
    from tidemill_core.dag.params import bind

    found = find_dag(target)
    given = _given(params)
    bind({name: spec for name, spec in found.spec.params.items() if name in given}, given, dag=found.spec.name)
    every = steps(found.spec)
    level = levels({step.name: step.needs for step in every})
    rows: list[dict[str, Any]] = [
        {
            "step": step.name,
            "level": level[step.name],
            "kind": step.task.work[0],
            "what": step.task.run if isinstance(step.task.run, list | tuple) else step.task.work[1],
            "needs": list(step.needs),
            "pool": step.task.pool,
            "retries": step.retry.count if step.retry else 0,
            "when": step.task.when,
            "trigger": step.task.trigger,
            "for_each": {name: values for name, values in step.task.matrix.items() if step.is_fan_out},
        }
        for step in every
    ]
    if as_json:
        click.echo(json.dumps({"dag": found.spec.name, "steps": rows}))
        return
    for row in rows:
        needs = f"  after {', '.join(row['needs'])}" if row["needs"] else ""
        extra = "".join(f"  {key} {row[key]}" for key in ("pool", "when") if row[key])
        extra += "".join(f"  for each {name} of {values}" for name, values in row["for_each"].items())
        click.echo(f"{row['level'] + 1:>3}  {row['step']}  {row['kind']}{needs}{extra}")


@dag.command()
@click.argument("target", metavar="FILE_OR_NAME")
@PARAMS
@click.option("--only", multiple=True, metavar="TASK", help="Run just this task; may be repeated.")
@click.option("--from", "start", multiple=True, metavar="TASK", help="Run this task and all that needs it.")
@click.option("--retry-failed", metavar="RUN", help="Run only what did not succeed in a run (id, or 'last').")
@click.option("--outputs-from", metavar="RUN", help="With --only or --from: take the other tasks' outputs from there.")
@click.option("--partition", metavar="KEY", help="Partition to run.")
@click.option("--partition-range", metavar="FROM...TO", help="Run these partitions in order, until one fails.")
@click.option("--executor", type=click.Choice(["in_process", "threads", "multiprocess"]), help="Instead of the DAG's.")
@click.option("--module", "-m", metavar="MODULE", help="Take the resources of this code location's `defs`.")
@click.option("--ephemeral", is_flag=True, help="Keep nothing of the run.")
@click.option("--watch", is_flag=True, help="Show a live table of the tasks.")
@JSON
def run(  # noqa: PLR0913 - one parameter per option
    target: str,
    params: tuple[str, ...],
    *,
    only: tuple[str, ...],
    start: tuple[str, ...],
    retry_failed: str | None,
    outputs_from: str | None,
    partition: str | None,
    partition_range: str | None,
    executor: str | None,
    module: str | None,
    ephemeral: bool,
    watch: bool,
    as_json: bool,
) -> int:
    """Run a DAG in this process, recorded as an ordinary Dagster run."""
    from tidemill_core.dag.errors import RunSkipped
    from tidemill_core.dag.find import find_dag
    from tidemill_core.dag.params import bind
    from tidemill_core.dag.watch import LiveWatcher, PlainWatcher, real_stderr
    from tidemill_core.errors import ConfigError

    found = find_dag(target)
    given = _given(params)
    if retry_failed is None:
        bind(found.spec.params, given, dag=found.spec.name)
    if retry_failed and (only or start):
        raise ConfigError("--retry-failed chooses the tasks itself; leave out --only and --from")
    if outputs_from and not (only or start):
        raise ConfigError("--outputs-from goes with --only or --from")
    gc.disable()  # importing Dagster makes a million objects and no garbage: a fifth of its CPU time is the collector
    from tidemill_core.defs.dag.request import RunRequest
    from tidemill_core.defs.dag.runs import open_instance, start_dag, start_range

    request = RunRequest(
        params=given,
        only=only,
        start=start,
        retry_run=retry_failed,
        outputs_from=outputs_from,
        partition=partition,
        executor=executor,
        module=module,
    )
    partitions = _partitions(found, request, partition_range)
    watcher = (LiveWatcher if watch and sys.stderr.isatty() else PlainWatcher)(real_stderr())
    ended: list[RunView] = []
    skipped: RunSkipped | None = None
    try:
        with open_instance(ephemeral=ephemeral) as instance:
            gc.freeze()
            gc.enable()
            if partitions is None:
                ended.append(start_dag(found, request, instance, watcher=watcher))
            else:
                ended += start_range(found, request, partitions, instance, watcher=watcher)
    except RunSkipped as error:
        skipped = error
    finally:
        watcher.close()
    return _end(ended, skipped, partitions, as_json=as_json)


def _end(ended: list[RunView], skipped: RunSkipped | None, partitions: list[str] | None, *, as_json: bool) -> int:
    """Print how runs ended, what was skipped and what of a range is left; return the exit code."""
    from tidemill_core.errors import ExitCode

    for each in ended:
        _print_end(each, as_json=as_json)
    if skipped is not None:
        facts = {"dag": skipped.dag, "state": "skipped", "reason": skipped.reason}
        click.echo(json.dumps(facts) if as_json else skipped)
    # A failed partition is to be run again; one that was skipped has not been run.
    done = sum(each.state == "done" for each in ended)
    if partitions is not None and done < len(partitions):
        rest = f"{partitions[done]}...{partitions[-1]}"
        click.echo(f"stopped after {len(ended)} of {len(partitions)} partitions; --partition-range {rest}", err=True)
    if skipped is None:
        return exit_code(ended[-1])
    return ExitCode.DONE if partitions is None else ExitCode.TEMPORARY


def _partitions(found: LoadedDag, request: RunRequest, range_: str | None) -> list[str] | None:
    """The partitions of a range; None without one."""
    if range_ is None:
        return None
    from tidemill_core.defs.dag.request import partition_range
    from tidemill_core.errors import ConfigError

    if request.partition or request.retry_run:
        raise ConfigError("--partition-range stands alone; leave out --partition and --retry-failed")
    return partition_range(found, range_)


def _print_end(ended: RunView, *, as_json: bool) -> None:
    from tidemill_core.dag.report import summary

    if as_json:
        click.echo(json.dumps(ended.as_json()))
        return
    for task in ended.tasks:
        if task.state == "failed":
            click.echo(f"{task.name}: {task.error}", err=True)
    if ended.error:
        click.echo(ended.error, err=True)
    click.echo(summary(ended))


@dag.command()
@click.argument("target", metavar="[RUN_OR_DAG]", required=False)
@click.option("--watch", is_flag=True, help="Follow a run until it ends.")
@click.option("--limit", default=20, show_default=True, help="How many runs to list.")
@JSON
def status(target: str | None, *, watch: bool, limit: int, as_json: bool) -> int | None:
    """List recent runs, or show one run with each task's state, tries and duration."""
    from tidemill_core.defs.dag.request import find_run
    from tidemill_core.defs.dag.runs import open_instance
    from tidemill_core.defs.dag.status import recent_runs, view

    with open_instance() as instance:
        is_dag = target is not None and bool(recent_runs(instance, dag=target, limit=1))
        if target is None or is_dag:
            runs = recent_runs(instance, dag=target, limit=limit)
            _print_runs(runs, as_json=as_json)
            return None
        found = view(instance, find_run(instance, target).run_id)
        if watch:
            found = _follow(instance, found)
        if as_json:
            click.echo(json.dumps(found.as_json()))
        elif not watch or not sys.stdout.isatty():
            from rich.console import Console

            from tidemill_core.dag.watch import print_run

            print_run(found, Console(width=None if sys.stdout.isatty() else 160))
        return exit_code(found) if watch else None


@dag.command()
@click.argument("run_id", metavar="RUN")
@click.option("--task", help="Only what this task printed.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
def logs(run_id: str, task: str | None, *, follow: bool) -> None:
    """Print what a run's tasks wrote (RUN is an id, its beginning, or 'last')."""
    import time

    from tidemill_core.defs.dag.request import find_run
    from tidemill_core.defs.dag.runs import log_lines, open_instance
    from tidemill_core.defs.dag.status import view

    with open_instance() as instance:
        found = find_run(instance, run_id).run_id
        seen = 0
        while True:
            is_over = not follow or view(instance, found).is_over
            lines = list(log_lines(instance, found, task))
            for line in lines[seen:]:
                click.echo(line)
            seen = len(lines)
            if is_over:
                return
            time.sleep(0.5)


@dag.command(name="list")
@click.argument("path", required=False)
@JSON
def list_(path: str | None, *, as_json: bool) -> None:
    """List the DAGs of a file or folder (default: $TIDEMILL_DAGS, else ./dags)."""
    from tidemill_core.dag.find import dag_folder
    from tidemill_core.dag.load import load_dags

    rows = [
        {
            "name": each.spec.name,
            "tasks": len(each.spec.tasks),
            "schedule": _crons(each) if each.spec.schedule else None,
            "file": str(each.file),
            "description": each.spec.description,
        }
        for each in load_dags(path or dag_folder())
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        schedule = f"  {row['schedule']}" if row["schedule"] else ""
        click.echo(f"{row['name']}  {row['tasks']} tasks{schedule}  {row['file']}")


@dag.command()
@click.argument("target", metavar="FILE_OR_NAME")
@click.option("--html", "html_path", type=click.Path(dir_okay=False), help="Write a self-contained page there.")
@click.option("--open", "is_open", is_flag=True, help="Show the page in a browser.")
def graph(target: str, html_path: str | None, *, is_open: bool) -> None:
    """Print the graph as Mermaid text, or draw it as an HTML page."""
    import webbrowser
    from pathlib import Path

    from tidemill_core.dag.drawing import html, mermaid
    from tidemill_core.dag.expand import steps
    from tidemill_core.dag.find import find_dag

    found = find_dag(target)
    every = steps(found.spec)
    if html_path is None and not is_open:
        click.echo(mermaid(every), nl=False)
        return
    path = Path(html_path or f"{found.spec.name}.html")
    path.write_text(html(found.spec.name, found.spec.description, every), encoding="utf-8")
    click.echo(str(path))
    if is_open:
        webbrowser.open(path.absolute().as_uri())


@dag.command()
def schema() -> None:
    """Print the JSON Schema of DAG files, for editors."""
    from tidemill_core.dag.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _crons(found: LoadedDag) -> str:
    cron = found.spec.schedule.cron if found.spec.schedule else ""
    return cron if isinstance(cron, str) else "; ".join(cron)


def _component_faults(found: LoadedDag) -> tuple[ConfigFault, ...]:
    from tidemill_core.config import ConfigFault, ConfigFaults
    from tidemill_core.defs.dag.jobs import compile_dag

    try:
        compile_dag(found)
    except ConfigFaults as wrong:
        return wrong.faults
    except Exception as error:  # noqa: BLE001 - whatever a component or Dagster says about it is a fault of the file
        return (ConfigFault(found.place, "", f"it cannot be built: {type(error).__name__}: {error}"),)
    return ()


def _given(params: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for each in params:
        name, found, value = each.partition("=")
        if not found:
            raise click.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--param")
        values[name] = value
    return values


def _print_runs(runs: list[RunView], *, as_json: bool) -> None:
    from datetime import datetime

    from tidemill_core.dag.report import duration

    if as_json:
        click.echo(json.dumps([run.as_json() for run in runs]))
        return
    for run in runs:
        when = datetime.fromtimestamp(run.started).astimezone().isoformat(" ", "seconds") if run.started else ""
        click.echo(f"{run.id}  {run.dag}  {run.state}  {when}{duration(run.seconds, '  ')}")


def _follow(instance: dagster.DagsterInstance, run: RunView) -> RunView:
    """Draw a run again and again until it is over."""
    from rich.console import Console
    from rich.live import Live

    from tidemill_core.dag.report import task_lines
    from tidemill_core.dag.watch import table

    last = run
    with Live(console=Console(stderr=not sys.stdout.isatty()), refresh_per_second=4) as live:
        for last in _views(instance, run.id):
            live.update(table(f"{last.dag}  {last.id}  {last.state}", task_lines(last)))
    return last


def _views(instance: dagster.DagsterInstance, run_id: str) -> Iterator[RunView]:
    import time

    from tidemill_core.defs.dag.status import view

    while True:
        found = view(instance, run_id)
        yield found
        if found.is_over:
            return
        time.sleep(0.5)
