"""What the environment says of where lineage goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import orjson
from tidemill_core.errors import ConfigError
from tidemill_core.variables import Variable, read_secret

from tidemill_lineage.emitters._base import Target, parse_target, parse_targets

TARGETS = "TIDEMILL_LINEAGE_TARGETS"
NEO4J_URL = "TIDEMILL_NEO4J_URL"
NEO4J_USER = "TIDEMILL_NEO4J_USER"
NEO4J_PASSWORD = "TIDEMILL_NEO4J_PASSWORD"  # noqa: S105 - the name of a variable
OPENLINEAGE_URL = "TIDEMILL_OPENLINEAGE_URL"

VARIABLES = (
    Variable(
        name=TARGETS,
        text='Where lineage is pushed to: a JSON list such as ``[{"type": "openlineage", "url": "http://host:5000"}]``;'
        " unset means the two below.",
        is_secret=True,
    ),
    Variable(name=NEO4J_URL, text="``bolt://host:port`` to push lineage to; unset means none."),
    Variable(name=NEO4J_USER, text="User of ``TIDEMILL_NEO4J_URL``; unset means no authentication."),
    Variable(name=NEO4J_PASSWORD, text="Password of ``TIDEMILL_NEO4J_USER``; unset means none.", is_secret=True),
    Variable(
        name=OPENLINEAGE_URL, text="OpenLineage endpoint (``http://host:port``) to push lineage to; unset means none."
    ),
)
"""What lineage reads."""


def neo4j_target(url: str, env: Mapping[str, str] | None = None) -> Target:
    """Make the target of the shorthand ``neo4j_url``, with the user and password of the environment.

    Raises:
        ConfigError: The password's file cannot be read.
    """
    found = os.environ if env is None else env
    value: dict[str, Any] = {"type": "neo4j", "url": url}
    if found.get(NEO4J_USER):
        value |= {"user": found[NEO4J_USER], "password": read_secret(NEO4J_PASSWORD, found)}
    return parse_target(value, where=NEO4J_URL)


def listed_targets(env: Mapping[str, str] | None = None) -> list[Target]:
    """Read ``TIDEMILL_LINEAGE_TARGETS``, or the file that ``TIDEMILL_LINEAGE_TARGETS_FILE`` names.

    Raises:
        ConfigError: It is no JSON list of targets; says which one is wrong.
    """
    text = read_secret(TARGETS, env)
    if text is None:
        return []
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{TARGETS} is no JSON: {error}") from error
    return parse_targets(value, where=TARGETS)


def targets_of(
    listed: list[Target] | None = None,
    *,
    neo4j_url: str = "",
    openlineage_url: str = "",
    env: Mapping[str, str] | None = None,
) -> list[Target]:
    """Say where lineage is pushed to.

    Args:
        listed: Targets that stand in place of ``TIDEMILL_LINEAGE_TARGETS``; empty means those.
        neo4j_url: In place of ``TIDEMILL_NEO4J_URL``.
        openlineage_url: In place of ``TIDEMILL_OPENLINEAGE_URL``.
        env: Default: this process's environment.

    Raises:
        ConfigError: A target is wrong.
    """
    found = os.environ if env is None else env
    targets = list(listed or listed_targets(found))
    if url := neo4j_url or found.get(NEO4J_URL, ""):
        targets.append(neo4j_target(url, found))
    if url := openlineage_url or found.get(OPENLINEAGE_URL, ""):
        targets.append(parse_target({"type": "openlineage", "url": url}, where=OPENLINEAGE_URL))
    return [each for number, each in enumerate(targets) if each not in targets[:number]]
