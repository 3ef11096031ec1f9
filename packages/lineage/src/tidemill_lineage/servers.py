"""The servers that lineage is pushed to, for `tidemill doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from tidemill_core.doctor import Server, answers
from tidemill_core.settings import Settings

from tidemill_lineage.emitters._base import Target
from tidemill_lineage.settings import NEO4J_URL, OPENLINEAGE_URL, TARGETS, listed_targets, targets_of

_PORTS = {"bolt": 7687, "neo4j": 7687, "https": 443, "http": 80}
_SHORTHANDS = {"neo4j": NEO4J_URL, "openlineage": OPENLINEAGE_URL}


def lineage_servers(settings: Settings) -> Sequence[Server]:
    """Name every target on a host and a port; files need no server. None by default."""
    del settings  # lineage reads its own variables
    listed = listed_targets()
    found = (_server(each, TARGETS if each in listed else _SHORTHANDS[each.type]) for each in targets_of())
    return [each for each in found if each is not None]


def _server(target: Target, setting: str) -> Server | None:
    parts = urlsplit(target.url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme.partition("+")[0], 0)
    if not host or not port:
        return None
    use = {"neo4j": "lineage in Neo4j", "openlineage": "lineage by OpenLineage"}.get(
        target.type, f"lineage by {target.type}"
    )
    return Server(use=use, setting=setting, where=f"{parts.scheme}://{host}:{port}", ask=lambda: answers(host, port))
