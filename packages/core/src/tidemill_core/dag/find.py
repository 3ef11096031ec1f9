"""Find the DAG a command means: a file, a file and a name, or just a name."""

from __future__ import annotations

import os
from pathlib import Path

from tidemill_core.dag.load import LoadedDag, load_dags
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

FOLDER_VARIABLE = "TIDEMILL_DAGS"


def dag_folder() -> Path:
    """Where DAGs are looked for by name: ``$TIDEMILL_DAGS``, else ``dags``."""
    return Path(os.environ.get(FOLDER_VARIABLE) or "dags")


def find_dag(target: str) -> LoadedDag:
    """Find one DAG.

    Args:
        target: ``file.yaml``, ``file.yaml:name`` (one of several documents), or ``name``.

    Raises:
        ConfigFaults: The file is wrong.
        ConfigError: There is no such file or DAG, or the file holds several.
    """
    path, _, name = target.partition(":")
    if Path(path).exists():
        dags = load_dags(path)
    elif dag_folder().is_dir() and not Path(target).suffix:
        dags, name = load_dags(dag_folder()), target
    else:
        raise ConfigError(
            f"{target!r} is no file, and there is no folder {dag_folder()} to look for a DAG of this name "
            f"(set {FOLDER_VARIABLE} to name another)"
        )
    named = [dag for dag in dags if not name or dag.spec.name == name]
    if len(named) == 1:
        return named[0]
    names = [dag.spec.name for dag in dags]
    if not named:
        raise ConfigError(f"{path} has no DAG {name!r}{did_you_mean(name, names)}")
    raise ConfigError(f"{path} holds {len(names)} DAGs; say which: {path}:{names[0]} ({', '.join(names)})")
