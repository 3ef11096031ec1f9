"""The page: one file, whole without a network, safe with any name, and alive in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tidemill_lineage.capture.declared import declare
from tidemill_lineage.graph import Graph, merge
from tidemill_lineage.html import page, write_page

GRAPH = merge(
    Graph(),
    [
        declare(job="load", output="pg://db/raw", columns={"a": ["file:///x#a"], "b": ["file:///x#b"]}, at=1),
        declare(job="mart", output="pg://db/mart", columns={"t": ["pg://db/raw#a"]}, rows=["pg://db/raw#b"], at=2),
    ],
)


def test_the_page_asks_nothing_of_the_network() -> None:
    text = page(GRAPH)

    assert not re.search(r"(src|href)=|@import|url\(|fetch\(|XMLHttpRequest", text)
    assert len(text) < 700_000


def test_a_name_cannot_break_out_of_the_page() -> None:
    graph = merge(
        Graph(), [declare(job="</script><script>alert(1)", output="o://</script>", columns={"<b>": ["i://x"]})]
    )

    text = page(graph, title="</title><script>")

    assert text.count("</script>") == page(GRAPH).count("</script>")
    assert "<title></title>" not in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_draws_every_dataset_and_the_picked_columns_path(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    write_page(GRAPH, file)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile",
               "--disable-background-networking", "--virtual-time-budget=2000", "--dump-dom",
               file.as_uri() + "#pg%3A%2F%2Fdb%2Fmart%23t"]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)

    assert len(re.findall(r'class="box', done.stdout)) == 3
    assert len(re.findall(r'<path [^>]*class="direct"', done.stdout)) == 3
    assert len(re.findall(r'<path [^>]*class="indirect"', done.stdout)) == 1
    assert re.search(r'class="col on picked"[^>]*title="t ', done.stdout)
