"""The file that serves the weather is the source that the DAG file fetches."""

from pathlib import Path

import tidemill_deploy
import yaml

HERE = Path(tidemill_deploy.__file__).parent


def test_the_served_source_is_the_one_the_job_fetches() -> None:
    served = yaml.safe_load((HERE / "weather.yaml").read_text())
    dag = yaml.safe_load((HERE / "dags" / "nyc_flights.yaml").read_text())
    fetched = next(task["with"] for task in dag["tasks"] if task["name"] == "weather")

    assert {**fetched, "base_url": served["base_url"]} == served
