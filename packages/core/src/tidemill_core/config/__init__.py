"""Read YAML and JSON into frozen models; every fault names its file, line and column at once.

A document is parsed to plain values and a map from each value's path to its place in
the file, ``${NAME}`` is replaced from the environment (``${NAME:-default}`` when it is
unset or empty, ``$${`` for a literal ``${``), and pydantic checks the values.
"""

from __future__ import annotations

from pydantic import SecretStr

from tidemill_core.config.document import (
    Config,
    ConfigFault,
    ConfigFaults,
    ConfigJsonSchema,
    Document,
    KeyPath,
    Place,
    dotted,
)
from tidemill_core.config.load import faults_of, load, load_documents, parse_documents, validate

__all__ = [
    "Config",
    "ConfigFault",
    "ConfigFaults",
    "ConfigJsonSchema",
    "Document",
    "KeyPath",
    "Place",
    "SecretStr",
    "dotted",
    "faults_of",
    "load",
    "load_documents",
    "parse_documents",
    "validate",
]
