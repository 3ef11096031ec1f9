"""`tidemill dagster`: Dagster's own command, on the Tidemill home and with the settings' secrets."""

from __future__ import annotations

import click


@click.command(
    name="dagster",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dagster(arguments: tuple[str, ...]) -> None:
    """Run `dagster ARGUMENTS` on the Tidemill home.

    DAGSTER_HOME and the passwords that its dagster.yaml names are set from the TIDEMILL_*
    settings; nothing else changes:

        tidemill dagster job execute -m my_project.definitions -j my_job
    """
    import os
    import sys

    from tidemill_core.defs.home import prepare_home
    from tidemill_core.settings import Settings

    settings = Settings.from_env()
    environ = dict(os.environ)
    environ["TIDEMILL_HOME"] = str(settings.home.absolute())
    environ["DAGSTER_HOME"] = str(prepare_home(settings, environ=environ))
    os.execve(sys.executable, [sys.executable, "-m", "dagster", *arguments], environ)  # noqa: S606 - the same process
