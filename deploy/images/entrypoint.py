"""Check what an image needs, then become its command; the first argument is the image.

A setting, secret file or configuration file that is missing or wrong ends the container with one line and
exit code 3, before anything starts. Secrets that a file holds (`NAME_FILE`, as Docker and Kubernetes mount
them) are put into the variable, because Dagster's own configuration names variables only.
"""

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

NEEDED: Mapping[str, Sequence[str]] = {
    "dagster": (
        "TIDEMILL_DAGSTER_POSTGRES_URL",
        "TIDEMILL_POSTGRES_URL",
        "TIDEMILL_KAFKA_BOOTSTRAP",
        "TIDEMILL_LAKE_URL",
        "TIDEMILL_MIRROR_URL",
    ),
    "ingest": ("TIDEMILL_INGEST_STORE",),
    "stream": ("TIDEMILL_POSTGRES_URL", "TIDEMILL_KAFKA_BOOTSTRAP"),
    "sync": ("TIDEMILL_SYNC_TOKEN",),
}
"""What may not fall back to an embedded default in a container: data would end with it."""
CONFIGURATIONS = "/etc/tidemill/"
FILE = "_FILE"


class Wrong(Exception):
    """What is missing or wrong, in one line."""


def secrets(environ: MutableMapping[str, str]) -> None:
    """Replace each `TIDEMILL_..._FILE` by the variable it stands for.

    Raises:
        Wrong: A file cannot be read, is empty, or its variable is set, too.
    """
    for name in sorted(each for each in environ if each.startswith("TIDEMILL_") and each.endswith(FILE)):
        variable = name.removesuffix(FILE)
        if name == "TIDEMILL_GCS_CREDENTIALS_FILE" or not environ[name]:
            continue
        if environ.get(variable):
            raise Wrong(f"both {variable} and {name} are set; keep one")
        try:
            value = Path(environ[name]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Wrong(f"{name}: cannot read {environ[name]}: {getattr(error, 'strerror', None) or error}") from error
        if not value:
            raise Wrong(f"{name}: {environ[name]} is empty")
        environ[variable] = value
        del environ[name]


def check(image: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Refuse to start without what the image needs.

    Raises:
        Wrong: Names the first thing that is missing.
    """
    if image not in NEEDED:
        raise Wrong(f"no image is called {image!r}; known: {', '.join(sorted(NEEDED))}")
    if not command:
        raise Wrong("no command was given")
    missing = [name for name in NEEDED[image] if not environ.get(name)]
    if missing:
        known = ", ".join(missing)
        raise Wrong(f"the image {image} needs {known} (or a secret's file in NAME_FILE); see docs/how-to/deploy.md")
    for argument in command:
        if argument.startswith(CONFIGURATIONS) and not os.access(argument, os.R_OK):
            raise Wrong(f"cannot read {argument}; mount the configuration there")
    home = environ.get("TIDEMILL_HOME", "")
    if home and not os.access(home, os.W_OK):
        raise Wrong(f"TIDEMILL_HOME: {home} cannot be written by uid {os.getuid()}; mount a volume there")


def settings(environ: Mapping[str, str]) -> None:
    """Check every `TIDEMILL_*` variable by the packages' own declarations.

    Raises:
        Wrong: A variable is unknown, or its value is out of bounds.
    """
    from tidemill_core.errors import ConfigError
    from tidemill_core.settings import Settings

    try:
        Settings.from_env(environ)
    except ConfigError as error:
        raise Wrong(" ".join(str(error).split())) from error


def main() -> None:
    """Check, and become the command."""
    image, command = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    environ = dict(os.environ)
    try:
        secrets(environ)
        settings(environ)
        check(image, command, environ)
    except Wrong as error:
        print(f"tidemill: {error}", file=sys.stderr)
        sys.exit(3)
    os.execvpe(command[0], command, environ)


if __name__ == "__main__":
    main()
