"""The main job from outside: embedded and on real servers, twice, killed at every step, and when a check fails."""

import json
import random
import shutil
import warnings

import psycopg
import pytest

from .conftest import JOB, Home, JobFailed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_the_demo_ends_with_tables_that_equal_the_source_files(finished) -> None:
    assert [] == finished.differing()
    assert 10 == len(finished.tables())


def test_a_second_demo_does_no_work_twice_and_says_so(finished) -> None:
    before = finished.tables()

    done = finished.tidemill("demo", "--json")
    shown = finished.tidemill("demo")

    result = json.loads(done.stdout)
    assert [] == [each["asset"] for each in result["made"] if each["did_work"]]
    assert result["succeeded"]
    assert before == finished.tables()
    assert "Nothing had changed since the last run" in shown.stdout


def test_a_mart_whose_code_changed_is_computed_again_and_nothing_else_that_did_not_change(tmp_path, finished) -> None:
    shutil.copytree("deploy/src", tmp_path / "src")
    mart = tmp_path / "src" / "tidemill_deploy" / "mart.py"
    mart.write_text(mart.read_text().replace('pl.lit("rain")', 'pl.lit("wet")'))
    changed = Home(finished.folder, {**finished.settings, "PYTHONPATH": str(tmp_path / "src")})

    try:
        result = json.loads(changed.tidemill("demo", "--json").stdout)
        with psycopg.connect(finished.postgres_url()) as connection:
            found = {row[0] for row in connection.execute("select weather from warehouse.delay_by_weather")}
    finally:
        finished.tidemill("demo")

    did_work = {each["asset"] for each in result["made"] if each["did_work"]}
    assert {"mart/delay_by_weather", "warehouse/delay_by_weather", "lake/mirror"} == did_work
    assert "wet" in found
    assert [] == finished.differing()


def test_dagster_executes_the_job_on_the_same_home(finished) -> None:
    done = finished.execute()

    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    assert "RUN_SUCCESS" in done.stdout + done.stderr


def test_a_table_that_does_not_equal_the_source_files_fails_the_job(tmp_path, finished) -> None:
    with psycopg.connect(finished.postgres_url(), autocommit=True) as connection:
        connection.execute("insert into raw.weather (origin, time_hour) values ('XXX', now())")

    try:
        done = finished.execute()
        said = done.stdout + done.stderr
    finally:
        with psycopg.connect(finished.postgres_url(), autocommit=True) as connection:
            connection.execute("delete from raw.weather where origin = 'XXX'")

    assert 1 == done.returncode
    assert "truth_rows" in said
    assert [] == finished.differing()


def test_killing_the_job_at_every_step_and_running_it_again_ends_with_the_same_tables(tmp_path, finished) -> None:
    chance = random.Random(2013)
    home, killed, failed = Home(tmp_path / "home"), set(), 0
    while True:
        try:
            step = home.execute_and_kill(killed, after_s=chance.uniform(0, 1.5))
        except JobFailed as error:  # seen once in many runs, cause unknown: shown, and run again as a person would
            warnings.warn(f"the job failed by itself: {error}", stacklevel=1)
            failed += 1
            assert failed < 3
            continue
        if step is None:
            break
        killed.add(step)

    assert finished.tables() == home.tables()
    assert [] == home.differing()
    assert {"raw__weather", "nyc_flights__flight_feed", "drain_flights", "warehouse__flights", "lake__mirror"} <= killed


def test_the_comparison_of_tables_does_see_one_changed_value(finished) -> None:
    before = finished.tables()
    with psycopg.connect(finished.postgres_url(), autocommit=True) as connection:
        connection.execute("update warehouse.planes set seats = seats + 1 where tailnum = 'N10156'")

    try:
        assert before != finished.tables()
    finally:
        with psycopg.connect(finished.postgres_url(), autocommit=True) as connection:
            connection.execute("update warehouse.planes set seats = seats - 1 where tailnum = 'N10156'")


def test_only_settings_change_on_real_servers(
    tmp_path, finished, postgres_url, postgres_admin_url, kafka_bootstrap, s3_bucket, neo4j_url
) -> None:
    url, options = s3_bucket
    settings = {
        "TIDEMILL_POSTGRES_URL": postgres_url,
        "TIDEMILL_DAGSTER_POSTGRES_URL": postgres_url,
        "TIDEMILL_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "TIDEMILL_LAKE_URL": f"{url}/lake",
        "TIDEMILL_MIRROR_URL": f"{url}/mirror",
        "TIDEMILL_COMPUTE_LOGS_URL": f"{url}/logs",
        "TIDEMILL_S3_ENDPOINT_URL": options.s3_endpoint_url,
        "TIDEMILL_S3_ACCESS_KEY_ID": options.s3_access_key_id,
        "TIDEMILL_S3_SECRET_ACCESS_KEY": options.s3_secret_access_key.get_secret_value(),
        "TIDEMILL_NEO4J_URL": neo4j_url,
    }
    home = Home(tmp_path / "home", settings)

    done = home.tidemill("dagster", *JOB)

    assert 0 == done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    assert [] == home.differing()
    assert finished.tables() == home.tables()
    assert not (home.folder / "postgres").exists()
    assert not (home.folder / "kafka").exists()
    assert {"lake", "mirror", "logs"} == first_parts(url, options)
    assert 20 < nodes(neo4j_url)
    with psycopg.connect(postgres_url) as connection:
        assert [("SUCCESS",)] == connection.execute("select status from runs").fetchall()
    shutil.rmtree(home.folder)


def first_parts(url: str, options) -> set[str]:
    from tidemill_core.storage import open_store

    return {each.key.partition("/")[0] for each in open_store(url, options).list()}


def nodes(url: str) -> int:
    import neo4j

    with neo4j.GraphDatabase.driver(url) as driver:
        return driver.execute_query("match (n) return count(n) as n").records[0]["n"]
