"""Take the pictures of the documentation from a real browser: ``uv run --group browser python docs/screenshots.py``.

Needs Chromium (``chromium`` on the PATH) and a home in which the main job has run
(``tidemill demo``). Starts `tidemill ui` on a free port and stops it again.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

IMAGES = Path(__file__).parent / "images"
SHOTS = {
    "lineage.png": "/asset-groups",
    "asset.png": "/assets/mart/delay_by_weather?view=overview",
    "runs.png": "/runs",
}
CHROMIUM_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def user_interface(timeout_s: float = 180) -> Iterator[str]:
    """Run `tidemill ui`; yield its URL once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "tidemill"), "ui", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + timeout_s
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the user interface did not come up")
            time.sleep(0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/server_info", timeout=2):  # noqa: S310 - our own server
            return True
    except (URLError, OSError):
        return False


@contextmanager
def browser_page(width: int = 1600, height: int = 1000) -> Iterator[Any]:
    """Open a page in headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=list(CHROMIUM_FLAGS))
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def main() -> None:
    """Write every picture."""
    IMAGES.mkdir(exist_ok=True)
    with user_interface() as url, browser_page() as page:
        for name, path in SHOTS.items():
            page.goto(url + path)
            page.wait_for_load_state("networkidle", timeout=60_000)
            page.wait_for_timeout(4_000)
            if name == "lineage.png":
                page.keyboard.press("Alt+E")  # expand every group, then fit the graph to the page
                page.wait_for_timeout(2_000)
                page.reload()
                page.wait_for_timeout(6_000)
            page.screenshot(path=str(IMAGES / name))
            print(f"docs/images/{name}")


if __name__ == "__main__":
    main()
