"""Where servers keep their files: the cache of fetched programs, locks, and folders another account may enter."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidemill_core.errors import ServiceError
from tidemill_core.services.processes import is_used

_ORIGIN = "origin"
"""File in a stand-in that names the folder it stands in for."""


def services_dir() -> Path:
    """Folder of fetched programs: ``TIDEMILL_SERVICES_DIR``, or ``tidemill/services`` in the user's cache."""
    given = os.environ.get("TIDEMILL_SERVICES_DIR")
    if given:
        return Path(given).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "tidemill" / "services"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else _user_home() / ".cache") / "tidemill" / "services"


def _user_home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:  # no HOME, and no entry for this uid in the password file
        raise ServiceError("this account has no home folder; set TIDEMILL_SERVICES_DIR or HOME") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the one lock that is the file `path`; other processes and threads wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)


def is_open(folder: Path) -> bool:
    """Tell whether any account may enter `folder` (every part of its path has the x bit for others)."""
    folder = folder.resolve()
    return all(part.stat().st_mode & 0o001 for part in (folder, *folder.parents) if part.exists())


def open_folder(folder: Path) -> Path:
    """Give a folder that another account can reach: `folder`, or a stand-in for it.

    Raises:
        ServiceError: Somebody else holds the stand-in's place.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if is_open(folder):
        return folder
    sweep()
    place = open_place(folder)
    place.mkdir(mode=0o711, parents=True, exist_ok=True)
    seen = place.lstat()
    if place.is_symlink() or seen.st_uid != os.getuid():
        raise ServiceError(f"{place} belongs to another account (uid {seen.st_uid}); remove it")
    place.chmod(0o711)
    (place / _ORIGIN).write_text(str(folder))
    return place


def open_place(folder: Path) -> Path:
    """Name the folder that stands in for `folder`, whether it is there or not."""
    name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    places = [root / f"tidemill-{os.getuid()}-{name}" for root in _stand_in_roots()]
    return next((each for each in places if each.exists()), places[0])


def sweep() -> None:
    """Remove stand-ins whose folder is gone, such as those of finished tests."""
    for root in _stand_in_roots():
        for origin in root.glob(f"tidemill-{os.getuid()}-*/{_ORIGIN}"):
            with suppress(OSError):
                _remove_orphan(origin)


def _stand_in_roots() -> tuple[Path, ...]:
    """Where stand-ins lie: what a machine keeps, before what it may clean up by age."""
    kept, cleaned = Path("/var/lib/tidemill"), Path("/var/tmp")  # noqa: S108 - owners are checked before use
    with suppress(OSError):
        kept.mkdir(mode=0o711, exist_ok=True)
    return (kept, cleaned) if os.access(kept, os.W_OK) else (cleaned,)


def _remove_orphan(origin: Path) -> None:
    place = origin.parent
    is_ours = place.lstat().st_uid == os.getuid() and not place.is_symlink()
    if is_ours and not Path(origin.read_text()).exists() and not is_used(place):
        shutil.rmtree(place, ignore_errors=True)
