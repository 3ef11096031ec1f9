"""`tidemill services`: real servers on this machine without Docker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tidemill_core.services.running import Running


@click.group()
def services() -> None:
    """Start, stop and list real servers (PostgreSQL, Kafka, S3, Neo4j, ...) without Docker."""


_NAMES = click.argument("names", nargs=-1)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_ENV = click.option("--env", "as_env", is_flag=True, help="Print shell lines that point everything at the servers.")


@services.command()
@_NAMES
@_JSON
@_ENV
def up(names: tuple[str, ...], *, as_json: bool, as_env: bool) -> None:
    """Start NAMES (default: postgres kafka s3mock neo4j); those that run already are left alone."""
    from tidemill_core.services import stack
    from tidemill_core.settings import Settings

    running = []
    for each, started in stack.up(Settings.from_env().home, names):
        click.echo(
            f"{each.name} {each.version} {'started' if started else 'runs already'} at {_shown(each.url)}", err=True
        )
        running.append(each)
    _print(running, as_json=as_json, as_env=as_env)


@services.command()
@_NAMES
def fetch(names: tuple[str, ...]) -> None:
    """Download or build NAMES (default: postgres kafka s3mock neo4j) without starting them."""
    from tidemill_core.services import stack

    for service in [stack.service(name) for name in names or stack.DEFAULT]:
        click.echo(f"{service.name:<10} {service.version:<10} {service.fetch()}")


@services.command()
@_NAMES
@_JSON
def down(names: tuple[str, ...], *, as_json: bool) -> None:
    """Stop NAMES (default: all); their data is kept for the next `up`."""
    import json

    from tidemill_core.services import stack
    from tidemill_core.settings import Settings

    stopped = list(stack.down(Settings.from_env().home, names))
    if as_json:
        click.echo(json.dumps({"stopped": stopped}))
        return
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing ran")


@services.command()
@_JSON
@_ENV
def status(*, as_json: bool, as_env: bool) -> None:
    """List the servers that run."""
    from tidemill_core.services import stack
    from tidemill_core.settings import Settings

    running = stack.status(Settings.from_env().home)
    if not running and not as_json and not as_env:
        click.echo("nothing runs; start servers with `tidemill services up`")
        return
    _print(running, as_json=as_json, as_env=as_env)


def _print(running: list[Running], *, as_json: bool, as_env: bool) -> None:
    import json
    import shlex

    from tidemill_core.services.stack import settings

    if as_env:
        for name, value in settings(running).items():
            click.echo(f"export {name}={shlex.quote(value)}")
    elif as_json:
        facts = [
            {"name": each.name, "version": each.version, "pid": each.pid, "url": each.url}
            | {"log": str(each.log), "settings": dict(each.settings)}
            for each in running
        ]
        click.echo(json.dumps(facts, indent=2))
    else:
        for each in running:
            click.echo(f"{each.name:<10} {each.version:<10} pid {each.pid:<8} {_shown(each.url)}")


def _shown(url: str) -> str:
    """Hide the password of a URL."""
    import re

    return re.sub(r"(://[^:/@]+):[^@]+@", r"\1:***@", url)
