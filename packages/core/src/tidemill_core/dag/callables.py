"""Look at Python callables without running their modules: do they exist, and what do they take?

A check must be fast and free of side effects, so the source is parsed, not imported.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

INJECTED = ("context", "params", "outputs")
SHARED_RESOURCES = ("postgres", "lake", "kafka", "http", "lineage", "io_manager", "postgres_io_manager")
_CHECKED: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What a function takes by name."""

    annotations: Mapping[str, str | None]
    required: frozenset[str]
    any_name: bool
    """It takes ``**kwargs``."""


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let modules beside a DAG file be found, after everything installed."""
    if str(folder) in sys.path:
        yield
        return
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def find_callable(reference: str, *, folder: Path | None = None) -> Parameters | None:
    """Describe ``package.module:function``; None when its parameters cannot be read from source.

    Raises:
        LookupError: The module or the name is not there; says what is.
    """
    module, _, name = reference.partition(":")
    tree = module_tree(module, str(folder) if folder else "")
    if tree is None:
        return None
    first = name.partition(".")[0]
    known = top_names(tree)
    if first not in known and "*" not in known and "__getattr__" not in known:
        raise LookupError(f"module {module!r} has no {first!r}{did_you_mean(first, sorted(known))}")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return None if node.decorator_list else _parameters(node)
    return None


def find_component(reference: str) -> None:
    """Check that ``package.Type`` can name a component type (in the package or in its `defs`).

    Raises:
        LookupError: No such module, or neither place has the name.
    """
    module, _, name = reference.rpartition(".")
    tree = module_tree(module, "")
    known = top_names(tree) if tree else {"*"}
    if name in known or "*" in known:
        return
    try:
        below = module_tree(f"{module}.defs", "")
    except LookupError:
        below = None
    names = known | (top_names(below) if below else set())
    if name not in names and "*" not in names:
        types = sorted(each for each in names if each.endswith("Component"))
        raise LookupError(f"{module!r} has no component type {name!r}{did_you_mean(name, types)}")


def wrong_arguments(
    parameters: Parameters, given: Mapping[str, Any], *, filled: tuple[str, ...]
) -> Iterator[tuple[str, str]]:
    """Yield (argument, what is wrong); ``""`` for the call as a whole.

    Args:
        parameters: What the callable takes.
        given: The arguments of the file.
        filled: Names that are filled in by us: resources, the context.
    """
    for name, value in given.items():
        if name not in parameters.annotations:
            if not parameters.any_name:
                known = [each for each in parameters.annotations if each not in filled]
                yield name, f"the callable takes no {name!r}{did_you_mean(name, known)}"
            continue
        wanted = parameters.annotations[name]
        types = _CHECKED.get(wanted or "")
        template = isinstance(value, str) and "${" in value
        wrong_bool = isinstance(value, bool) and wanted in ("int", "float")
        if types and not template and (wrong_bool or not isinstance(value, types)):
            yield name, f"the callable wants {wanted}, this is {type(value).__name__} ({value!r})"
    missing = sorted(parameters.required - set(given) - {*filled, *INJECTED, *SHARED_RESOURCES})
    if missing:
        yield "", f"the callable needs {', '.join(missing)}"


@lru_cache(maxsize=512)
def module_tree(module: str, folder: str) -> ast.Module | None:
    """Parse the source of `module`; None for one without source.

    Raises:
        LookupError: There is no such module.
    """
    with importable(Path(folder)) if folder else nullcontext():
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise LookupError(f"module {module!r} cannot be found: {error}") from error
    if spec is None:
        raise LookupError(f"there is no module {module!r}{_beside(module, folder)}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def top_names(tree: ast.Module) -> set[str]:
    """Names a module gives: what its own statements define, import and assign, not what its functions do.

    Where names are looked up lazily (a module-level ``__getattr__``), the identifiers among its texts count, too.
    """
    names: set[str] = set()
    texts: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue  # what is inside is not the module's
        if isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            texts.add(node.value)
        waiting += ast.iter_child_nodes(node)
    return names | texts if "__getattr__" in names else names


def _beside(module: str, folder: str) -> str:
    """Finish a message with the modules that lie beside the file."""
    near = sorted(path.stem for path in Path(folder).glob("*.py")) if folder else []
    if get_close_matches(module, near, n=1):
        return did_you_mean(module, near)
    return "; is its package installed, or its file beside the DAG file?"


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Parameters:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args]
    optional = {each.arg for each in named[len(named) - len(arguments.defaults) :]} if arguments.defaults else set()
    optional |= {
        each.arg for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value is not None
    }
    every = [*named, *arguments.kwonlyargs]
    return Parameters(
        annotations={each.arg: ast.unparse(each.annotation) if each.annotation else None for each in every},
        required=frozenset(each.arg for each in every) - optional,
        any_name=arguments.kwarg is not None,
    )


def import_callable(reference: str, folder: Path) -> Any:
    """Import what ``package.module:name`` names; modules beside the DAG file are found last.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, name = reference.partition(":")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{reference} cannot be imported: {error}") from error
    return found
