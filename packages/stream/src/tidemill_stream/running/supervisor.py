"""Run many pipelines, each in a process of its own, and start again those that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from tidemill_core.errors import ExitCode
from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

SHUTDOWN_S = 30.0
_FIRST_DELAY_S, _MAX_DELAY_S, _STEADY_S = 1.0, 60.0, 120.0
_FINAL = {int(ExitCode.DONE), int(ExitCode.CONFIG), int(ExitCode.USAGE)}

log = get_logger(__name__)


class _Child:
    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name, self.command = name, list(command)
        self.process: subprocess.Popen[bytes] | None = None
        self.delay_s, self.started, self.due = _FIRST_DELAY_S, 0.0, 0.0
        self.code: int | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=os.environ.copy())
        self.started = time.monotonic()

    def look(self) -> None:
        """Note an end, and start again what should run."""
        now = time.monotonic()
        if self.process is None:
            if self.code is None and now >= self.due:
                self.start()
            return
        code = self.process.poll()
        if code is None:
            return
        self.process = None
        if code in _FINAL:
            self.code = code
            return
        steady = now - self.started > _STEADY_S
        self.delay_s = _FIRST_DELAY_S if steady else min(self.delay_s * 2, _MAX_DELAY_S)
        self.due = now + self.delay_s
        log.warning("pipeline_died", pipeline=self.name, exit_code=code, restart_in_s=self.delay_s)

    def end(self, deadline: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("pipeline_killed", pipeline=self.name)
            self.process.kill()
            self.process.wait()


def supervise(
    commands: Mapping[str, Sequence[str]], stop: StopToken, *, poll_s: float = 0.2, shutdown_s: float = SHUTDOWN_S
) -> int:
    """Run a command per pipeline until told to stop, or until all have ended for good.

    Args:
        commands: The command of each pipeline.
        stop: When set, the children are asked to end (SIGTERM) and waited for.
        poll_s: How often to look.
        shutdown_s: How long to wait for children before killing them; what they had not
            committed is processed again by the next run.

    Returns:
        3 if a pipeline's configuration is wrong, else 0.
    """
    children = [_Child(name, command) for name, command in commands.items()]
    try:
        for child in children:
            child.start()
        while not stop.wait(poll_s):
            _each(children, _Child.look)
            if all(child.code is not None for child in children):
                break
    finally:
        for child in children:
            if child.process is not None:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + shutdown_s
        _each(children, lambda child: child.end(deadline))
    return max((child.code or 0 for child in children), default=0)


def _each(children: Sequence[_Child], action: Callable[[_Child], None]) -> None:
    for child in children:
        action(child)


def command_for(config: str, pipeline: str, *more: str) -> list[str]:
    """Write the command that runs one pipeline of a file in this interpreter."""
    start = "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"
    return [sys.executable, "-c", start, "stream", "run", config, "--only", pipeline, *more]
