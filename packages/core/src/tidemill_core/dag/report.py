"""What a run looks like to a person: its tasks, their states, tries and durations; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tidemill_core.errors import ExitCode

State = Literal[
    "waiting", "running", "retrying", "done", "failed", "skipped", "not run", "queued", "canceling", "canceled", "lost"
]
COLOURS: Mapping[str, str] = {
    "done": "green",
    "failed": "red",
    "lost": "red",
    "running": "cyan",
    "retrying": "yellow",
    "canceling": "yellow",
    "canceled": "yellow",
    "skipped": "bright_black",
    "not run": "bright_black",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskView:
    """One task of a run."""

    name: str
    state: State
    tries: int
    seconds: float | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run of a DAG."""

    id: str
    dag: str
    state: State
    started: float | None
    seconds: float | None
    tasks: Sequence[TaskView]
    is_temporary: bool = False
    """It failed, and every failed task said that it may succeed later."""
    error: str = ""
    """What ended the run as a whole, beside what its tasks say."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "canceled", "lost")

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return asdict(self)


def exit_code(run: RunView) -> ExitCode:
    """Choose what a command tells the shell about a run that it has waited for."""
    if run.state == "done":
        return ExitCode.DONE
    if run.state == "canceled":
        return ExitCode.INTERRUPTED
    return ExitCode.TEMPORARY if run.is_temporary else ExitCode.FAILED


def summary(run: RunView) -> str:
    """Say on one line how a run ended: ``done in 3.2 s: 4 done, 1 skipped``."""
    counts: dict[str, int] = {}
    for task in run.tasks:
        counts[task.state] = counts.get(task.state, 0) + 1
    parts = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{run.dag} {run.state}{duration(run.seconds, ' in ')}: {parts}"


def duration(seconds: float | None, lead: str = "") -> str:
    """Write a duration: ``0.42 s``, ``3 min 05 s``; empty when unknown."""
    if seconds is None:
        return ""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{lead}{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{lead}{hours} h {minutes:02} min" if hours else f"{lead}{minutes} min {rest:02} s"


def task_lines(run: RunView) -> list[tuple[str, str, str, str, str]]:
    """Rows of the task table: name, state, tries, duration, the first line of the error."""
    return [
        (
            task.name,
            task.state,
            str(task.tries) if task.tries else "",
            duration(task.seconds),
            (task.error.splitlines() or [""])[0][:100],
        )
        for task in run.tasks
    ]
