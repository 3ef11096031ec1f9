"""`tidemill load`: plan, run, status, rejects, validate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tidemill_core.cli_output import Bounded, emit, emit_line, schema_command

if TYPE_CHECKING:
    from tidemill_loader.config import LoadConfig, LoadsFile

Command = Callable[..., Any]


@click.group()
def load() -> None:
    """Load Parquet, CSV and JSON files into PostgreSQL."""


def _loads_options(command: Command) -> Command:
    """Add what `run`, `plan` and `validate` share: files or a configuration."""
    options = (
        click.argument("files", nargs=-1),
        click.option("-c", "--config", type=click.Path(path_type=Path), help="YAML or JSON file of loads."),
        click.option("-t", "--table", help="Table to load into, such as raw.planes."),
        click.option("-m", "--mode", type=click.Choice(["replace", "append", "upsert"]), help="Default: replace."),
        click.option("-k", "--key", multiple=True, help="Key column; repeat for several."),
        click.option("-f", "--format", "format_", help="parquet, csv or json; default by the file name."),
        click.option("--null", "nulls", multiple=True, help="CSV field that means null; repeat for several."),
        click.option("--column", "columns", multiple=True, metavar="NAME=TYPE", help="PostgreSQL type of a column."),
        click.option("--workers", type=int, help="Connections; default 2."),
        click.option("--max-rejects", type=int, help="Bad rows to set aside before giving up; default 0."),
        click.option("--url", envvar="TIDEMILL_POSTGRES_URL", help="PostgreSQL URL; default the embedded server."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@load.command()
@_loads_options
@click.option("--force", is_flag=True, help="Load again what is loaded already.")
@click.option("--quiet", is_flag=True, help="No progress.")
def run(files: Sequence[str], config: Path | None, *, force: bool, quiet: bool, as_json: bool, **given: Any) -> None:
    """Load FILES (paths, URLs, patterns) into --table, or all loads of --config.

    Run it again after a failure or a kill: it goes on where it ended, and loads nothing twice.
    """
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_loader.engine import run_load

    loads, url = _loads(files, config, given)
    with stop_on_signals() as stop, _progress(quiet=quiet) as progress:
        for each in loads:
            result = run_load(each, url(), stop=stop, progress=progress, force=force)
            if as_json:
                emit_line(result)
            else:
                click.echo(result.sentence())


@load.command()
@_loads_options
def plan(files: Sequence[str], config: Path | None, *, as_json: bool, **given: Any) -> None:
    """Print the table and the units a load would make; touches no database."""
    from tidemill_loader.engine import plan_load

    loads, _ = _loads(files, config, given)
    for each in loads:
        made = plan_load(each)
        if as_json:
            emit_line(_plan_facts(made))
            continue
        click.echo(f"-- {each.mode} {each.target}: {len(made.files)} files, {len(made.tasks)} units")
        click.echo(f"{made.ddl};" if made.files else "-- no files")
        for task in made.tasks:
            rows = "" if task.unit.rows is None else f"{task.unit.rows:,} rows, "
            click.echo(f"-- {task.name}: {rows}{task.unit.size_bytes:,} bytes")
        for url in made.hidden:
            click.echo(f"-- {url}: hidden, passed over")


@load.command()
@_loads_options
def validate(files: Sequence[str], config: Path | None, *, as_json: bool, **given: Any) -> None:
    """Check a configuration and that its files can be read and agree; loads nothing."""
    from tidemill_loader.engine import plan_load

    loads, _ = _loads(files, config, given)
    for each in loads:
        made = plan_load(each)
        if as_json:
            emit_line(_plan_facts(made))
        else:
            click.echo(f"{each.target}: {len(made.files)} files, {len(made.schema.names)} columns, ok")


def _model() -> type[LoadsFile]:
    from tidemill_loader.config import LoadsFile

    return LoadsFile


load.add_command(schema_command(_model))


@load.command()
@click.argument("table", required=False)
@click.option("--url", envvar="TIDEMILL_POSTGRES_URL", help="PostgreSQL URL; default the embedded server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(table: str | None, *, url: str | None, as_json: bool) -> None:
    """Show what is loaded, by table: generation, state, units, rows, rejected rows."""
    from tidemill_loader.report import load_status

    rows = load_status(_url(url), table)
    emit(rows, as_json=as_json, empty="nothing is loaded yet")


@load.command()
@click.argument("table")
@click.option("--limit", type=Bounded(1), default=100, show_default=True, help="Rows to show.")
@click.option("--url", envvar="TIDEMILL_POSTGRES_URL", help="PostgreSQL URL; default the embedded server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def rejects(table: str, *, limit: int, url: str | None, as_json: bool) -> None:
    """Show the rows of a table's files that were set aside, and why."""
    from tidemill_loader.report import load_rejects

    rows = load_rejects(_url(url), table, limit=limit)
    emit(rows, as_json=as_json, empty=f"no rejected rows of {table}")


def _loads(
    files: Sequence[str], config: Path | None, given: dict[str, Any]
) -> tuple[Sequence[LoadConfig], Callable[[], str]]:
    """Answer the loads of a file or of the options, and where they go."""
    from tidemill_core.config import Document, load_documents, validate

    from tidemill_loader.config import LoadConfig, LoadsFile

    if bool(files) == bool(config):
        raise click.UsageError("give FILES and --table, or --config")
    url = given["url"]
    if config is not None:
        loads: list[LoadConfig] = []
        for document in load_documents(config):
            if isinstance(document.value, dict) and "loads" in document.value:
                made = validate(document, LoadsFile)
                loads += made.loads
                url = url or (made.postgres_url.get_secret_value() if made.postgres_url else None)
            else:
                loads.append(validate(document, LoadConfig))
        return loads, lambda: _url(url)
    if not given["table"]:
        raise click.UsageError("--table is needed with FILES")
    values = {name: given[name] for name in ("table", "mode", "workers", "max_rejects") if given[name] is not None}
    values |= {name: list(given[name]) for name in ("key", "nulls") if given[name]}
    values |= {"format": given["format_"]} if given["format_"] else {}
    values |= {"columns": dict(_pair(text) for text in given["columns"])} if given["columns"] else {}
    document = Document({**values, "files": list(files)}, {}, "options")
    return [validate(document, LoadConfig)], lambda: _url(url)


def _pair(text: str) -> tuple[str, str]:
    name, separator, type_ = text.partition("=")
    if not separator:
        raise click.UsageError(f"--column {text}: write NAME=TYPE")
    return name, type_


def _url(given: str | None) -> str:
    if given:
        return given
    from tidemill_core.embedded.runtime import postgres_url

    return postgres_url()


def _progress(*, quiet: bool) -> Any:
    from contextlib import nullcontext

    from tidemill_loader.progress import BarProgress, LogProgress, NoProgress, is_terminal

    if quiet:
        return nullcontext(NoProgress())
    return BarProgress() if is_terminal() else nullcontext(LogProgress())


def _plan_facts(plan: Any) -> dict[str, Any]:
    tasks = [
        {"url": t.source.url, "unit": t.unit.index, "rows": t.unit.rows, "bytes": t.unit.size_bytes} for t in plan.tasks
    ]
    return {
        "table": str(plan.config.target),
        "mode": plan.config.mode,
        "generation": plan.generation,
        "ddl": plan.ddl if plan.files else None,
        "columns": dict(plan.types),
        "units": tasks,
    }
