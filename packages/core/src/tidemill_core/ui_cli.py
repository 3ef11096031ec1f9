"""`tidemill ui`: the Dagster UI and daemon on the Tidemill home."""

from __future__ import annotations

import click


@click.command()
@click.option("-m", "--module", default=None, help="Module of the definitions (default: tidemill_deploy.definitions).")
@click.option("-f", "--file", "python_file", default=None, type=click.Path(exists=True), help="Python file of them.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
def ui(module: str | None, python_file: str | None, host: str, port: int) -> int:
    """Open the Dagster UI: webserver and daemon, until interrupted."""
    import os
    import sys

    from tidemill_core.defs.home import prepare_home
    from tidemill_core.embedded import runtime
    from tidemill_core.services.errors import ServiceMissing
    from tidemill_core.settings import Settings

    if module and python_file:
        raise click.UsageError("give --module or --file, not both")
    settings = Settings.from_env()
    os.environ["TIDEMILL_HOME"] = str(settings.home.absolute())
    os.environ["DAGSTER_HOME"] = str(prepare_home(settings))
    try:
        runtime.hold(settings)
    except ServiceMissing as missing:
        click.echo(f"without embedded servers: {missing}", err=True)
    target = ["-f", python_file] if python_file else ["-m", module or "tidemill_deploy.definitions"]
    click.echo(f"http://{host}:{port} (home: {os.environ['DAGSTER_HOME']}; stop with Ctrl-C)", err=True)
    return _run([sys.executable, "-m", "dagster", "dev", *target, "-h", host, "-p", str(port)])


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
