"""Peers that cannot share our environment: each in a virtual environment of its own, at pinned versions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).parent / ".peers"


def peer_python(name: str, requirements: Sequence[str]) -> Path | None:
    """Make (once) the environment of a peer with uv; None, and a line on stderr, if it cannot be made."""
    python = FOLDER / name / "bin" / "python"
    stamp = FOLDER / name / "requirements.txt"
    wanted = "\n".join(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv")
    if uv is None:
        print(f"{name} is left out: uv is not on the PATH", file=sys.stderr)
        return None
    shutil.rmtree(FOLDER / name, ignore_errors=True)
    venv = [uv, "venv", "--quiet", "--python", sys.executable, str(FOLDER / name)]
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements]
    for command in (venv, install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name} is left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
    stamp.write_text(wanted)
    return python
