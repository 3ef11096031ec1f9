"""`tidemill demo`: the main job on this machine, and a table of what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tidemill_deploy.demo import Demo


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(as_json: bool) -> int:  # noqa: FBT001 - click passes it by name
    """Run the New York flights of 2013 through every package, on embedded servers unless TIDEMILL_* says otherwise.

    Everything lives in the home (TIDEMILL_HOME, default .tidemill); a second run does no work twice.
    """
    import os
    import sys

    from tidemill_core.dag.watch import LiveWatcher, PlainWatcher, real_stderr
    from tidemill_core.doctor import require
    from tidemill_core.settings import Settings

    settings = Settings.from_env()
    os.environ["TIDEMILL_HOME"] = str(settings.home.absolute())
    settings = Settings.from_env()
    require(settings)
    stream = real_stderr()
    watcher = LiveWatcher(stream) if sys.stderr.isatty() else PlainWatcher(stream)
    click.echo("starting PostgreSQL, a Kafka broker and Dagster ...", err=True)
    from tidemill_deploy.demo import run_demo

    try:
        result = run_demo(settings, watcher)
    finally:
        watcher.close()
    if as_json:
        _print_json(result)
    else:
        _print_table(result, str(settings.home))
    return result.exit_code


def _print_json(result: Demo) -> None:
    import json
    from dataclasses import asdict

    facts = {**asdict(result), "succeeded": result.succeeded, "did_work": result.did_work}
    click.echo(json.dumps(facts, indent=2, default=str))


def _print_table(result: Demo, home: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="What was made", title_justify="left")
    for name in ("asset", "rows", "seconds", "work", "where"):
        table.add_column(name, justify="right" if name in ("rows", "seconds") else "left", overflow="fold")
    for each in result.made:
        table.add_row(
            each.asset,
            "" if each.rows is None else f"{each.rows:,}",
            "" if each.seconds is None else f"{each.seconds:.1f}",
            "new" if each.did_work else "unchanged",
            each.where,
        )
    console.print(table)
    for line in (*result.checks_failed, *result.errors):
        console.print(f"failed: {line}", style="red", markup=False)
    if result.state == "canceled":
        console.print(f"interrupted after {result.seconds:.0f} s; the same command goes on where this run stopped")
        return
    console.print(
        f"{result.state} in {result.seconds:.0f} s; {result.checks_passed} checks against the source files passed"
    )
    if result.succeeded and not result.did_work:
        console.print("Nothing had changed since the last run: no row was fetched, sent, loaded or copied twice.")
    console.print(f"Look at it: uv run tidemill ui   (everything is in {home})", markup=False)
