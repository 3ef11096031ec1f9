"""The application of Celery workers, made when it is first asked for.

Settings say which broker (`TIDEMILL_CELERY_BROKER_URL`); a worker needs the same settings and the same code as the
code location.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("app", "celery"):
        raise AttributeError(name)
    from tidemill_core.defs.executor.celery import worker_app
    from tidemill_core.settings import Settings

    made = worker_app(Settings.from_env())
    globals()[name] = made
    return made
