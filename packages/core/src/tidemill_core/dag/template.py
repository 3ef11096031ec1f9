"""Fill `${scope.name}` in texts, and decide `when:` conditions, from values known at run time.

`${NAME}` (no dot) is an environment variable, replaced when the file is read; the scopes
here are `params`, `matrix`, `outputs`, `run` and `partition`.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from tidemill_core.dag.spec import JsonValue
from tidemill_core.dag.values import as_text
from tidemill_core.errors import PermanentError
from tidemill_core.plugins import did_you_mean

SCOPES = ("params", "matrix", "outputs", "run", "partition", "tasks")
"""`tasks` is known in conditions only."""
TASK_FACTS = ("state", "exit_code", "tries")
TASK_STATES = ("failed", "running", "not run", "done", "skipped")
"""States of a task in conditions, the worst first."""
REFERENCE = re.compile(r"\$\{\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)\s*\}")
_QUOTED = re.compile(rf"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|{REFERENCE.pattern}")
"""A text of a condition, or a reference outside of all texts (then it has a group)."""
_SHOWN = 80
"""Characters of a condition that a message shows."""
_READ: Mapping[type, Callable[[str], Any]] = {
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    Decimal: Decimal,
}
"""How a text of a condition is read beside a value of such a type."""

Values = Mapping[str, Any]


class TemplateError(PermanentError):
    """A `${...}` or a condition names something that is not there."""


def references(value: JsonValue) -> Iterator[tuple[str, ...]]:
    """Yield the parts of every `${a.b}` in the texts of `value`."""
    if isinstance(value, str):
        for match in REFERENCE.finditer(value):
            yield tuple(match[1].split("."))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def render(value: Any, scopes: Values, *, partial: bool = False) -> Any:
    """Replace every `${a.b}`; a text that is one reference becomes the value itself, with its type.

    Inside a longer text a value is written as `dag.values.as_text` does.

    Args:
        value: Text, or lists and mappings of them.
        scopes: Values by scope, nested mappings.
        partial: Leave references to scopes that are not in `scopes` alone.

    Raises:
        TemplateError: A reference names a value that is not there.
        BadOutputs: A value inside a longer text has no text.
    """
    if isinstance(value, str) and "${" in value:
        return _render_text(value, scopes, partial=partial)
    if isinstance(value, Mapping):
        return {key: render(each, scopes, partial=partial) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(render(each, scopes, partial=partial) for each in value)
    return value


def _render_text(text: str, scopes: Values, *, partial: bool) -> Any:
    whole = REFERENCE.fullmatch(text.strip())
    if whole is not None:
        parts = whole[1].split(".")
        return text if partial and parts[0] not in scopes else look_up(parts, scopes)

    def replace(match: re.Match[str]) -> str:
        parts = match[1].split(".")
        if partial and parts[0] not in scopes:
            return match[0]
        return as_text(look_up(parts, scopes), where=match[0])

    return REFERENCE.sub(replace, text)


def look_up(parts: list[str] | tuple[str, ...], scopes: Values) -> Any:
    """Follow `parts` through nested mappings.

    Raises:
        TemplateError: A part is unknown; names the nearest known one.
    """
    value: Any = scopes
    for index, part in enumerate(parts):
        if not isinstance(value, Mapping) or part not in value:
            known = list(value) if isinstance(value, Mapping) else []
            raise TemplateError(
                f"{'.'.join(parts)}: {part!r} is not known{did_you_mean(part, known)}"
                if index or known
                else f"{'.'.join(parts)} is not known"
            )
        value = value[part]
    return value


def condition_references(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the dotted names a condition reads.

    Raises:
        TemplateError: The condition is not an expression of the small language.
    """
    tree = _parse(text)
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise _bad(text, f"{_words(node)} is not allowed")
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in inner:
            yield _dotted(node, text)
        elif isinstance(node, ast.Compare | ast.UnaryOp) and not _reads(node):
            _evaluate(node, text, {})  # what is wrong with literals alone is wrong before the run


def _reads(node: ast.AST) -> bool:
    """Whether a piece of a condition reads a name; `true` and `false` are none."""
    names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return any(name.id not in ("true", "false") for name in names)


def state_words(text: str) -> Iterator[str]:
    """Yield the words that a condition compares with the state of a task.

    Raises:
        TemplateError: The condition is malformed.
    """
    for node in ast.walk(_parse(text)):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Attribute) and ast.unparse(side).startswith("tasks.") for side in sides) and any(
            isinstance(side, ast.Attribute) and side.attr == "state" for side in sides
        ):
            words = [each for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)]
            yield from (word.value for word in words if isinstance(word.value, str))


def holds(text: str, scopes: Values) -> bool:
    """Decide a condition: names, literals, comparisons, `and`, `or`, `not`, `in`.

    Raises:
        TemplateError: The condition is malformed, or a name is not known.
    """
    return bool(_evaluate(_parse(text), text, scopes))


def fill_condition(text: str, scope: str, values: Values) -> str:
    """Put values that are known already into a condition as literals; its other names stay.

    Args:
        text: The condition.
        scope: The scope that the values are of.
        values: Texts, numbers and booleans by name.

    Raises:
        TemplateError: The condition is malformed.
    """

    class Fill(ast.NodeTransformer):
        def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
            is_known = isinstance(node.value, ast.Name) and node.value.id == scope and node.attr in values
            return ast.Constant(values[node.attr]) if is_known else node

    # What is filled in is a value, not a reference, also where it looks like one.
    return ast.unparse(Fill().visit(_parse(text))).replace("${", "\\x24{")


def _parse(text: str) -> ast.expr:
    def plain(match: re.Match[str]) -> str:
        if match[1] is None and (inside := REFERENCE.search(match[0])):
            raise _bad(text, f"nothing is filled in between quotes; write {inside[1]} without them")
        return match[1] or match[0]

    try:
        return ast.parse(_QUOTED.sub(plain, text).strip(), mode="eval").body
    except SyntaxError as error:
        raise _bad(text, error.msg) from error
    except (RecursionError, MemoryError) as error:
        raise _bad(text, "it is nested too deeply") from error


def _bad(text: str, why: str) -> TemplateError:
    shown = repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."
    return TemplateError(f"bad condition {shown}: {why}")


def _words(node: ast.AST) -> str:
    """Name a piece of a condition; operators have no text of their own."""
    written = ast.unparse(node)
    return repr(written) if written else f"the operator {type(node).__name__}"


def _dotted(node: ast.expr, text: str) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*_dotted(node.value, text), node.attr)
    raise _bad(text, f"{_words(node)} is not allowed")


def _evaluate(node: ast.expr, text: str, scopes: Values) -> Any:  # noqa: PLR0911 - one return per kind of node
    match node:
        case ast.Constant():
            return node.value
        case ast.Name(id="true" | "false" as word):
            return word == "true"
        case ast.Name() | ast.Attribute():
            return look_up(_dotted(node, text), scopes)
        case ast.List() | ast.Tuple():
            return [_evaluate(each, text, scopes) for each in node.elts]
        case ast.UnaryOp(op=ast.Not()):
            return not _evaluate(node.operand, text, scopes)
        case ast.UnaryOp(op=ast.USub()):
            return _negative(_evaluate(node.operand, text, scopes), text)
        case ast.BoolOp():
            wanted = isinstance(node.op, ast.Or)
            return any(bool(_evaluate(each, text, scopes)) is wanted for each in node.values) is wanted
        case ast.Compare():
            return _compare(node, text, scopes)
    raise _bad(text, f"{_words(node)} is not allowed")


def _negative(value: Any, text: str) -> Any:
    try:
        return -value
    except TypeError as error:
        raise _bad(text, str(error)) from error


def _compare(node: ast.Compare, text: str, scopes: Values) -> bool:
    left = _evaluate(node.left, text, scopes)
    for test, right_node in zip(node.ops, node.comparators, strict=True):
        right = _evaluate(right_node, text, scopes)
        if type(test) not in _COMPARE:
            raise _bad(text, "use ==, !=, <, <=, >, >= or in")
        try:
            if not _COMPARE[type(test)](left, right):
                return False
        except (TypeError, ArithmeticError, ValueError) as error:
            raise _bad(text, str(error)) from error
        left = right
    return True


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Read a text beside a date, a datetime or a decimal as one, so that the two can be compared; also in lists.

    Raises:
        ValueError: The text is none.
        ArithmeticError: Likewise, for decimals.
    """
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        pairs = [_alike(*pair) for pair in zip(left, right, strict=False)]
        count = len(pairs)
        return [*(pair[0] for pair in pairs), *left[count:]], [*(pair[1] for pair in pairs), *right[count:]]
    for kind, read in _READ.items():
        if type(left) is kind and isinstance(right, str):
            return left, read(right)
        if type(right) is kind and isinstance(left, str):
            return read(left), right
    return left, right


def _by(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda left, right: compare(*_alike(left, right))


def _is_in(left: Any, right: Any) -> bool:
    if isinstance(right, list | tuple):
        return any(operator.eq(*_alike(left, each)) for each in right)
    return left in right


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: _by(operator.eq),
    ast.NotEq: _by(operator.ne),
    ast.Lt: _by(operator.lt),
    ast.LtE: _by(operator.le),
    ast.Gt: _by(operator.gt),
    ast.GtE: _by(operator.ge),
    ast.In: _is_in,
    ast.NotIn: lambda left, right: not _is_in(left, right),
}
_ALLOWED = (
    *(ast.Constant, ast.Name, ast.Attribute, ast.List, ast.Tuple, ast.Load),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, *_COMPARE),
)
