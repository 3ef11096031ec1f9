"""The servers that lineage is pushed to, for `tidemill doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from tidemill_core.doctor import Server, answers
from tidemill_core.settings import Settings

_PORTS = {"bolt": 7687, "neo4j": 7687, "https": 443, "http": 80}


def lineage_servers(settings: Settings) -> Sequence[Server]:
    """What the settings name: Neo4j and an OpenLineage endpoint; none by default."""
    named = (
        ("lineage in Neo4j", "TIDEMILL_NEO4J_URL", settings.neo4j_url),
        ("lineage by OpenLineage", "TIDEMILL_OPENLINEAGE_URL", settings.openlineage_url),
    )
    return [_server(use, setting, url) for use, setting, url in named if url]


def _server(use: str, setting: str, url: str) -> Server:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme.partition("+")[0], 0)
    return Server(use=use, setting=setting, where=f"{parts.scheme}://{host}:{port}", ask=lambda: answers(host, port))
