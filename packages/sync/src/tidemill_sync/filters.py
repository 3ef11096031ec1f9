"""Choose keys by rclone-style patterns; the first rule that matches decides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

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
        return everything
    is_kept_by_default = not include

    def takes(key: str) -> bool:
        for is_kept, regex in rules:
            if regex.search(key):
                return is_kept
        return is_kept_by_default

    return takes


def everything(key: str) -> bool:
    """Take every key; what `compile_filter` gives where there is no rule."""
    del key
    return True


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


def _rule(rule: str) -> tuple[bool, re.Pattern[str]]:
    sign, _, pattern = rule.strip().partition(" ")
    if sign not in {"+", "-"}:
        raise ValueError(f"the rule {rule!r} must begin with '+ ' or '- '")
    return sign == "+", pattern_regex(pattern.strip())


def _body(text: str, pattern: str) -> str:
    depth = 0
    found: list[str] = []
    for piece in _split(text, pattern):
        if piece == "{":
            depth += 1
            found.append("(?:")
        elif piece == "}" and depth:
            depth -= 1
            found.append(")")
        elif piece == "," and depth:
            found.append("|")
        else:
            found.append(_SPECIAL.get(piece) or (piece if piece.startswith("[") else re.escape(piece[-1])))
    if depth:
        raise ValueError(f"the pattern {pattern!r} has an open brace")
    return "".join(found)


_SPECIAL = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def _split(text: str, pattern: str) -> Iterator[str]:
    """Cut a pattern into wildcards, escaped characters, classes (already as regular expressions) and letters."""
    index = 0
    while index < len(text):
        if text[index] == "[":
            end = text.find("]", index + 2)
            if end < 0:
                raise ValueError(f"the pattern {pattern!r} has an open bracket")
            inner = text[index + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            yield f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
            index = end + 1
            continue
        is_pair = text.startswith("**", index) or (text[index] == "\\" and index + 1 < len(text))
        yield text[index : index + 2] if is_pair else text[index]
        index += 2 if is_pair else 1
