"""The pinned versions of servers: one folder of build files each, fetched once per content into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tidemill_core.services.errors import ServiceFetchFailed, ServiceMissing
from tidemill_core.services.files import locked, services_dir

PINS = Path(__file__).parent / "pins"
_REMEDIES = {
    "java": "install Java 17 or newer (Debian: openjdk-17-jre-headless)",
    "mvn": "install Maven (Debian: maven)",
    "go": "install Go 1.26 or newer",
    "npm": "install Node.js 20 or newer with npm",
    "node": "install Node.js 20 or newer",
}


def tool(service: str, name: str) -> str:
    """Find a program on the PATH.

    Raises:
        ServiceMissing: It is not there; says what to install.
    """
    found = shutil.which(name)
    if found is None:
        raise ServiceMissing(service, f"the program {name!r}", _REMEDIES.get(name, f"install {name}"))
    return found


def maven_version(name: str) -> str:
    """Version of the first dependency of a pinned pom.xml."""
    dependency = (PINS / name / "pom.xml").read_text().partition("<dependency>")[2]
    return _first(r"<version>([^<]+)</version>", dependency)


def go_version(name: str, module: str) -> str:
    """Version of `module` in a pinned go.mod."""
    return _first(rf"{re.escape(module)} v(\S+)", (PINS / name / "go.mod").read_text())


def npm_version(name: str) -> str:
    """Version of the package `name` in its pinned package.json."""
    return str(json.loads((PINS / name / "package.json").read_text())["dependencies"][name])


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match.group(1) if match else "unknown"


def fetch_maven(name: str, version: str) -> Path:
    """Download the jars of a pinned pom.xml; returns the folder of jars."""
    return _once(name, version, lambda folder: _maven(name, folder)) / "lib"


def fetch_go(name: str, version: str, package: str) -> Path:
    """Build the one program `package` of a pinned go.mod; returns the program."""
    return _once(name, version, lambda folder: _go(name, package, folder)) / "program"


def fetch_npm(name: str, version: str) -> Path:
    """Install a pinned package-lock.json; returns the folder of ``node_modules``."""
    return _once(name, version, lambda folder: _npm(name, folder)) / "node_modules"


def _once(name: str, version: str, build: Callable[[Path], None]) -> Path:
    """Build into the cache unless this very pin is there; other processes wait for the first."""
    digest = hashlib.sha256()
    for file in sorted((PINS / name).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    folder = services_dir() / f"{name}-{version}-{digest.hexdigest()[:8]}"
    if folder.is_dir():
        return folder
    with locked(services_dir() / f"{name}.lock"):
        if folder.is_dir():
            return folder
        partial = services_dir() / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(PINS / name, partial)
        build(partial)
        partial.rename(folder)
    return folder


def _maven(name: str, folder: Path) -> None:
    command = [tool(name, "mvn"), "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
    _run(name, [*command, f"-DoutputDirectory={folder / 'lib'}"], folder)


def _go(name: str, package: str, folder: Path) -> None:
    env = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    command = [tool(name, "go"), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", "program", package]
    _run(name, command, folder, env)


def _npm(name: str, folder: Path) -> None:
    _run(name, [tool(name, "npm"), "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _run(name: str, command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    from tidemill_core.telemetry import get_logger

    get_logger("tidemill.services").info("service_fetching", service=name, command=Path(command[0]).name)
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = "\n".join(done.stdout.splitlines()[-15:])
        raise ServiceFetchFailed(name, " ".join(Path(part).name for part in command[:3]), lines)
