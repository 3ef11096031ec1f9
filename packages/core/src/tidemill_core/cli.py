"""The `tidemill` command: its groups are found through entry points and imported when used."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from tidemill_core.errors import ExitCode, Stopped, TidemillError, exit_code
from tidemill_core.extras import missing_extra
from tidemill_core.plugins import Registry

GROUPS: Registry[click.Command] = Registry("tidemill.cli", "command")


class LazyGroup(click.Group):
    """A click group whose commands are entry points."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command without importing one."""
        return sorted({*super().list_commands(ctx), *GROUPS.names()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the one command that was asked for."""
        if cmd_name in self.commands or cmd_name not in GROUPS.names():
            return super().get_command(ctx, cmd_name)
        return GROUPS.get(cmd_name)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("tidemill-core"), prog_name="tidemill")
@click.option("-v", "--verbose", count=True, help="More log lines; twice for debug.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="Default: console on a terminal.")
def cli(verbose: int, log_format: str | None) -> None:
    """Build, run and watch data pipelines around Dagster."""
    from tidemill_core.telemetry import configure_logging
    from tidemill_core.variables import refuse_unknown

    refuse_unknown()
    configure_logging(verbosity=verbose, format=log_format)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command; every error of ours becomes one line on stderr and its exit code."""
    _stop_like_an_interrupt()
    try:
        code = cli.main(args=args, prog_name="tidemill", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else ExitCode.DONE)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as wrong:
        wrong.show()
        sys.exit(wrong.exit_code)
    except (click.Abort, KeyboardInterrupt, Stopped):
        click.echo("interrupted", err=True)
        sys.exit(ExitCode.INTERRUPTED)
    except Exception as failed:  # what is none of ours is raised again
        error = _ours(failed)
        if error is None:
            raise
        from tidemill_core.config import ConfigFaults
        from tidemill_core.telemetry.redact import redact

        lines = map(str, error.faults) if isinstance(error, ConfigFaults) else [str(error)]
        for line in lines:
            click.echo(f"error: {redact(line)}", err=True)
        sys.exit(exit_code(error))


def _ours(error: Exception) -> TidemillError | None:
    """The error as one of ours: a library that is not installed, or trouble with Dagster's storage."""
    if isinstance(error, TidemillError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing_extra(error)
    if "dagster" not in sys.modules:
        return None
    from tidemill_core.defs.storage_errors import storage_error

    return storage_error(error)


def _stop_like_an_interrupt() -> None:
    """Let SIGTERM end a command as Ctrl-C does: cleaned up, one word, exit code 130.

    Commands that stop in an orderly way (services, runs) put their own handlers over this one.
    """
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
