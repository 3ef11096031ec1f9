"""Find a source's configuration: a file, or one that comes with the package (``builtin:github_issues``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.resources import files

from tidemill_core.config import load, parse_documents, validate
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

from tidemill_ingest_api.config import SourceConfig

BUILTIN = "builtin:"


def load_source(name: str, *, env: Mapping[str, str] | None = None) -> SourceConfig:
    """Read a source.

    Args:
        name: Path of a YAML or JSON file, or ``builtin:NAME``.
        env: Values for ``${NAME}``; default this process's environment.

    Raises:
        ConfigFaults: The file is wrong; lists every fault with its line.
        ConfigError: There is no such built-in source.
    """
    if not name.startswith(BUILTIN):
        return load(name, SourceConfig, env=env)
    known = builtin_names()
    wanted = name.removeprefix(BUILTIN)
    if wanted not in known:
        raise ConfigError(f"no built-in source {wanted!r}{did_you_mean(wanted, known)}")
    text = files(__package__).joinpath(f"{wanted}.yaml").read_text(encoding="utf-8")
    (document,) = parse_documents(text, file=name, env=env)
    return validate(document, SourceConfig)


def builtin_names() -> list[str]:
    """List the sources that come with the package."""
    return sorted(
        each.name.removesuffix(".yaml") for each in files(__package__).iterdir() if each.name.endswith(".yaml")
    )


def find_base_url(
    source: SourceConfig,
    *,
    resource: Callable[[str], object] | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Look up where a source is, when a run starts.

    Args:
        source: Its `base_url` is a URL, ``env:NAME`` or ``resource:NAME``.
        resource: Finds a Dagster resource by key; None outside Dagster.
        env: Environment variables; default this process's.

    Raises:
        ConfigError: The variable is not set, or there is no such resource.
    """
    kind, _, name = source.base_url.partition(":")
    if kind == "env":
        found: object = (os.environ if env is None else env).get(name)
        if not found:
            raise ConfigError(f"base_url of {source.source!r} is env:{name}, which is not set")
    elif kind == "resource":
        if resource is None:
            raise ConfigError(f"base_url of {source.source!r} is a Dagster resource; outside Dagster give --base-url")
        holder = resource(name)
        found = getattr(holder, "get_base_url", None) or getattr(holder, "base_url", None)
        found = found() if callable(found) else found
    else:
        return source.base_url
    if not isinstance(found, str) or not found.startswith(("http://", "https://")):
        raise ConfigError(f"base_url of {source.source!r}: {source.base_url} gives {found!r}, which is no http(s) URL")
    return found.rstrip("/")
