"""Two runs of the main job at once take turns: on one home, and on two machines with one warehouse."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tidemill_core.services.running import Running

from tests.e2e.conftest import BIN, Home


def begin(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "tidemill"), "demo", "--json"],
        env=home.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def run_both(first: Home, second: Home) -> list[dict]:
    """Start a run, another one a moment later, and read how both ended."""
    processes = [begin(first)]
    time.sleep(2)  # of the seconds that a run needs for its first table
    processes.append(begin(second))
    ended = [process.communicate(timeout=600)[0] for process in processes]

    assert [0, 0] == [process.returncode for process in processes]
    return [json.loads(each) for each in ended]


def sent(run: dict) -> bool:
    (feed,) = (each for each in run["made"] if each["asset"] == "events/flight_feed")
    return bool(feed["did_work"])


def test_two_runs_on_one_home_take_turns_and_the_tables_are_right(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")

    runs = run_both(home, home)

    assert [False, True] == sorted(sent(run) for run in runs)
    assert [] == home.differing()


def test_two_machines_with_one_warehouse_and_one_broker_publish_every_event_once(
    tmp_path: Path, postgres_url: str, own_server: Callable[[str], Running]
) -> None:
    from tidemill_stream import watermarks

    # A broker of its own: on the shared one another test of the job may have published the topic.
    kafka_bootstrap = own_server("kafka").url
    settings = {
        "TIDEMILL_POSTGRES_URL": postgres_url,
        "TIDEMILL_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TIDEMILL_LAKE_URL": (tmp_path / "lake").as_uri(),
        "TIDEMILL_MIRROR_URL": (tmp_path / "mirror").as_uri(),
    }
    machines = [Home(tmp_path / name, settings) for name in ("one", "two")]

    runs = run_both(*machines)
    again = machines[0].tidemill("demo", "--json")

    assert [False, True] == sorted(sent(run) for run in runs)
    assert (0, False) == (again.returncode, json.loads(again.stdout)["did_work"])
    assert [] == machines[0].differing()
    held = sum(high - low for low, high in watermarks(kafka_bootstrap, "nyc.flights").values())
    (feed,) = (each for each in runs[0]["made"] if each["asset"] == "events/flight_feed")
    assert feed["rows"] == held
