"""Variables of the environment: each is declared by the part that reads it, and any other is refused.

A variable that nothing reads is not passed over, because its writer would believe in it: a
misspelt warehouse would silently be the embedded one. A package declares its own through the
entry point ``tidemill.variables``, whose value is a sequence of `Variable`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry

PREFIX = "TIDEMILL_"
FILE_SUFFIX = "_FILE"
"""After the name of a secret: the file that holds it."""
_OF_TESTS = (f"{PREFIX}TEST_", f"{PREFIX}REQUIRE")
# Kubernetes and Docker write these for a service that is called tidemill or tidemill-something.
_OF_A_CLUSTER = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)=.*|.*_PORT=(tcp|udp)://.*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One variable that a part reads or sets."""

    name: str
    """Whole name, such as ``TIDEMILL_POSTGRES_URL``; ``TIDEMILL_PARAM_*`` is a family."""
    text: str
    """What it is for, and what unset means."""
    is_secret: bool = False
    """Whether ``<name>_FILE`` may name a file that holds it."""

    def fits(self, name: str) -> bool:
        """Whether `name` is this variable, one of its family, or the file of this secret."""
        if self.name.endswith("*"):
            return name.startswith(self.name[:-1])
        return name == self.name or (self.is_secret and name == self.name + FILE_SUFFIX)


VARIABLES: Registry[Sequence[Variable]] = Registry("tidemill.variables", "declaration of variables")


def declared() -> Iterator[tuple[str, Variable]]:
    """Yield every part's name with each of its variables.

    Raises:
        PluginError: The declaration of an installed part cannot be imported.
    """
    for part in VARIABLES.names():
        for variable in VARIABLES.get(part):
            yield part, variable


def refuse_unknown(env: Mapping[str, str] | None = None) -> None:
    """Check that every ``TIDEMILL_*`` variable is one that something reads.

    Args:
        env: Default: this process's environment. Variables of tests and of clusters are left alone.

    Raises:
        ConfigError: One is not; says which one may be meant.
    """
    env = os.environ if env is None else env
    ours = sorted(name for name, value in env.items() if name.startswith(PREFIX) and not _is_of_others(name, value))
    if not ours:
        return
    known = [variable for _, variable in declared()]
    unknown = [name for name in ours if not any(variable.fits(name) for variable in known)]
    if unknown:
        raise ConfigError("; ".join(_fault(name, known) for name in unknown))


def read_secret(name: str, env: Mapping[str, str] | None = None) -> str | None:
    """Read a secret from its variable, or from the file that ``<name>_FILE`` names.

    Args:
        name: The variable, such as ``TIDEMILL_POSTGRES_URL``.
        env: Default: this process's environment.

    Returns:
        The secret, a file's without the line end after it; None if neither is set.

    Raises:
        ConfigError: Both are set, or the file cannot be read or is empty.
    """
    env = os.environ if env is None else env
    value, file = env.get(name), env.get(name + FILE_SUFFIX)
    if not file:
        return value or None
    if value:
        raise ConfigError(f"{name} and {name}{FILE_SUFFIX} are both set; unset one of them")
    try:
        found = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{name}{FILE_SUFFIX}: {file} cannot be read: {reason}") from error
    if not found:
        raise ConfigError(f"{name}{FILE_SUFFIX}: {file} is empty; write the secret into it, or unset the variable")
    return found


def _is_of_others(name: str, value: str) -> bool:
    """Whether a test or a cluster has set it."""
    return name.startswith(_OF_TESTS) or bool(_OF_A_CLUSTER.fullmatch(f"{name}={value}"))


def _fault(name: str, known: Sequence[Variable]) -> str:
    """Say that nothing reads a variable, and which one is nearest."""
    names = [each.name for each in known if not each.name.endswith("*")]
    names += [each.name + FILE_SUFFIX for each in known if each.is_secret]
    # Without the prefix that all share; with it, everything would be near.
    near = get_close_matches(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in names], n=1)
    if near:
        return f"{name} is no setting; did you mean {PREFIX}{near[0]}?"
    return f"{name} is no setting: nothing reads it; unset it, or declare it (entry point {VARIABLES.group})"
