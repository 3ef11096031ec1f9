"""The `where` expression: a small SQL condition, compiled to a Python function over one record.

    condition := and {OR and}          and := not {AND not}        not := [NOT] predicate
    predicate := value [(= | == | != | <> | < | <= | > | >=) value
                 | IS [NOT] NULL | [NOT] IN (literal, ...) | [NOT] BETWEEN value AND value | [NOT] LIKE 'pattern']
    value     := term {(+ | -) term}    term := factor {(* | /) factor}
    factor    := [-] (literal | field | "field" | (condition or value))

Null means unknown, as in SQL: a record is kept only when the condition is true. Each
node therefore compiles twice, to "is true" and to "is false"; NOT swaps the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tidemill_stream.errors import FilterSyntax
from tidemill_stream.records.fields import access, compile_function, join_path

Keep = Callable[[Any], bool]
"""Tells whether a record passes."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)
        |(?P<text>'(?:[^']|'')*')
        |(?P<quoted>"(?:[^"]|"")+")
        |(?P<word>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
        |(?P<sign><=|>=|<>|!=|==|[=<>+\-*/(),]))""",
    re.VERBOSE,
)
_COMPARE = {"=": "==", "==": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_MIRROR = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_WORDS = {"and", "or", "not", "is", "in", "between", "like", "null", "true", "false"}


@dataclass(frozen=True, slots=True)
class FieldRef:
    """A field of the record."""

    path: str


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant; None is NULL."""

    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Two numbers combined."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values compared."""

    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class IsNull:
    """A value tested for null."""

    value: Node


@dataclass(frozen=True, slots=True)
class In:
    """A value looked up in a list of constants."""

    value: Node
    choices: tuple[str | int | float | bool | None, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """Text matched against a pattern of % and _."""

    value: Node
    pattern: str


@dataclass(frozen=True, slots=True)
class Logic:
    """Conditions joined by AND or OR."""

    op: Literal["and", "or"]
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """A condition turned round."""

    part: Node


Node = FieldRef | Constant | Arithmetic | Compare | IsNull | In | Like | Logic | Not
_VALUES = (FieldRef, Constant, Arithmetic)


def compile_filter(text: str) -> Keep:
    """Compile a `where` expression.

    Raises:
        FilterSyntax: The text cannot be read; names the column.
    """
    return emit(parse(text))


def parse(text: str) -> Node:
    """Read a condition into a tree."""
    return _Parser(text).whole()


def field_paths(node: Node) -> set[str]:
    """List the fields a condition reads."""
    if isinstance(node, FieldRef):
        return {node.path}
    children: list[Node] = []
    if isinstance(node, Arithmetic | Compare):
        children = [node.left, node.right]
    elif isinstance(node, IsNull | In | Like):
        children = [node.value]
    elif isinstance(node, Logic):
        children = list(node.parts)
    elif isinstance(node, Not):
        children = [node.part]
    return {path for child in children for path in field_paths(child)}


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.index = text, list(_tokens(text)), 0

    def whole(self) -> Node:
        node = self.condition()
        if self.index < len(self.tokens):
            raise self.wrong(f"unexpected {self.tokens[self.index][1]!r}")
        return self.boolean(node)

    def condition(self) -> Node:
        return self.joined("or", lambda: self.joined("and", self.negation))

    def joined(self, op: Literal["and", "or"], part: Callable[[], Node]) -> Node:
        parts = [part()]
        while self.take(op):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Logic(op, tuple(self.boolean(each) for each in parts))

    def negation(self) -> Node:
        return Not(self.boolean(self.negation())) if self.take("not") else self.predicate()

    def predicate(self) -> Node:
        left = self.sum()
        if self.index < len(self.tokens) and self.tokens[self.index][1] in _COMPARE:
            op = _COMPARE[self.next()[1]]
            return Compare(op, self.value(left), self.value(self.sum()))
        if self.take("is"):
            negated = self.take("not")
            self.expect("null")
            return Not(IsNull(self.value(left))) if negated else IsNull(self.value(left))
        negated = self.take("not")
        test = self.test(left)
        if test is None:
            if negated:
                raise self.wrong("IN, BETWEEN or LIKE expected after NOT")
            return left
        return Not(test) if negated else test

    def test(self, left: Node) -> Node | None:
        if self.take("in"):
            return In(self.value(left), self.choices())
        if self.take("between"):
            low = self.value(self.sum())
            self.expect("and")
            high, value = self.value(self.sum()), self.value(left)
            return Logic("and", (Compare(">=", value, low), Compare("<=", value, high)))
        if self.take("like"):
            kind, pattern, _ = self.next()
            if kind != "text":
                raise self.wrong("a pattern in single quotes expected after LIKE")
            return Like(self.value(left), pattern)
        return None

    def choices(self) -> tuple[str | int | float | bool | None, ...]:
        self.expect("(")
        found = []
        while True:
            literal = self.factor()
            if not isinstance(literal, Constant):
                raise self.wrong("only constants may stand in a list")
            found.append(literal.value)
            if not self.take(","):
                self.expect(")")
                return tuple(found)

    def sum(self) -> Node:
        return self.chain(("+", "-"), lambda: self.chain(("*", "/"), self.factor))

    def chain(self, ops: tuple[str, ...], part: Callable[[], Node]) -> Node:
        left = part()
        while self.index < len(self.tokens) and self.tokens[self.index][:2] in [("sign", op) for op in ops]:
            op = self.next()[1]
            left = Arithmetic(op, self.value(left), self.value(part()))
        return left

    def factor(self) -> Node:  # noqa: PLR0911 - one return per kind of token
        if self.take("("):
            node = self.condition()
            self.expect(")")
            return node
        kind, token, _ = self.next()
        if kind == "sign" and token == "-":  # noqa: S105 - a minus sign
            inner = self.factor()
            if isinstance(inner, Constant) and isinstance(inner.value, int | float):
                return Constant(-inner.value)
            return Arithmetic("-", Constant(0), self.value(inner))
        if kind == "number":
            return Constant(int(token) if token.isdigit() else float(token))
        if kind == "text":
            return Constant(token)
        if kind == "quoted":
            return FieldRef(join_path([token]))
        if kind == "word" and token.lower() not in _WORDS:
            return FieldRef(token)
        if kind == "word" and token.lower() in ("true", "false", "null"):
            return Constant({"true": True, "false": False, "null": None}[token.lower()])
        self.index -= 1
        raise self.wrong("a value or a condition expected")

    def value(self, node: Node) -> Node:
        if not isinstance(node, _VALUES):
            raise self.wrong("a value expected, not a condition")
        return node

    def boolean(self, node: Node) -> Node:
        if isinstance(node, Arithmetic) or (isinstance(node, Constant) and not isinstance(node.value, bool | None)):
            raise self.wrong("a condition expected, not a value")
        return node

    def next(self) -> tuple[str, str, int]:
        if self.index >= len(self.tokens):
            raise self.wrong("more expected")
        self.index += 1
        return self.tokens[self.index - 1]

    def take(self, word: str) -> bool:
        if self.index < len(self.tokens):
            kind, token, _ = self.tokens[self.index]
            if kind in ("word", "sign") and token.lower() == word:
                self.index += 1
                return True
        return False

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise self.wrong(f"{word.upper()} expected")

    def wrong(self, reason: str) -> FilterSyntax:
        at = self.tokens[self.index][2] if self.index < len(self.tokens) else len(self.text)
        return FilterSyntax(self.text, at, reason)


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise FilterSyntax(text, at, "cannot be read")
        kind = str(match.lastgroup)
        token = match.group(kind)
        if kind in ("text", "quoted"):
            token = token[1:-1].replace(token[0] * 2, token[0])
        found.append((kind, token, match.start(kind)))
        position = match.end()
    if not found:
        raise FilterSyntax(text, 0, "a condition expected")
    return found


def emit(node: Node) -> Keep:
    """Compile a tree to a function of one record."""
    constants: dict[str, Any] = {"_arithmetic": _arithmetic}
    source = f"def keep(r):\n    return {_true(node, constants)}\n"
    return compile_function("keep", source, constants)


def _value(node: Node, constants: dict[str, Any]) -> str:
    if isinstance(node, FieldRef):
        return access(node.path)
    if isinstance(node, Constant):
        return _constant(node.value, constants)
    assert isinstance(node, Arithmetic)
    return f"_arithmetic({node.op!r}, {_value(node.left, constants)}, {_value(node.right, constants)})"


def _true(node: Node, constants: dict[str, Any]) -> str:  # noqa: PLR0911 - one return per kind of node
    """Write the Python expression that is True exactly when the SQL condition is true."""
    if isinstance(node, Not):
        return _false(node.part, constants)
    if isinstance(node, Logic):
        return "(" + f" {node.op} ".join(_true(part, constants) for part in node.parts) + ")"
    if isinstance(node, Compare):
        return _compare(node, node.op, constants)
    if isinstance(node, IsNull):
        return f"({_value(node.value, constants)} is None)"
    if isinstance(node, In):
        choices = _constant(frozenset(c for c in node.choices if c is not None), constants)
        return f"({_known(node.value, constants)}{_value(node.value, constants)} in {choices})"
    if isinstance(node, Like):
        pattern = _constant(_like(node.pattern), constants)
        return f"({_known(node.value, constants)}{pattern}({_value(node.value, constants)}) is not None)"
    return f"({_value(node, constants)} is True)"


def _false(node: Node, constants: dict[str, Any]) -> str:  # noqa: PLR0911 - one return per kind of node
    """Write the Python expression that is True exactly when the SQL condition is false."""
    if isinstance(node, Not):
        return _true(node.part, constants)
    if isinstance(node, Logic):
        op = "or" if node.op == "and" else "and"
        return "(" + f" {op} ".join(_false(part, constants) for part in node.parts) + ")"
    if isinstance(node, Compare):
        return _compare(node, _MIRROR[node.op], constants)
    if isinstance(node, IsNull):
        return f"({_value(node.value, constants)} is not None)"
    if isinstance(node, In):
        if None in node.choices:
            return "False"
        choices = _constant(frozenset(node.choices), constants)
        return f"({_known(node.value, constants)}{_value(node.value, constants)} not in {choices})"
    if isinstance(node, Like):
        pattern = _constant(_like(node.pattern), constants)
        return f"({_known(node.value, constants)}{pattern}({_value(node.value, constants)}) is None)"
    return f"({_value(node, constants)} is False)"


def _compare(node: Compare, op: str, constants: dict[str, Any]) -> str:
    known = _known(node.left, constants) + _known(node.right, constants)
    return f"({known}{_value(node.left, constants)} {op} {_value(node.right, constants)})"


def _known(node: Node, constants: dict[str, Any]) -> str:
    """Write the test that a value is not null, ending in ``and``; nothing for a constant that is not."""
    if isinstance(node, Constant) and node.value is not None:
        return ""
    return f"{_value(node, constants)} is not None and "


def _constant(value: Any, constants: dict[str, Any]) -> str:
    name = f"k{len(constants)}"
    constants[name] = value
    return name


def _like(pattern: str) -> Callable[[str], object]:
    text = "".join({"%": ".*", "_": "."}.get(char, re.escape(char)) for char in pattern)
    return re.compile(text, re.DOTALL).fullmatch


def _arithmetic(op: str, left: Any, right: Any) -> float | None:
    if left is None or right is None:
        return None
    if isinstance(left, str) or isinstance(right, str):
        raise TypeError(f"{op} needs numbers")
    if op == "/":
        return None if right == 0 else left / right
    result: float = left + right if op == "+" else left - right if op == "-" else left * right
    return result


def literal_types(node: Node) -> Mapping[str, set[type]]:
    """Collect, for each field compared with constants, the types of those constants."""
    found: dict[str, set[type]] = {}
    for field, value in _comparisons(node):
        if isinstance(field, FieldRef) and value is not None:
            found.setdefault(field.path, set()).add(type(value))
    return found


def _comparisons(node: Node) -> Iterator[tuple[Node, Any]]:
    """Yield every value with every constant it is compared with."""
    if isinstance(node, Compare):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(other, Constant):
                yield one, other.value
    elif isinstance(node, In):
        for choice in node.choices:
            yield node.value, choice
    elif isinstance(node, Like):
        yield node.value, node.pattern
    elif isinstance(node, Logic):
        for part in node.parts:
            yield from _comparisons(part)
    elif isinstance(node, Not):
        yield from _comparisons(node.part)
