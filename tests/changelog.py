"""Require a fragment for each change of what users have, and assemble them for a release.

``python tests/changelog.py check main`` exits with 1 if the sources of a package differ from
`main` and no fragment does; ``python tests/changelog.py assemble 0.2.0`` puts the fragments
into ``CHANGELOG.md`` under that version and removes them.
"""

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("added", "changed", "fixed", "removed")
NAME = re.compile(rf"^[a-z0-9-]+\.({'|'.join(KINDS)})\.md$")
SOURCES = re.compile(r"^(packages/[^/]+/src|deploy/src)/.+\.py$")
MARK = "<!-- fragments are assembled below this line -->"


def fragments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.md") if path.name != "README.md")


def faults(folder: Path) -> list[str]:
    """What is wrong with the fragments there are: their name, or that they say nothing."""
    found = [
        f"{path.name}: name it <topic>.<{'|'.join(KINDS)}>.md"
        for path in fragments(folder)
        if not NAME.match(path.name)
    ]
    return found + [f"{path.name} says nothing" for path in fragments(folder) if not path.read_text().strip()]


def missing(changed: Sequence[str]) -> str | None:
    """Say that a fragment is missing, given the paths that a change touches."""
    sources = [path for path in changed if SOURCES.match(path)]
    has_fragment = any(path.startswith("changelog.d/") for path in changed)
    if not sources or has_fragment:
        return None
    return f"{len(sources)} files of the packages changed ({sources[0]}, ...) and no fragment in changelog.d/ says what for"


def assembled(folder: Path, version: str, date: dt.date) -> str:
    """The section of one version: its fragments by kind, each as one point."""
    lines = [f"## {version} ({date.isoformat()})"]
    for kind in KINDS:
        texts = [" ".join(path.read_text().split()) for path in fragments(folder) if f".{kind}." in path.name]
        if texts:
            lines += ["", f"### {kind.capitalize()}", "", *(f"- {text}" for text in texts)]
    return "\n".join(lines) + "\n"


def check(base: str) -> int:
    """Judge the fragments there are, and whether the change since `base` has one."""
    found = faults(ROOT / "changelog.d")
    command = ["git", "diff", "--name-only", f"{base}...HEAD"]
    changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    if (fault := missing(changed)) is not None:
        found.append(fault)
    for each in found:
        print(f"error: {each}")
    return 1 if found else 0


def assemble(version: str) -> int:
    """Put the fragments into the changelog and remove them."""
    folder, log = ROOT / "changelog.d", ROOT / "CHANGELOG.md"
    text = log.read_text()
    if MARK not in text or faults(folder):
        print(f"error: {log.name} has no line {MARK!r}" if MARK not in text else "\n".join(faults(folder)))
        return 1
    log.write_text(text.replace(MARK, f"{MARK}\n\n{assembled(folder, version, dt.date.today())}".rstrip(), 1))  # noqa: DTZ011
    for path in fragments(folder):
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit({"check": check, "assemble": assemble}[sys.argv[1]](sys.argv[2]))
