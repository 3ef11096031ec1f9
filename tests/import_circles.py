"""Find modules that import each other in a circle, imports in functions and for type checking counted.

``python tests/import_circles.py packages/core/src`` prints each knot of modules.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path) -> dict[str, set[str]]:
    """For each module below `root`, the modules below it that its text imports anywhere."""
    sources = {module_name(path, root): path for path in root.glob("**/*.py") if "_generated" not in path.parts}
    return {name: set(_imported(path.read_text(encoding="utf-8"), sources)) - {name} for name, path in sources.items()}


def _imported(text: str, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # A name may be a module of the package; if it is not, the package itself is imported.
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known:
                    yield whole
                elif node.module in known:
                    yield node.module


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """List the knots: modules of which each reaches each other. A package's own ``__init__`` is one of them."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            knot = sorted(stack[at:])
            del stack[at:]
            if len(knot) > 1:
                found.append(knot)

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return sorted(found)


if __name__ == "__main__":
    for knot_ in circles(imports(Path(sys.argv[1]))):
        print(" ".join(knot_))
