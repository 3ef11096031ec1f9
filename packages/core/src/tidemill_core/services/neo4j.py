"""Neo4j community server over Bolt, without authentication, on loopback; for tests only (GPL-3)."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from tidemill_core.services._base import Launch
from tidemill_core.services.fetching import fetch_maven, maven_version, tool

_CONF = """\
server.bolt.listen_address=127.0.0.1:{port}
server.bolt.advertised_address=127.0.0.1:{port}
server.default_listen_address=127.0.0.1
server.http.enabled=false
server.https.enabled=false
dbms.security.auth_enabled=false
server.memory.heap.max_size=512m
server.memory.pagecache.size=64m
dbms.usage_report.enabled=false
"""
_OPENS = ("java.nio", "java.io", "sun.nio.ch", "java.lang")
_HANDSHAKE = b"\x60\x60\xb0\x17" + bytes([0, 8, 8, 5]) + bytes([0, 4, 4, 4]) + bytes(8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neo4jService:
    """A Neo4j server with one database."""

    @property
    def name(self) -> str:
        """``neo4j``."""
        return "neo4j"

    @property
    def version(self) -> str:
        """The pinned version of Neo4j."""
        return maven_version("neo4j")

    def fetch(self) -> Path:
        """Download the jars."""
        tool(self.name, "java")
        return fetch_maven(self.name, self.version)

    def prepare(self, folder: Path, port: int) -> Launch:
        """Write neo4j.conf."""
        conf = folder / "conf"
        conf.mkdir(parents=True, exist_ok=True)
        (conf / "neo4j.conf").write_text(_CONF.format(port=port))
        opens = (f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENS)
        jars = ("-cp", f"{self.fetch()}/*", "org.neo4j.server.CommunityEntryPoint")
        url = f"bolt://127.0.0.1:{port}"
        return Launch(
            command=(
                *(tool(self.name, "java"), "-Xmx512m", *opens, *jars),
                *(f"--home-dir={folder}", f"--config-dir={conf}"),
            ),
            cwd=folder,
            url=url,
            settings={"TIDEMILL_NEO4J_URL": url, "TIDEMILL_TEST_NEO4J_URL": url},
            start_s=180.0,
        )

    def is_ready(self, launch: Launch) -> bool:
        """Shake hands over Bolt."""
        host, _, port = launch.url.removeprefix("bolt://").rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(_HANDSHAKE)
                chosen = connection.recv(4)
        except OSError:
            return False
        return len(chosen) == 4 and chosen != bytes(4)  # noqa: PLR2004 - a Bolt version is 4 bytes
