"""The `celery` executor and its workers' application: steps of a run on other machines, each done once.

    celery -A tidemill_core.defs.executor.celery_worker worker --concurrency 2

Celery hands a step out again when its worker dies, and also when it only takes longer than the broker's
visibility timeout. So a step is guarded where it runs: it is done under a lock in Dagster's storage, which the
system frees when its holder dies; and who finds it ended in the run's log gives back what is recorded there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dagster as dg

from tidemill_core.defs._dagster import ExecuteStepArgs, serialize_value, unpack_value
from tidemill_core.errors import ConfigError
from tidemill_core.extras import needs_extra
from tidemill_core.settings import Settings

if TYPE_CHECKING:
    from celery import Celery, Task

VISIBILITY_S = 30
"""Seconds after which a broker without heartbeats (Redis) hands out a step again that has not ended."""
AGAIN_S = 5
"""Seconds until a step is looked at again that another worker holds."""
_ENDS = frozenset(
    {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.STEP_SKIPPED}
)


def celery_executor_of(settings: Settings) -> dg.ExecutorDefinition:
    """Dagster's Celery executor, on the broker of the settings.

    Raises:
        ConfigError: No broker is set, or its URL or the backend's is none that Celery knows.
        MissingExtra: The extra ``celery`` is not installed.
    """
    with needs_extra():
        from dagster_celery import celery_executor

    broker, backend = urls(settings)
    found: dg.ExecutorDefinition = celery_executor.configured(
        {"broker": broker, "backend": backend, "config_source": dict(OPTIONS)}, name="celery"
    )
    return found


def urls(settings: Settings) -> tuple[str, str]:
    """Broker and backend.

    Raises:
        ConfigError: One is missing or not a URL; names the variable.
    """
    broker = settings.celery_broker_url.get_secret_value() if settings.celery_broker_url else ""
    if not broker:
        raise ConfigError("TIDEMILL_EXECUTOR=celery needs TIDEMILL_CELERY_BROKER_URL, such as redis://host:6379/0")
    backend = settings.celery_backend_url.get_secret_value() if settings.celery_backend_url else ""
    if not backend and urlsplit(broker).scheme in {"redis", "rediss"}:
        backend = broker
    if not backend:
        raise ConfigError("the broker keeps no results: set TIDEMILL_CELERY_BACKEND_URL, such as redis://host:6379/1")
    for name, url in (("TIDEMILL_CELERY_BROKER_URL", broker), ("TIDEMILL_CELERY_BACKEND_URL", backend)):
        if not urlsplit(url).scheme or not urlsplit(url).netloc:
            raise ConfigError(f"{name} is no URL; it looks like redis://host:6379/0")
    return broker, backend


OPTIONS: Mapping[str, Any] = {
    # A step is taken from the queue when it has ended, so that one whose worker dies is not lost.
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "worker_prefetch_multiplier": 1,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {
        "visibility_timeout": VISIBILITY_S,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
    },
    # A run is driven by one process that reads each result once.
    "result_expires": 86_400,
}


def worker_app(settings: Settings) -> "Celery":
    """Make the application that a worker runs.

    Raises:
        ConfigError: No broker is set.
        MissingExtra: The extra ``celery`` is not installed.
    """
    with needs_extra():
        from dagster_celery.make_app import make_app
        from dagster_celery.tasks import create_task

    broker, backend = urls(settings)
    app: Celery = make_app({"broker": broker, "backend": backend})  # type: ignore[no-untyped-call]
    app.conf.update(OPTIONS)
    app.conf.task_default_queue = "dagster"
    create_task(app)  # type: ignore[no-untyped-call]
    app.finalize()
    # Its function, to be called with the guarded task that takes its name: who runs a step is asked of the task.
    execute = type(app.tasks["execute_plan"]).run

    def guarded(task: "Task", execute_step_args_packed: dict[str, Any], executable_dict: dict[str, Any]) -> list[str]:
        # Called by keyword, as dagster-celery's executor does.
        return once(task, execute, execute_step_args_packed, executable_dict)

    del app.tasks["execute_plan"]
    app.task(bind=True, name="execute_plan", max_retries=None)(guarded)
    return app


def once(task: "Task", execute: Any, packed: dict[str, Any], executable: dict[str, Any]) -> list[str]:
    """Do a step, unless it is done or another worker is at it.

    Returns:
        The step's events, serialized: those that the step made now, or those that the log holds.
    """
    arguments = unpack_value(packed, as_type=ExecuteStepArgs)
    if arguments.instance_ref is None:
        raise ConfigError("a step came without its instance; the run's DAGSTER_HOME must be a folder")
    (step,) = arguments.step_keys_to_execute or [""]
    with dg.DagsterInstance.from_ref(arguments.instance_ref) as instance:
        attempt = arguments.known_state.get_retry_state().get_attempt_count(step) if arguments.known_state else 0
        with step_lock(instance, f"{arguments.run_id} {step} {attempt}") as is_free:
            if not is_free:
                raise task.retry(countdown=AGAIN_S)
            if recorded := recorded_events(instance, arguments.run_id, step, attempt):
                return recorded
            return list(execute(task, execute_step_args_packed=packed, executable_dict=executable))


def recorded_events(instance: dg.DagsterInstance, run_id: str, step: str, attempt: int) -> list[str]:
    """The events of the step's try that has ended, serialized; empty if that try has not ended."""
    tries: list[list[Any]] = [[]]
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        if event is None or event.step_key != step:
            continue
        tries[-1].append(event)
        if event.event_type in _ENDS or event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            tries.append([])
    ended = tries[:-1]
    return [serialize_value(event) for event in ended[attempt]] if len(ended) > attempt else []


@contextmanager
def step_lock(instance: dg.DagsterInstance, name: str) -> Iterator[bool]:
    """Hold a step's lock where the instance keeps its runs; yields whether it was free.

    The system frees it when the holder dies, so a step of a killed worker can be begun again at once.
    """
    from tidemill_core.defs.dag.locks import FileLock

    url = getattr(instance.run_storage, "postgres_url", None)
    if url is None:
        # One of 4,096 files: two steps that share one wait for each other, and the folder does not grow.
        lock = FileLock(Path(instance.root_directory) / "locks" / f"step-{_digest(name) & 0xFFF:03x}.lock")
        taken = lock.try_take()
        try:
            yield taken
        finally:
            lock.release()
        return
    import psycopg2

    connection = psycopg2.connect(url.replace("+psycopg2", "", 1), **_CONNECTION)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_digest(f"tidemill step {name}"),))
            (taken,) = cursor.fetchone()
        yield taken
    finally:
        connection.close()


_CONNECTION: Mapping[str, Any] = {
    # A machine that is gone loses its locks after about a minute.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "connect_timeout": 10,
    "application_name": "tidemill step",
}


def _digest(name: str) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)
