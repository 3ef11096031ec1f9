"""`tidemill ui`: the Dagster UI and daemon on the Tidemill home."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tidemill_core.cli_output import Bounded
from tidemill_core.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

PORT = 3000
"""Where the UI listens when nothing else is said and nobody else does."""
LOCATIONS = "tidemill.code_location"
"""Entry points whose value is a module of Dagster definitions, looked at outside a project."""


@click.command()
@click.option("-m", "--module", default=None, help="Module of the definitions (default: the project's in this folder).")
@click.option("-f", "--file", "python_file", default=None, help="Python file of them.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=None, type=Bounded(1, 65_535), help=f"Port (default: {PORT}, or the next free).")
def ui(module: str | None, python_file: str | None, host: str, port: int | None) -> int:
    """Open the Dagster UI: webserver and daemon, until interrupted."""
    import os
    import sys

    from tidemill_core.defs.home import prepare_home
    from tidemill_core.embedded import runtime
    from tidemill_core.services.errors import ServiceMissing
    from tidemill_core.settings import Settings

    target = _target(module, python_file)
    chosen = _choose_port(host, port)
    settings = Settings.from_env()
    os.environ["TIDEMILL_HOME"] = str(settings.home.absolute())
    os.environ["DAGSTER_HOME"] = str(prepare_home(settings))
    try:
        runtime.hold(settings)
    except ServiceMissing as missing:
        click.echo(f"without embedded servers: {missing}", err=True)
    click.echo(f"http://{host}:{chosen} (home: {os.environ['DAGSTER_HOME']}; stop with Ctrl-C)", err=True)
    return _run([sys.executable, "-m", "dagster", "dev", *target, "-h", host, "-p", str(chosen)])


def _target(module: str | None, python_file: str | None) -> list[str]:
    """Choose whose definitions are shown: those named, this folder's project's, or those installed.

    Raises:
        ConfigError: The file that is named is not there.
        click.UsageError: Both are named, or there are none, or several are installed.
    """
    from importlib.metadata import entry_points
    from pathlib import Path

    if module and python_file:
        raise click.UsageError("give --module or --file, not both")
    if python_file:
        if not Path(python_file).is_file():
            raise ConfigError(f"{python_file}: cannot be read: No such file or directory")
        return ["-f", python_file]
    if module:
        return ["-m", module]
    here = Path.cwd()
    if (here / "workspace.yaml").exists() or (here / "dg.toml").exists() or _is_project(here / "pyproject.toml"):
        return []  # Dagster reads them itself
    installed = sorted({point.value for point in entry_points(group=LOCATIONS)})
    if len(installed) != 1:
        which = f"; installed are {', '.join(installed)}" if installed else ""
        raise click.UsageError(f"whose definitions? Name them with --module or --file, or run it in a project{which}")
    return ["-m", installed[0]]


def _is_project(file: Path) -> bool:
    import tomllib

    if not file.exists():
        return False
    tool = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    return bool({"dagster", "dg"} & set(tool))


def _choose_port(host: str, wanted: int | None) -> int:
    """Take the port asked for, or the first free one from the usual one upwards.

    Raises:
        ConfigError: The port asked for is taken.
    """
    from tidemill_core.errors import ConfigError

    if wanted is not None:
        if not _is_free(host, wanted):
            raise ConfigError(f"port {wanted} of {host} is taken by another program; choose another with --port")
        return wanted
    for port in range(PORT, PORT + 100):
        if _is_free(host, port):
            if port != PORT:
                click.echo(f"port {PORT} is taken by another program; using {port}", err=True)
            return port
    raise ConfigError(f"ports {PORT} to {PORT + 99} of {host} are all taken; choose another with --port")


def _is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen there.

    Raises:
        ConfigError: There is no such address on this machine.
    """
    import errno
    import socket

    from tidemill_core.errors import ConfigError

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # A server that ended a moment ago must not count: web servers bind over TIME_WAIT as well.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if error.errno == errno.EACCES:
            raise ConfigError(f"port {port} needs rights that this account has not; choose one above 1023") from error
        raise ConfigError(f"cannot listen on {host}: {error.strerror or error}") from error
    return True


def _run(command: list[str]) -> int:
    """Run `command` until it ends or we are told to stop, and pass that on once."""
    import signal
    import subprocess
    from contextlib import suppress

    from tidemill_core.lifecycle import stop_on_signals

    with stop_on_signals() as stop:
        child = subprocess.Popen(command, start_new_session=True)
        while child.poll() is None and not stop.wait(0.5):
            continue
        if child.poll() is not None:
            return child.returncode
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(30)
        if child.poll() is None:
            child.kill()
        return 0
