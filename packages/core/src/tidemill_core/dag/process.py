"""Run a task's work outside this thread: a command, or a callable in a process of its own."""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing
import os
import pickle
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import IO, Any

from tidemill_core.dag.errors import BadOutputs, CommandFailed, TaskTemporarilyFailed, TaskTimedOut
from tidemill_core.errors import ExitCode, TransientError

POLL_S = 0.05
TERM_GRACE_S = 5.0
TAIL_LINES = 20
_GROUPS: set[int] = set()
"""Process groups of running commands: none may outlive this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command, ready to start."""

    task: str
    run: str | Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    timeout_s: float | None = None
    grace_s: float = TERM_GRACE_S
    """Seconds between SIGTERM and SIGKILL."""


def run_command(command: Command) -> dict[str, Any]:
    """Run a command to its end, its output copied line by line to ours, and return its outputs.

    The command and all it starts are stopped when it takes too long, and when this
    thread is interrupted: first SIGTERM, after five seconds SIGKILL.

    Returns:
        What it wrote to the file ``$TIDEMILL_OUTPUTS``: a JSON object, or ``name=value`` lines.

    Raises:
        CommandFailed: It ended with another code than 0 and 75.
        TaskTemporarilyFailed: It ended with 75 (EX_TEMPFAIL).
        TaskTimedOut: It took longer than its limit.
        BadOutputs: It cannot be started, or what it wrote is malformed.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        outputs = Path(folder) / "outputs"
        process = _start(command, outputs)
        assert process.stdout is not None
        _GROUPS.add(process.pid)
        printed = _Printed(command.task, process.stdout)
        try:
            WARDEN.watch(process.pid)
            code = _wait(process, command, printed)
        except BaseException:  # undone whatever it was, and raised again
            stop_group(process, command.grace_s)
            raise
        finally:
            printed.close()
            WARDEN.forget(process.pid)
            _GROUPS.discard(process.pid)
        tail = printed.tail
        if code == ExitCode.TEMPORARY:
            raise TaskTemporarilyFailed(command.task, f"exit code {code}; {tail[-1] if tail else 'no output'}")
        if code != 0:
            raise CommandFailed(command.task, code, "\n".join(tail))
        return _read_outputs(command.task, outputs)


@atexit.register
def _end_groups() -> None:
    """Kill the commands that are left when this process ends at once."""
    for group in list(_GROUPS):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _start(command: Command, outputs: Path) -> subprocess.Popen[bytes]:
    arguments = ["/bin/sh", "-c", command.run] if isinstance(command.run, str) else list(command.run)
    try:
        return subprocess.Popen(
            arguments,
            env={**os.environ, **command.env, "TIDEMILL_OUTPUTS": str(outputs)},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BadOutputs(f"command of task {command.task!r} cannot be started: {error}") from error


def _wait(process: subprocess.Popen[bytes], command: Command, printed: _Printed) -> int:
    """Copy what the command prints until it ends, or takes too long."""
    end = monotonic() + command.timeout_s if command.timeout_s else None
    while True:
        # In short turns: an exception raised in this thread from outside comes between two of them.
        if not printed.copy(POLL_S):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=POLL_S)
        code = process.poll()
        if code is not None:
            return code
        if end is not None and command.timeout_s is not None and monotonic() > end:
            raise TaskTimedOut(command.task, command.timeout_s)


class _Printed:
    """What a command prints, copied to our own output line by line.

    A program that the command left in the background may hold its output open for ever; what is there
    when the command has ended is copied, and no more is waited for.
    """

    def __init__(self, task: str, stream: IO[bytes]) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._task, self._stream, self._rest = task, stream, bytearray()
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)

    def copy(self, wait_s: float) -> bool:
        """Copy what comes within `wait_s`; False when the output has ended."""
        if not self._selector.select(wait_s):
            return True
        data = os.read(self._stream.fileno(), _CHUNK)
        before, found, after = data.rpartition(b"\n")
        if found:
            self._write((self._rest + before).split(b"\n"))
            self._rest = bytearray(after)
        else:  # only appended to: a long line must not be copied again with every piece of it
            self._rest += after
        return bool(data)

    def close(self) -> None:
        """Copy what is left, for a second at most, and let go of the output."""
        end = monotonic() + 1.0
        while self._selector.select(0) and monotonic() < end:
            if not self.copy(0):
                break
        self._write([self._rest] if self._rest else [])
        self._selector.close()
        self._stream.close()
        sys.stdout.flush()

    def _write(self, lines: Sequence[bytes | bytearray]) -> None:
        texts = [line.decode("utf-8", "replace") for line in lines]
        self.tail.extend(texts)
        if texts:
            sys.stdout.write("".join(f"[{self._task}] {text}\n" for text in texts))


class _Warden:
    """A small process that ends the commands of this one when it is killed with SIGKILL.

    It hears of every command on its standard input, which closes when this process is gone in whatever way.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def watch(self, group: int) -> None:
        """Have a process group ended if this process is killed from now on."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Leave alone a process group that has ended; its number may become another's."""
        self._tell(f"-{group}\n")

    def _tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):  # without a warden commands still run
            if self._process is None or self._pid != os.getpid():
                self._start()
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _WARDEN_PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Of a session of its own: what ends our process group must not end it.
            start_new_session=True,
        )


_CHUNK = 65536
_WARDEN_PROGRAM = f"""
import os, signal, sys, time
groups = set()
for line in sys.stdin.buffer:
    (groups.add if line[:1] == b"+" else groups.discard)(int(line[1:]))
for number, wait_s in ((signal.SIGTERM, {TERM_GRACE_S}), (signal.SIGKILL, 0)):
    for group in list(groups):
        try:
            os.killpg(group, number)
        except OSError:
            groups.discard(group)
    end = time.monotonic() + wait_s
    while groups and time.monotonic() < end:
        time.sleep(0.05)
        for group in list(groups):
            try:
                os.killpg(group, 0)
            except OSError:
                groups.discard(group)
"""
WARDEN = _Warden()


def stop_group(process: subprocess.Popen[bytes], grace_s: float = TERM_GRACE_S) -> None:
    """Stop a process and all it started: SIGTERM, then SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=grace_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_outputs(task: str, path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadOutputs(f"task {task!r} wrote outputs that are not UTF-8: {error}") from error
    if text.startswith("{"):
        try:
            found: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadOutputs(f"task {task!r} wrote outputs that are not JSON: {error}") from error
        return found
    values: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, found_sign, value = line.partition("=")
        name = name.strip()
        if not found_sign or not name:
            raise BadOutputs(f"task {task!r} wrote the output line {line!r:.80}; use name=value, or one JSON object")
        if name in values:
            raise BadOutputs(f"task {task!r} wrote the output {name!r} twice; a list is one JSON value, name=[1, 2]")
        values[name] = _scalar(value.strip())
    return values


def _scalar(text: str) -> Any:
    """Read the value of a ``name=value`` line: JSON, and all else as text.

    A number is one only if it is written as JSON writes it: a version ``1.10`` or a hash ``12e5`` must not
    come out as another text than went in.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return text if is_number and json.dumps(value) != text else value


def _no_number(word: str) -> Any:
    """Leave ``NaN`` and ``Infinity`` texts: JSON has no such numbers."""
    raise ValueError(word)


def call_in_process(
    task: str, reference: str, arguments: Mapping[str, Any], *, folder: Path, timeout_s: float | None
) -> Any:
    """Call ``module:function`` in a fresh process and return what it returns.

    Raises:
        TaskTimedOut: It took longer than its limit; the process is ended.
        TaskTemporarilyFailed: It raised a transient error.
        CommandFailed: It raised another error, or died.
        BadOutputs: What it returned cannot be sent from one process to another.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_child, args=(theirs, reference, dict(arguments), str(folder)), daemon=True)
    process.start()
    theirs.close()
    end = monotonic() + timeout_s if timeout_s else None
    try:
        while not ours.poll(POLL_S):
            if end is not None and timeout_s is not None and monotonic() > end:
                raise TaskTimedOut(task, timeout_s)
        state, value = ours.recv()
    except EOFError:
        process.join()
        raise CommandFailed(task, process.exitcode or 1, "the process died without a result") from None
    finally:
        if process.is_alive() and sys.exc_info()[0] is not None:
            process.kill()
        process.join()
        ours.close()
    if state == "transient":
        raise TaskTemporarilyFailed(task, value)
    if state == "error":
        raise CommandFailed(task, 1, value)
    if state == "unsent":
        raise BadOutputs(f"task {task!r} {value}")
    kind, data = value
    try:
        return pickle.loads(data)  # noqa: S301 - our own child wrote it
    except Exception as error:  # any class may raise anything here
        raise BadOutputs(
            f"task {task!r} returned a {kind}, which is not known in the run's process: {error}"
        ) from error


def _child(pipe: Connection, reference: str, arguments: dict[str, Any], folder: str) -> None:
    """Run in the child: call, and send back what came of it."""
    import traceback

    from tidemill_core.dag.callables import import_callable

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        returned = import_callable(reference, Path(folder))(**arguments)
        result: tuple[str, Any] = _packed(returned)
    except TransientError as error:
        result = ("transient", str(error))
    except Exception:  # noqa: BLE001 - whatever the callable raised is reported by the parent
        result = ("error", traceback.format_exc())
    pipe.send(result)
    pipe.close()


def _packed(returned: Any) -> tuple[str, Any]:
    kind = f"{type(returned).__module__}.{type(returned).__qualname__}"
    try:
        data = pickle.dumps(returned)
        pickle.loads(data)  # noqa: S301 - written the line before; some errors and classes can be written only
    except Exception as error:  # noqa: BLE001 - a class may raise anything here; the parent says what came of it
        return "unsent", f"returned a {kind}, which cannot be handed on to another process: {error}"
    return "done", (kind, data)
