"""`tidemill stream`: check, run, drain and look at pipelines, and handle their dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tidemill_core.cli_output import Bounded, emit, schema_command

if TYPE_CHECKING:
    from tidemill_stream.config import PipelineConfig, PipelinesConfig
    from tidemill_stream.plan import Plan
    from tidemill_stream.running.draining import DrainProgress

_FILE = click.argument("config", type=click.Path(path_type=Path))
_ONLY = click.option("--only", multiple=True, metavar="NAME", help="Only this pipeline of the file; may be repeated.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def stream() -> None:
    """Kafka to PostgreSQL or an object store: validate, filter, window, exactly once."""


@stream.command()
@_FILE
@_JSON
def validate(config: Path, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Check a file of pipelines: names, schemas, conditions, columns, windows."""
    plans = _plans(config, ())
    found: list[dict[str, Any]] = [
        {
            "pipeline": plan.config.name,
            "topics": plan.config.source.topics,
            "outputs": {name: schema.names for name, schema in plan.arrow_schemas.items()},
            "typed_decoder": plan.decoder.fast is not None,
            "notes": plan.notes,
        }
        for plan in plans
    ]
    if as_json:
        emit(found, as_json=True)
        return
    for each in found:
        click.echo(f"{each['pipeline']}: {', '.join(each['topics'])} -> {', '.join(each['outputs'])}")
        for note in each["notes"]:
            click.echo(f"note: {each['pipeline']}: {note}", err=True)


@stream.command()
@_FILE
@_ONLY
@_JSON
@click.option("--takeover", is_flag=True, help="Drain although a live service holds the pipeline; it is fenced.")
def drain(config: Path, only: tuple[str, ...], takeover: bool, as_json: bool) -> None:  # noqa: FBT001
    """Process everything that is in the topics now, exactly once, and stop."""
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_stream.running.draining import drain as run_drain
    from tidemill_stream.sinks._base import sink_context

    results = []
    with stop_on_signals() as stop:
        for plan in _plans(config, only):
            with _bar(plan.config.name) as note:
                context = sink_context(plan)
                result = run_drain(plan, _servers(plan.config), context, stop=stop, takeover=takeover, on_progress=note)
            results.append(result)
    if as_json:
        emit(results, as_json=True)
        return
    for result in results:
        click.echo(result.sentence())


@stream.command()
@_FILE
@_ONLY
@click.option("--health-port", type=Bounded(0, 65_535), help="Serve /livez, /readyz, /metrics, /status here; 0 = any.")
@click.option("--health-host", default="127.0.0.1", show_default=True, help="Address of the health server.")
def run(config: Path, only: tuple[str, ...], health_port: int | None, health_host: str) -> None:
    """Run the pipelines as services, one process each, until told to stop (SIGTERM)."""
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_stream.running.supervisor import command_for, supervise

    pipelines = _chosen(_load(config), only)
    if len(pipelines) == 1:
        _run_one(config, pipelines[0].name, health_host, health_port)
        return
    ports = {each.name: (health_port + index if health_port else health_port) for index, each in enumerate(pipelines)}
    commands = {
        name: command_for(
            str(config), name, "--health-host", health_host, *(["--health-port", str(port)] if port is not None else [])
        )
        for name, port in ports.items()
    }
    with stop_on_signals() as stop:
        code = supervise(commands, stop)
    if code:
        raise click.exceptions.Exit(code)


def _run_one(config: Path, name: str, host: str, port: int | None) -> None:
    from tidemill_core.lifecycle import Shutdown, stop_on_signals
    from tidemill_core.telemetry.health import HealthServer

    from tidemill_stream.running.worker import LEASE_S, Worker
    from tidemill_stream.sinks._base import sink_context

    (plan,) = _plans(config, (name,))
    with stop_on_signals() as stop, Shutdown() as shutdown:
        worker = Worker(plan, _servers(plan.config), sink_context(plan, lease_s=LEASE_S), stop=stop)
        if port is not None:
            health = HealthServer(
                host, port, {"stream": worker.ready}, live={"loop": worker.live}, status=worker.status
            ).start()
            shutdown.push("health", health.stop, deadline_s=2)
            click.echo(f"{name}: health on {health.url}", err=True)
        worker.run()


@stream.command()
@_FILE
@_ONLY
@_JSON
def status(config: Path, only: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001
    """Show how far each pipeline is: its checkpoints, and where the broker says that the logs end."""
    from tidemill_stream.running.status import status as read_status
    from tidemill_stream.sinks._base import sink_context

    found = [read_status(plan, sink_context(plan), servers=_servers(plan.config)) for plan in _plans(config, only)]
    if as_json:
        emit(found, as_json=True)
        return
    for each in found:
        state = "drained" if each.is_drained else "not started" if not each.partitions else "behind"
        owner = f", run by {each.owner}" if each.owner else ""
        if each.log_ends_of == "checkpoint" and each.partitions:
            state += " as of the last checkpoint"
        click.echo(f"{each.pipeline}: {state}{owner}; {_words(each.totals.as_dict())}")
        if each.trouble:
            click.echo(f"{each.pipeline}: the broker was not reached: {each.trouble}", err=True)
        for part in each.partitions:
            mark = part.watermark.isoformat() if part.watermark else "-"
            click.echo(
                f"  {part.topic}[{part.partition}]  offset {part.offset}  lag {part.lag}  "
                f"open windows {part.open_windows}  watermark {mark}"
            )


def _model() -> type[PipelinesConfig]:
    from tidemill_stream.config import PipelinesConfig

    return PipelinesConfig


stream.add_command(schema_command(_model))


@stream.group()
def dlq() -> None:
    """List dead letters, and send them again."""


_REASON = click.option("--reason", multiple=True, help="Only letters with this reason; may be repeated.")


@dlq.command("list")
@_FILE
@_ONLY
@_REASON
@_JSON
@click.option("--limit", type=Bounded(1), default=100, show_default=True, help="At most so many each.")
def list_(config: Path, only: tuple[str, ...], reason: tuple[str, ...], limit: int, as_json: bool) -> None:  # noqa: FBT001
    """List the dead letters of pipelines."""
    from itertools import islice

    from tidemill_stream.sinks._base import sink_context
    from tidemill_stream.sinks.deadletters import letters

    found = [
        {"pipeline": plan.config.name, **each.as_dict()}
        for plan in _plans(config, only)
        for each in islice(letters(plan, sink_context(plan), reasons=reason), limit)
    ]
    if as_json:
        emit(found, as_json=True)
        return
    for each in found:
        where = f"{each['topic']}[{each['partition']}]@{each['offset']}"
        click.echo(f"{where}  {each['reason']}  {each['path']}  {each['message']}")


@dlq.command("replay")
@_FILE
@_ONLY
@_REASON
@click.option("--dry-run", is_flag=True, help="Only count what would be sent.")
def replay_(config: Path, only: tuple[str, ...], reason: tuple[str, ...], dry_run: bool) -> None:  # noqa: FBT001
    """Publish dead letters to their topics again, once the cause is mended."""
    from tidemill_stream.sinks._base import sink_context
    from tidemill_stream.sinks.deadletters import letters, replay

    for plan in _plans(config, only):
        context = sink_context(plan)
        if dry_run:
            sent = sum(bool(reason) or each.reason != "late" for each in letters(plan, context, reasons=reason))
        else:
            sent = replay(plan, context, _servers(plan.config), reasons=reason)
        click.echo(f"{plan.config.name}: {sent} {'would be sent' if dry_run else 'sent'}")


def _load(path: Path) -> PipelinesConfig:
    from tidemill_core.config import load

    from tidemill_stream.config import PipelinesConfig

    return load(path, PipelinesConfig)


def _chosen(config: PipelinesConfig, only: tuple[str, ...]) -> list[PipelineConfig]:
    from tidemill_core.errors import ConfigError
    from tidemill_core.plugins import did_you_mean

    names = [pipeline.name for pipeline in config.pipelines]
    for name in only:
        if name not in names:
            raise ConfigError(f"no pipeline is called {name!r}{did_you_mean(name, names)}")
    return [pipeline for pipeline in config.pipelines if not only or pipeline.name in only]


def _plans(path: Path, only: tuple[str, ...]) -> list[Plan]:
    from tidemill_stream.plan import Plan

    return [Plan(pipeline, base=path.parent) for pipeline in _chosen(_load(path), only)]


def _servers(config: PipelineConfig) -> str:
    if config.source.bootstrap_servers:
        return config.source.bootstrap_servers
    from tidemill_core.embedded import runtime

    return runtime.kafka_bootstrap()


@contextmanager
def _bar(name: str) -> Iterator[Callable[[DrainProgress], None]]:
    """Show a progress bar where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)

        def note(now: DrainProgress) -> None:
            progress.update(task, completed=now.consumed, total=now.consumed + now.remaining)

        yield note


def _words(values: dict[str, int]) -> str:
    return ", ".join(f"{value} {name}" for name, value in values.items())
