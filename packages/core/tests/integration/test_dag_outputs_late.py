"""Outputs whose event becomes visible late: PostgreSQL may commit an event after one with a higher number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from pydantic import SecretStr
from tidemill_core.dag import DagSpec, loaded_dag
from tidemill_core.defs.dag import outputs
from tidemill_core.defs.dag.jobs import output_sources
from tidemill_core.defs.dag.request import RunRequest
from tidemill_core.defs.dag.runs import start_dag
from tidemill_core.defs.home import PASSWORD_VARIABLE, prepare_home
from tidemill_core.settings import Settings

DAG = loaded_dag(
    DagSpec.model_validate(
        {
            "name": "late",
            "tasks": [
                {"name": name, "run": f"echo n={number} >> $TIDEMILL_OUTPUTS", "outputs": ["n"]}
                for number, name in enumerate(["first", "second", "third"])
            ],
        }
    )
)


@pytest.fixture
def instance(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    home = prepare_home(Settings(home=tmp_path, dagster_postgres_url=SecretStr(postgres_url)))
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made


def values(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, Any]:
    return outputs.returned(instance, run, output_sources(DAG.spec))


def hidden(conn: psycopg.Connection[Any], run_id: str) -> Any:
    """Take the first output event of a run out of the log, as if its transaction had not ended yet."""
    row = conn.execute(
        """DELETE FROM event_logs WHERE id = (SELECT min(id) FROM event_logs
           WHERE run_id = %s AND dagster_event_type = 'STEP_OUTPUT') RETURNING *""",
        (run_id,),
    ).fetchone()
    conn.commit()
    return row


def shown(conn: psycopg.Connection[Any], row: Any) -> None:
    conn.execute(f"INSERT INTO event_logs VALUES ({', '.join(['%s'] * len(row))})".encode(), row)
    conn.commit()


@pytest.mark.parametrize("is_ended", [False, True], ids=["the run goes on", "the run has ended"])
def test_an_output_that_is_committed_late_is_found(
    instance: dg.DagsterInstance, postgres_url: str, is_ended: bool
) -> None:
    started = start_dag(DAG, RunRequest(), instance)
    run = instance.get_run_by_id(started.id)
    assert run is not None
    run = run if is_ended else run.with_status(dg.DagsterRunStatus.STARTED)
    with psycopg.connect(postgres_url) as conn:
        row = hidden(conn, started.id)
        early = values(instance, run)
        shown(conn, row)

    late = values(instance, run)

    assert 2 == len(early)
    # In a run that has ended nothing can come late: its log is read once.
    assert (2 if is_ended else 3) == len(late)


def test_a_run_that_goes_on_is_not_read_again_for_what_is_known(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start_dag(DAG, RunRequest(), instance)
    run = instance.get_run_by_id(started.id)
    assert run is not None
    run = run.with_status(dg.DagsterRunStatus.STARTED)
    assert {"first": {"n": 0}, "second": {"n": 1}, "third": {"n": 2}} == values(instance, run)
    cursors = []
    plain = instance.get_records_for_run

    def watched(run_id: str, cursor: str | None = None, **rest: Any) -> Any:
        cursors.append(cursor)
        return plain(run_id, cursor, **rest)

    monkeypatch.setattr(instance, "get_records_for_run", watched)

    assert 3 == len(values(instance, run))
    assert [None] != cursors
    assert None not in cursors


def test_what_a_run_leaves_out_is_not_looked_for_in_its_log_again_and_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of many steps asks; a log that is read whole each time costs the square of them."""
    started = start_dag(DAG, RunRequest(only=["second"]), instance)
    run = instance.get_run_by_id(started.id)
    assert run is not None
    run = run.with_status(dg.DagsterRunStatus.STARTED)
    assert {"second": {"n": 1}} == values(instance, run)
    cursors = []
    plain = instance.get_records_for_run

    def watched(run_id: str, cursor: str | None = None, **rest: Any) -> Any:
        cursors.append(cursor)
        return plain(run_id, cursor, **rest)

    monkeypatch.setattr(instance, "get_records_for_run", watched)

    assert {"second": {"n": 1}} == values(instance, run)
    assert None not in cursors
