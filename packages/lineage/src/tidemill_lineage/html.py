"""One self-contained HTML page of a graph: no network, no server."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import orjson

from tidemill_lineage.document import graph_value
from tidemill_lineage.graph import Graph


def write_page(graph: Graph, path: Path, *, title: str = "Lineage") -> None:
    """Write the page, replacing an older one atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page(graph, title=title), encoding="utf-8")
    partial.replace(path)


def page(graph: Graph, *, title: str = "Lineage") -> str:
    """Build the page's text; data cannot break out of its script element."""
    folder = files("tidemill_lineage") / "viewer"
    data = orjson.dumps(graph_value(graph)).decode().replace("<", "\\u003c")
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    template = (folder / "page.html").read_text(encoding="utf-8")
    parts = {
        "@TITLE@": escaped,
        "@STYLE@": (folder / "viewer.css").read_text(encoding="utf-8"),
        "@SCRIPT@": (folder / "viewer.js").read_text(encoding="utf-8"),
        "@DATA@": data,
    }
    for mark, text in parts.items():
        template = template.replace(mark, text)
    return template
