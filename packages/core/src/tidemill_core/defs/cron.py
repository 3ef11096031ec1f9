"""The scheduler's own judgement of a cron line."""

from tidemill_core.defs._dagster import is_valid_cron_schedule


def is_valid_cron(line: str) -> bool:
    """Tell whether Dagster's scheduler takes a cron line; the check is the one that loading a schedule makes."""
    try:
        return bool(is_valid_cron_schedule(line))
    except Exception:  # noqa: BLE001 - its parser raises anything at odd lines, which the scheduler would, too
        return False
