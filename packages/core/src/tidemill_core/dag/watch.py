"""Show a run while it goes: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from time import monotonic
from typing import IO, TYPE_CHECKING, Any

from tidemill_core.dag.report import COLOURS, RunView, State, duration, task_lines

if TYPE_CHECKING:
    from rich.table import Table


def real_stderr() -> IO[str]:
    """Open the stderr that stays ours while a run's output is captured."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", buffering=1)


class PlainWatcher:
    """One line per task that ends; used where there is no terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream
        self.started: dict[str, float] = {}
        self.begun = monotonic()

    def begin(self, run_id: str, dag: str, tasks: Sequence[str]) -> None:
        """Name the run."""
        print(f"run {run_id} of {dag}: {len(tasks)} tasks", file=self.stream)

    def task(self, name: str, state: State) -> None:
        """Write a line when a task has ended, or will be tried again."""
        now = monotonic()
        if state == "running":
            self.started[name] = now
            return
        took = duration(now - self.started[name], "  ") if name in self.started else ""
        print(f"{now - self.begun:8.2f} s  {state:<8}  {name}{took}", file=self.stream)

    def close(self) -> None:
        """Nothing to close but the stream."""
        self.stream.close()


class LiveWatcher:
    """A table that is drawn again as tasks start and end."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.live import Live

        self.live = Live(console=Console(file=stream), refresh_per_second=8, get_renderable=self._table)
        self.stream, self.title = stream, ""
        self.states: dict[str, State] = {}
        self.times: dict[str, tuple[float, float | None]] = {}

    def begin(self, run_id: str, dag: str, tasks: Sequence[str]) -> None:
        """Draw the empty table."""
        self.title = f"{dag}  {run_id}"
        self.states = dict.fromkeys(tasks, "waiting")
        self.live.start()

    def task(self, name: str, state: State) -> None:
        """Note a new state; the table is drawn by its own thread."""
        now = monotonic()
        if state == "running":
            self.times[name] = (now, None)
        elif name in self.times:
            self.times[name] = (self.times[name][0], now)
        self.states[name] = state

    def close(self) -> None:
        """Leave the last table on the screen."""
        self.live.stop()
        self.stream.close()

    def _table(self) -> Table:
        now = monotonic()
        rows = []
        for name, state in list(self.states.items()):
            start, end = self.times.get(name, (None, None))
            rows.append((name, state, "", duration((end or now) - start) if start else "", ""))
        return table(self.title, rows)


def table(title: str, rows: Sequence[tuple[str, str, str, str, str]]) -> Table:
    """Draw task rows; columns that are empty everywhere are left out."""
    from rich.table import Table
    from rich.text import Text

    heads = ("task", "state", "tries", "time", "error")
    used = [index for index in range(len(heads)) if any(row[index] for row in rows)]
    drawn = Table(title=title or None, title_justify="left")
    for index in used:
        drawn.add_column(heads[index], justify="right" if heads[index] in ("tries", "time") else "left")
    for row in rows:
        colour = COLOURS.get(row[1], "")
        drawn.add_row(*(Text(row[index], style=colour if index == 1 else "") for index in used))
    return drawn


def print_run(run: RunView, console: Any) -> None:
    """Print one run and its tasks."""
    console.print(f"{run.dag}  {run.id}  {run.state}{duration(run.seconds, '  ')}", highlight=False)
    console.print(table("", task_lines(run)))
