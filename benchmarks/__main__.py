"""Run benchmarks: ``python -m benchmarks [--list] [NAME ...]``; NAME is a folder or ``folder.script``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """List every benchmark as ``folder.script``."""
    return sorted(f"{path.parent.name}.{path.stem}" for path in HERE.glob("*/*.py") if not path.stem.startswith("_"))


def main(wanted: list[str]) -> int:
    """Run the wanted benchmarks, or all."""
    if wanted == ["--list"]:
        print("\n".join(names()))
        return 0
    chosen = [name for name in names() if not wanted or name in wanted or name.split(".")[0] in wanted]
    if not chosen:
        print(f"no benchmark called {' or '.join(wanted)}; --list shows them", file=sys.stderr)
        return 2
    for name in chosen:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
