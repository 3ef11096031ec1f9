"""The servers to use: those that the settings name, else the embedded ones, started when first asked for."""

from __future__ import annotations

from tidemill_core.settings import Settings


def postgres_url(settings: Settings | None = None) -> str:
    """URL of the warehouse; the embedded server is leased until this process ends.

    Args:
        settings: Default: this process's environment.

    Raises:
        ServiceError: No server is configured, and the embedded one cannot start.
    """
    settings = Settings.from_env() if settings is None else settings
    if settings.postgres_url is not None:
        return settings.postgres_url.get_secret_value()
    from tidemill_core.embedded.postgres import ensure_postgres

    return ensure_postgres(settings.home).url


def kafka_bootstrap(settings: Settings | None = None) -> str:
    """Kafka bootstrap servers; the embedded broker is leased until this process ends.

    Args:
        settings: Default: this process's environment.

    Raises:
        ServiceError: No broker is configured, and the embedded one cannot start.
    """
    settings = Settings.from_env() if settings is None else settings
    if settings.kafka_bootstrap is not None:
        return settings.kafka_bootstrap
    from tidemill_core.embedded.kafka import ensure_kafka

    return ensure_kafka(settings.home).url


def kafka_identity(settings: Settings | None = None) -> str:
    """Name the broker whose topics these are: another name means that earlier topics are gone.

    Returns:
        The bootstrap servers of a configured broker; a fresh id for each embedded one.
    """
    settings = Settings.from_env() if settings is None else settings
    if settings.kafka_bootstrap is not None:
        return settings.kafka_bootstrap
    from tidemill_core.embedded.kafka import ensure_kafka

    return ensure_kafka(settings.home).identity


def hold(settings: Settings | None = None) -> None:
    """Start the embedded servers that nothing configured replaces, and keep them for this process's life.

    Call it in a long-lived parent (a run, the UI), so that short-lived children share its servers.
    """
    settings = Settings.from_env() if settings is None else settings
    postgres_url(settings)
    kafka_bootstrap(settings)
