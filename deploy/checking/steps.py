"""What the parts of the check share: run a program, say what holds, wait for something, find a tool."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


class Failed(Exception):
    """What does not hold."""


def holds(sentence: str) -> None:
    """Say what was found to be true."""
    print(f"  ok  {sentence}", flush=True)


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_s: float = 1800,
    expect: int = 0,
) -> str:
    """Run a program; return what it printed, both streams.

    Raises:
        Failed: It ended otherwise than with `expect`; holds the end of what it printed.
    """
    words = [str(each) for each in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(words[:4])} ... did not end within {timeout_s:g} s") from error
    if done.returncode != expect:
        raise Failed(f"{' '.join(words)}\nended with {done.returncode}, not {expect}:\n{done.stdout[-4000:]}")
    return done.stdout


def wait(what: str, is_so: Callable[[], str | None], *, within_s: float) -> None:
    """Ask until `is_so` says None.

    Raises:
        Failed: It did not within the time; holds its last answer.
    """
    ends = time.monotonic() + within_s
    while (wrong := is_so()) is not None:
        if time.monotonic() > ends:
            raise Failed(f"{what}: not within {within_s:g} s: {wrong}")
        time.sleep(0.5)


def need(programs: Mapping[str, str]) -> None:
    """Install what is missing by the system's package manager.

    Args:
        programs: Each program and the Debian package that has it.
    """
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if missing:
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])


def cache(*parts: str) -> Path:
    """A folder for tools that the check fetches; outside the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(base, "tidemill", "deploy-check", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
