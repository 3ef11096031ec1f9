"""A step that Celery hands out again is done once: by one worker at a time, and never after it has ended."""

import dagster as dg
import pytest
from tidemill_core.errors import ConfigError
from tidemill_core.settings import Settings

pytest.importorskip("dagster_celery")

from tidemill_core.defs.executor.celery import celery_executor_of, once, step_lock, urls, worker_app

BROKER = "redis://127.0.0.1:1/0"


class Retried(Exception):
    """What Celery raises when a task is to be tried again."""


class Task:
    def retry(self, countdown):
        return Retried(countdown)


@dg.op
def work() -> int:
    return 1


@dg.job
def one_step():
    work()


@pytest.fixture
def instance(tmp_path):
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def packed(instance, run_id):
    from dagster._core.definitions.reconstruct import reconstructable
    from dagster._grpc.types import ExecuteStepArgs
    from dagster._serdes import pack_value

    recon = reconstructable(one_step)
    arguments = ExecuteStepArgs(
        job_origin=recon.get_python_origin(),
        run_id=run_id,
        step_keys_to_execute=["work"],
        instance_ref=instance.get_ref(),
    )
    return pack_value(arguments), recon.to_dict()


def test_a_step_that_has_ended_gives_its_recorded_events_and_is_not_done_again(instance) -> None:
    from dagster._serdes import deserialize_value

    run = one_step.execute_in_process(instance=instance)
    done = []

    events = once(Task(), lambda *_, **__: done.append(1), *packed(instance, run.run_id))

    kinds = [deserialize_value(each, dg.DagsterEvent).event_type_value for each in events]
    assert done == []
    assert kinds[-1] == "STEP_SUCCESS"
    assert {"STEP_START", "STEP_OUTPUT"} <= set(kinds)


def test_a_step_that_has_not_ended_is_done(instance) -> None:
    run = instance.create_run_for_job(one_step)

    assert once(Task(), lambda *_, **__: ["done"], *packed(instance, run.run_id)) == ["done"]


def test_a_step_that_another_worker_holds_is_looked_at_later(instance) -> None:
    run = instance.create_run_for_job(one_step)

    with step_lock(instance, f"{run.run_id} work 0") as is_free:
        assert is_free
        with pytest.raises(Retried):
            once(Task(), lambda *_, **__: ["done"], *packed(instance, run.run_id))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, "TIDEMILL_CELERY_BROKER_URL"),
        ({"celery_broker_url": "nonsense"}, "TIDEMILL_CELERY_BACKEND_URL"),
        ({"celery_broker_url": "amqp://host//"}, "TIDEMILL_CELERY_BACKEND_URL"),
        ({"celery_broker_url": BROKER, "celery_backend_url": "x"}, "TIDEMILL_CELERY_BACKEND_URL"),
    ],
    ids=["no broker", "no url", "no backend", "backend no url"],
)
def test_a_wrong_broker_is_named_before_anything_starts(given, names) -> None:
    with pytest.raises(ConfigError, match=names):
        celery_executor_of(Settings(**given))


def test_a_redis_broker_keeps_the_results_too_unless_told() -> None:
    assert urls(Settings(celery_broker_url=BROKER)) == (BROKER, BROKER)


def test_a_worker_takes_a_step_from_the_queue_only_when_it_has_ended() -> None:
    app = worker_app(Settings(celery_broker_url=BROKER))
    app.finalize()

    assert app.conf.task_acks_late
    assert app.conf.task_reject_on_worker_lost
    assert app.tasks["execute_plan"].max_retries is None
    assert app.conf.broker_transport_options["visibility_timeout"] == 30
