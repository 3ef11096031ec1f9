"""`tidemill doctor`: which server is used for what, and whether it answers."""

from __future__ import annotations

import click

_COLOURS = {"reached": "green", "embedded": "cyan", "unreachable": "red", "wrong": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def doctor(as_json: bool) -> int:  # noqa: FBT001 - click passes it by name
    """Reach every configured server; say what is used for what, embedded or real.

    Nothing is started and nothing is written. Exit code 3 if a setting is wrong, 75 if a
    server does not answer, within 15 seconds.
    """
    import json

    from tidemill_core.doctor import examine, exit_code
    from tidemill_core.settings import Settings

    findings = examine(Settings.from_env())
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
        return exit_code(findings)
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for name in ("use", "state", "where", "setting"):
        table.add_column(name, overflow="fold")
    for each in findings:
        table.add_row(each.use, f"[{_COLOURS[each.state]}]{each.state}[/]", each.where, each.setting)
    Console().print(table)
    for each in findings:
        if each.reason:
            click.echo(f"error: {each.sentence()}", err=True)
    return exit_code(findings)
