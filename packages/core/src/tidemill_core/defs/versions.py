"""The version of a function's code: it changes when the function changes, or what it calls.

Dagster compares code versions to show what is stale; `unchanged` skips an asset only when its
code is that of last time. Comments, formatting and docstrings do not count.
"""

import ast
import dis
import functools
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_CONSTANTS = (str, bytes, int, float, complex, bool, type(None))


def code_version(*functions: Callable[..., Any]) -> str:
    """Digest the code of functions, and of what they call or read in the same package.

    Followed are functions, classes, constants and modules of the top-level package of each
    function, also those that are imported inside it. Code of other packages does not count,
    nor do values that are made at run time; give those a version by hand
    (``code_version=f"{code_version(f)}-{polars.__version__}"``).

    Args:
        functions: Plain or decorated functions, methods, partials, or callable objects.

    Returns:
        16 hexadecimal digits.
    """
    seen: set[str] = set()
    digest = hashlib.sha256()
    for function in functions:
        for part in _Reader(_package(_plain(function)), seen).read(function, "call"):
            digest.update(part.encode(errors="backslashreplace") + b"\0")
    return digest.hexdigest()[:16]


class _Reader:
    """Walks from a value to all that it is made of, within one package."""

    def __init__(self, package: str, seen: set[str]) -> None:
        self._package, self._seen = package, seen

    def read(self, value: Any, name: str) -> Iterator[str]:
        """Yield the texts that decide what `value` does."""
        value = _plain(value)
        if isinstance(value, functools.partial):
            yield from self.read(value.func, name)
            yield from self._read_all({"args": value.args, **value.keywords})
        elif isinstance(value, FunctionType):
            yield from self._once(value, self._function)
        elif isinstance(value, type):
            yield from self._once(value, self._class)
        elif isinstance(value, CodeType):
            yield from ()
        elif _is_constant(value):
            yield f"{name}={_constant_text(value)}"
        elif name == "call" and not isinstance(value, ModuleType):
            yield from self.read(type(value), name)

    def _once(self, value: Any, read: Callable[[Any], Iterator[str]]) -> Iterator[str]:
        key = f"{value.__module__}:{value.__qualname__}:{id(value)}"
        if _package(value) != self._package or key in self._seen:
            return
        self._seen.add(key)
        yield from read(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield f"{function.__qualname__}: {_source(function)}"
        yield from self._read_all(_closure(function))
        yield from self._read_all({"defaults": function.__defaults__, **(function.__kwdefaults__ or {})})
        yield from self._names(function.__code__, function.__globals__)

    def _class(self, kind: type) -> Iterator[str]:
        yield f"{kind.__qualname__}: {_source(kind)}"
        for base in kind.__bases__:
            yield from self.read(base, base.__name__)
        for name, member in sorted(vars(kind).items()):
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType):
                yield from self._names(function.__code__, function.__globals__)
            elif _is_constant(member) and not name.startswith("__"):
                yield f"{name}={_constant_text(member)}"

    def _names(self, code: CodeType, scope: Mapping[str, Any]) -> Iterator[str]:
        """Follow the global names that `code` uses, and attributes of the package's modules."""
        names = sorted(_names_in(code))
        for module in self._modules(code, names, scope):
            found = {name: vars(module)[name] for name in names if name in vars(module)}
            yield from self._read_all(found)
        yield from self._read_all({name: scope[name] for name in names if name in scope})

    def _modules(self, code: CodeType, names: list[str], scope: Mapping[str, Any]) -> Iterator[ModuleType]:
        for name in names:
            value = scope.get(name)
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == self._package:
                yield value
        for name in sorted(_imports_in(code, str(scope.get("__package__") or ""))):
            if name.partition(".")[0] == self._package:
                yield importlib.import_module(name)

    def _read_all(self, values: Mapping[str, Any]) -> Iterator[str]:
        for name, value in values.items():
            yield from self.read(value, name)


def _plain(value: Any) -> Any:
    """Take off decorators that say what they wrap, and the instance of a method."""
    if isinstance(value, MethodType):
        value = value.__func__
    return inspect.unwrap(value) if callable(value) else value


def _package(value: Any) -> str:
    if isinstance(value, functools.partial):
        return _package(_plain(value.func))
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).partition(".")[0]


def _source(value: Any) -> str:
    """Read the code as a tree without places and docstrings; the bytecode where there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError):
        return _bytecode(value.__code__) if isinstance(value, FunctionType) else ""
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def _bytecode(code: CodeType) -> str:
    inner = [_bytecode(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"


def _names_in(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for each in code.co_consts:
        if isinstance(each, CodeType):
            found |= _names_in(each)
    return found


def _imports_in(code: CodeType, package: str) -> set[str]:
    """Name the modules that `code` imports when it runs."""
    found: set[str] = set()
    before: list[Any] = []
    for each in dis.get_instructions(code):
        if each.opname == "IMPORT_NAME":
            # The compiler puts the level of a relative import two instructions before it.
            level = before[-2].argval if len(before) > 1 and isinstance(before[-2].argval, int) else 0
            found.add(_absolute(each.argval, level, package))
        before.append(each)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _imports_in(constant, package)
    return found


def _absolute(name: str, level: int, package: str) -> str:
    if level == 0:
        return name
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


def _closure(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    return found


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(_is_constant(each) for each in value)
    if isinstance(value, Mapping):
        return all(_is_constant(key) and _is_constant(each) for key, each in value.items())
    return isinstance(value, _CONSTANTS)


def _constant_text(value: Any) -> str:
    """Write a constant; sets in one order, since theirs changes from process to process."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_constant_text, value)))}}}"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(map(_constant_text, value))})"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {_constant_text(each)}' for key, each in value.items())}}}"
    return repr(value)
