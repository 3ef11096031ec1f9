"""Remove from an installed environment what no program of an image reads; prints what it saved.

Only files that are known by name: tests and headers, browsers' source maps, Arrow's Flight and file-system
libraries (loaded by modules of pyarrow that nothing here imports: our stores are our own), the asyncio twin of
Kubernetes' client, AWS's descriptions of services other than S3 and those that give credentials, and the symbols
of compiled modules. Files of equal content become one. `deploy/check` runs the whole job in the result.

Nothing is changed in place: an installer may share its files with a cache by hard links, so a changed file is
written beside its place and put there.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

AWS_SERVICES = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})
PATTERNS = (
    "**/tests",
    "dagster_webserver/webapp/build/**/*.map",
    "dagster_webserver/webapp/build/*.mp4",
    "kubernetes/aio",
    "pyarrow/*.pxd",
    "pyarrow/*.pyx",
    "pyarrow/*flight*",
    "pyarrow/*s3fs*",
    "pyarrow/_pyarrow_cpp_tests*",
    "pyarrow/_substrait*",
    "pyarrow/include",
    "pyarrow/libarrow_s3*",
    "pyarrow/src",
    "sqlalchemy/dialects/mssql",
    "sqlalchemy/dialects/oracle",
    "sqlalchemy/testing",
)
LARGE = 100_000
"""Bytes from which a compiled file is worth stripping, and a copy worth linking."""


def trim(packages: Path) -> int:
    """Remove the files; return the bytes saved."""
    before = size(packages)
    for pattern in PATTERNS:
        for found in sorted(packages.glob(pattern)):
            remove(found)
    for service in sorted(packages.glob("botocore/data/*/")):
        if service.name not in AWS_SERVICES:
            remove(service)
    strip_symbols(packages)
    link_copies(packages)
    return before - size(packages)


def strip_symbols(packages: Path) -> None:
    """Strip compiled modules; the libraries that a wheel bundles (`*.libs`) are left as patchelf made them."""
    if not shutil.which("strip"):
        sys.exit("trim: the program strip is missing; install binutils")
    for path, found in files(packages):
        if (path.suffix == ".so" or ".so." in path.name) and found.st_size > LARGE and path.parent.suffix != ".libs":
            part = path.with_name(f"{path.name}.part")
            subprocess.run(["strip", "--strip-unneeded", "-o", str(part), str(path)], check=True)
            part.chmod(found.st_mode)
            part.replace(path)


def link_copies(packages: Path) -> None:
    """Make large files of equal content one file with several names; wheels hold a library once for each name."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path, found in files(packages):
        if found.st_size > LARGE:
            by_size[found.st_size].append(path)
    first: dict[bytes, Path] = {}
    for path in (each for same in by_size.values() if len(same) > 1 for each in same):
        content = hashlib.sha256(path.read_bytes()).digest()
        if (kept := first.setdefault(content, path)) != path:
            part = path.with_name(f"{path.name}.part")
            part.hardlink_to(kept)
            part.replace(path)


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every regular file below a folder, in order of its name."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, path.stat()


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(folder: Path) -> int:
    """Bytes of the files under a folder; one with several names counts once."""
    return sum({(found.st_dev, found.st_ino): found.st_size for _, found in files(folder)}.values())


def main() -> None:
    """Trim the environment that the first argument names."""
    if len(sys.argv) != 2:
        sys.exit("trim: give the folder of one environment")
    found = sorted(Path(sys.argv[1]).glob("lib/python3*/site-packages"))
    if len(found) != 1:
        sys.exit(f"trim: {sys.argv[1]} is no environment: {len(found)} folders lib/python3*/site-packages")
    saved = trim(found[0])
    print(f"{size(found[0]) / 1e6:.0f} MB of packages, {saved / 1e6:.0f} MB removed")


if __name__ == "__main__":
    main()
