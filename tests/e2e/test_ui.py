"""What a person sees in the Dagster UI: groups, kinds, rows, columns, and green checks; and a page that renders."""

import shutil
import signal
import socket
import subprocess

import httpx
import pytest
from tidemill_core.services.processes import wait_until

from .conftest import BIN, Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
QUERY = """
{ assetNodes {
    assetKey { path } groupName kinds
    assetMaterializations(limit: 1) { metadataEntries { label __typename ... on IntMetadataEntry { intValue } } }
    assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
} }
"""


@pytest.fixture
def ui(finished: Home):
    assert 0 == finished.tidemill("demo").returncode  # whatever other tests did to this home
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [str(BIN / "tidemill"), "ui", "--port", str(port)],
        env=finished.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        assert wait_until(lambda: _answers(url), 180, every_s=0.5)
        yield url
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return bool(_assets(url))
    except (httpx.HTTPError, KeyError, TypeError):
        return False


def _assets(url: str) -> list:
    return httpx.post(f"{url}/graphql", json={"query": QUERY}, timeout=60).json()["data"]["assetNodes"]


def test_the_ui_shows_groups_kinds_rows_columns_and_green_checks(ui) -> None:
    assets = {"/".join(each["assetKey"]["path"]): each for each in _assets(ui)}

    made = {key: each for key, each in assets.items() if each["assetMaterializations"]}
    entries = {
        key: {entry["label"] for entry in each["assetMaterializations"][0]["metadataEntries"]}
        for key, each in made.items()
    }
    statuses = [
        check["executionForLatestMaterialization"]["status"]
        for each in made.values()
        for check in each["assetChecksOrError"].get("checks", [])
        if check["executionForLatestMaterialization"]
    ]
    assert {"raw", "events", "warehouse", "mart", "lake", "lineage"} == {each["groupName"] for each in made.values()}
    assert {"polars", "parquet"} == set(made["mart/delay_by_weather"]["kinds"])
    assert {"dagster/row_count", "dagster/column_schema", "dagster/column_lineage", "plot"} <= entries[
        "mart/delay_by_weather"
    ]
    assert {"dagster/row_count", "dagster/column_schema", "dagster/table_name"} <= entries["raw/weather"]
    assert {"SUCCEEDED"} == set(statuses)
    assert len(statuses) >= 17


def test_the_asset_page_renders_in_a_browser(ui) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="uv sync --group browser installs playwright")
    chromium = shutil.which("chromium") or pytest.skip("no chromium on the PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.goto(f"{ui}/assets/mart/delay_by_weather?view=overview")
        page.get_by_text("mean_delay_min").first.wait_for(timeout=120_000)
        browser.close()
