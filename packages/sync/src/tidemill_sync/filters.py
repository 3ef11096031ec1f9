"""Choose keys by rclone-style patterns; the first rule that matches decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

Filter = Callable[[str], bool]
"""Tells whether a key takes part."""


def compile_filter(filters: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> Filter:
    """Build the filter of ordered rules, then `exclude`, then `include`.

    Args:
        filters: ``+ PATTERN`` and ``- PATTERN``, in order.
        include: If there is any, keys that match none (and no ``+`` rule) are out.
        exclude: Keys that match one are out.

    Raises:
        ValueError: A rule has no sign, or a pattern cannot be read.

    Example:
        >>> takes = compile_filter(["- tmp/**", "+ *.csv"], ["*.parquet"], [])
        >>> [takes(key) for key in ("a/x.parquet", "a.csv", "tmp/x.parquet", "a.txt")]
        [True, True, False, False]
    """
    rules = [
        *map(_rule, filters),
        *((False, pattern_regex(pattern)) for pattern in exclude),
        *((True, pattern_regex(pattern)) for pattern in include),
    ]
    if not rules:
        return _everything
    is_kept_by_default = not include

    def takes(key: str) -> bool:
        for is_kept, regex in rules:
            if regex.search(key):
                return is_kept
        return is_kept_by_default

    return takes


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """Translate a pattern: ``/`` first anchors it at the root, else it matches from any folder on.

    ``*`` is any run of characters but ``/``, ``**`` any run, ``?`` one character but
    ``/``, ``[a-z]`` and ``[!a-z]`` one of a class, ``{a,b}`` one of several; a
    backslash takes the next character literally; ``/`` last means all below a folder.

    Raises:
        ValueError: The pattern is empty or has an open bracket.
    """
    if not pattern.strip("/"):
        raise ValueError(f"the pattern {pattern!r} is empty")
    text = pattern + "**" if pattern.endswith("/") else pattern
    start, text = (r"\A", text[1:]) if text.startswith("/") else (r"(?:\A|/)", text)
    return re.compile(f"{start}{_body(text, pattern)}\\Z", re.DOTALL)


def _everything(key: str) -> bool:
    del key
    return True


def _rule(rule: str) -> tuple[bool, re.Pattern[str]]:
    sign, _, pattern = rule.strip().partition(" ")
    if sign not in {"+", "-"}:
        raise ValueError(f"the rule {rule!r} must begin with '+ ' or '- '")
    return sign == "+", pattern_regex(pattern.strip())


def _body(text: str, pattern: str) -> str:
    depth = 0
    pieces: list[str] = []
    tokens = iter(_tokens(text, pattern))
    for token in tokens:
        if token == "{":
            depth += 1
            pieces.append("(?:")
        elif token == "}" and depth:
            depth -= 1
            pieces.append(")")
        elif token == "," and depth:
            pieces.append("|")
        else:
            pieces.append(_SPECIAL.get(token) or (token if token.startswith("[") else re.escape(token[-1])))
    if depth:
        raise ValueError(f"the pattern {pattern!r} has an open brace")
    return "".join(chain(pieces))


_SPECIAL = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _tokens(text: str, pattern: str) -> Iterator[str]:
    index = 0
    while index < len(text):
        if text.startswith("**", index):
            token = "**"
        elif text[index] == "\\" and index + 1 < len(text):
            token = text[index : index + 2]
        elif text[index] == "[":
            end = text.find("]", index + 2)
            if end < 0:
                raise ValueError(f"the pattern {pattern!r} has an open bracket")
            inner = text[index + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            yield f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
            index = end + 1
            continue
        else:
            token = text[index]
        yield token
        index += len(token)
