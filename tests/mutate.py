"""Change one module in one place at a time and run its unit tests: they should notice.

``uv run just mutate tidemill_core.postgres.wire``. The tests of each module, and the
changes that they cannot notice, each with its reason, are in ``tests/mutants.toml``.
Exits with 1 if a change survives that is not listed, or a listed one is noticed.
The files are not touched: each change is made in memory, in a process of its own.
"""

import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests/mutants.toml"
SURVIVED, NOT_USED = 0, 90
# Loaded once, before the processes are made; nothing of ours, for the changed module must be loaded anew.
PRELOADED = ("hypothesis.strategies", "pydantic", "orjson", "structlog")
OPERATORS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Div: ast.Mult, ast.LShift: ast.RShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change: where it is, in words that outlive moved lines, and the module with it."""

    function: str
    before: str
    after: str
    line: int
    tree: ast.Module

    @property
    def place(self) -> tuple[str, str, str]:
        return self.function, self.before, self.after


def mutants(source: str) -> Iterator[Mutant]:
    """Every change that is tried in a module."""
    tree = ast.parse(source)
    for function, path, node in _nodes(tree):
        for changed in _changes(node):
            whole = copy.deepcopy(tree)
            before, after = _put(whole, path, changed)
            yield Mutant(function=function, before=before, after=after, line=node.lineno, tree=whole)


Path_ = list[tuple[str, int | None]]


def _nodes(root: ast.AST) -> Iterator[tuple[str, Path_, ast.AST]]:
    """Every node that may be changed, with the function it is in and the way to it."""
    stack: list[tuple[str, Path_, ast.AST]] = [("", [], root)]
    while stack:
        function, path, node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        elif path:
            yield function, path, node
        for field, value in ast.iter_fields(node):
            if _is_left_alone(node, field):
                continue
            for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.AST) and not _is_text_only(child):
                    stack.append((function, [*path, (field, at)], child))


def _is_left_alone(node: ast.AST, field: str) -> bool:
    """Types, decorators and messages of errors are no behaviour that unit tests should pin word by word."""
    return (
        field in ("annotation", "returns", "decorator_list", "type_comment", "bases", "keywords")
        and not isinstance(node, ast.Call)
    ) or (isinstance(node, ast.Raise) and field == "exc")


def _is_text_only(node: ast.AST) -> bool:
    is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    is_type_alias = isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and node.col_offset == 0
    return is_docstring or is_typing or is_type_alias or isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    yield from _other_operators(node)
    yield from _other_values(node)
    yield from _other_statements(node)


def _other_operators(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=ops):
            for at, operator in enumerate(ops):
                yield _with(node, ops=[*ops[:at], OPERATORS[type(operator)](), *ops[at + 1 :]])
        case ast.BoolOp(op=op) | ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand


def _other_values(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Constant(value=bool(value)):
            yield _with(node, value=not value)
        case ast.Constant(value=int(value)):
            yield _with(node, value=value + 1)
        case ast.Constant(value=str(value)) if value:
            yield _with(node, value=f"{value}XX")


def _other_statements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield _with(node, test=ast.UnaryOp(op=ast.Not(), operand=test))
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield _with(node, value=ast.Constant(value=None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.Assign() | ast.AugAssign() | ast.Expr(value=ast.Call()) | ast.Delete():
            yield ast.Pass()


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _put(tree: ast.Module, path: Path_, changed: ast.AST) -> tuple[str, str]:
    """Put a node into a tree; answer the first line of the statement around it, before and after."""
    nodes: list[ast.AST] = [tree]
    for field, at in path:
        value = getattr(nodes[-1], field)
        nodes.append(value if at is None else value[at])
    statement = next((at for at in range(len(nodes) - 1, 0, -1) if isinstance(nodes[at], ast.stmt)), len(nodes) - 1)
    before = ast.unparse(nodes[statement])
    field, at = path[-1]
    if at is None:
        setattr(nodes[-2], field, changed)
    else:
        getattr(nodes[-2], field)[at] = changed
    ast.fix_missing_locations(tree)
    # Where the statement itself was replaced, its new form stands in its parent.
    after = ast.unparse(changed if statement == len(nodes) - 1 else nodes[statement])
    return _first_difference(before, after)


def _first_difference(before: str, after: str) -> tuple[str, str]:
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    return next(((a.strip(), b.strip()) for a, b in pairs if a != b), (before.splitlines()[0], after.splitlines()[0]))


class _Changed(importlib.abc.MetaPathFinder):
    """Gives the changed code to whoever imports the module; a plugin of pytest."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module, self.tree = module, tree
        self.is_used = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_load_initial_conftests(self) -> None:
        # Not earlier: pytest puts its own finder first, which loads every module of a plugin's distribution.
        # Not later: a conftest may import the module.
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, path: object = None, target: object = None):
        if fullname != self.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        tree, self.is_used = self.tree, True

        class Loader(importlib.machinery.SourceFileLoader):
            def get_code(self, name: str) -> CodeType:
                return compile(tree, spec.origin, "exec")

        spec.loader = Loader(fullname, spec.origin)
        return spec


def judge(module: str, tree: ast.Module, tests: list[str], *, within_s: float) -> int | None:
    """Run the tests with a changed module in a process of its own; answer pytest's exit code, None if it hung."""
    child = os.fork()
    if child == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        changed = _Changed(module, tree)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "--hypothesis-profile=mutate"]
        code = 1
        try:
            code = int(pytest.main([*options, *tests], plugins=[changed]))
            code = code if changed.is_used else NOT_USED
        finally:
            os._exit(code)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def main(module: str) -> int:
    """Judge every change of a module; print those that survive."""
    os.chdir(ROOT)
    settings = tomllib.loads(LISTED.read_text())["modules"].get(module)
    if settings is None:
        print(f"{module} is not in {LISTED.relative_to(ROOT)}; add it with the tests that judge it")
        return 2
    for name in (*PRELOADED, *settings.get("preload", [])):
        importlib.import_module(name)
    source = (ROOT / settings["file"]).read_text()
    started = time.monotonic()
    if (code := judge(module, ast.parse(source), settings["tests"], within_s=300)) != SURVIVED:
        why = "never import the module" if code == NOT_USED else "fail without any change"
        print(f"the tests of {module} {why}: {' '.join(settings['tests'])}")
        return 1
    within_s = 10 + 10 * (time.monotonic() - started)
    all_ = list(mutants(source))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        codes = list(threads.map(lambda each: judge(module, each.tree, settings["tests"], within_s=within_s), all_))
    return report(all_, codes, settings.get("survivors", []))


def report(all_: list[Mutant], codes: list[int | None], listed: list[dict[str, str]]) -> int:
    """Print what survived and is not listed, and what is listed and was noticed; answer the exit code."""
    known = {(each["function"], each["before"], each["after"]) for each in listed if each["reason"]}
    survivors = [each for each, code in zip(all_, codes, strict=True) if code == SURVIVED]
    fresh = [each for each in survivors if each.place not in known]
    gone = known - {each.place for each in survivors}
    for each in fresh:
        print(f"survives: line {each.line}, {each.function}\n  - {each.before}\n  + {each.after}")
    for place in sorted(gone):
        print(f"listed, but noticed or no longer there: {place}")
    print(f"{len(all_)} changes, {len(survivors)} survive, {len(fresh)} of them not listed")
    return 1 if fresh or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
