"""Put values into shell lines so that none can be taken for a piece of the program.

A value that stands by itself becomes one word, quoted as the shell needs it. Inside quotes of the
file, in a here-document or in an expansion, the value belongs to a text that the shell, or what the
shell hands it to (`sh -c '...'`, `psql -c "..."`), reads again by rules we do not know: there only
values of letters, digits and ``_ . / : @ % + = , -`` are put in, anything else is an error.
The quoting rules are those of POSIX.1-2017, Shell Command Language, 2.2 and 2.6.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidemill_core.dag.template import REFERENCE, TemplateError, Values, look_up
from tidemill_core.dag.values import as_text

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+=,-]*")
_HERE = re.compile(r"<<-?\s*(?P<quote>['\"\\]?)(?P<word>\w+)")
_OPENINGS = (("$((", "arithmetic"), ("$(", ""), ("${", "an expansion"))
"""What begins something inside which other rules hold; the empty one begins afresh."""
_ENDS = {"arithmetic": "))", "an expansion": "}"}
_TOGGLES = {'"': "double quotes", "`": "backquotes"}
PARAM_PREFIX = "TIDEMILL_PARAM_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A `${scope.name}` in a shell line."""

    start: int
    end: int
    parts: tuple[str, ...]
    inside: str
    """What it stands in: empty for a word of its own, else `single quotes`, `a here-document`, ..."""


def shell_references(line: str) -> Iterator[Reference]:
    """Find every reference of a shell line, with what it stands in."""
    matches = list(REFERENCE.finditer(line))
    contexts = _contexts(line) if matches else []
    for match in matches:
        yield Reference(
            start=match.start(),
            end=match.end(),
            parts=tuple(match[1].split(".")),
            inside=contexts[match.start()],
        )


def render_shell(line: str, scopes: Values, *, partial: bool = False) -> str:
    """Fill the references of a shell line, each value as one word.

    Args:
        line: The line, or several.
        scopes: Values by scope, nested mappings.
        partial: Leave references to scopes that are not in `scopes` alone.

    Raises:
        TemplateError: A name is not known, or a value that needs quoting stands inside quotes.
        BadOutputs: A value has no text.
    """
    found: list[str] = []
    done = 0
    for reference in shell_references(line):
        if partial and reference.parts[0] not in scopes:
            continue
        name = ".".join(reference.parts)
        text = as_text(look_up(reference.parts, scopes), where=f"${{{name}}}")
        found += [line[done : reference.start], _word(reference, text)]
        done = reference.end
    return "".join(found) + line[done:]


def unsuitable(reference: Reference, value: object) -> bool:
    """Tell whether a value needs quoting and stands where it cannot be quoted.

    Raises:
        BadOutputs: The value has no text.
    """
    text = as_text(value, where=f"${{{'.'.join(reference.parts)}}}")
    return bool(reference.inside) and _PLAIN.fullmatch(text) is None


def _word(reference: Reference, text: str) -> str:
    if "\0" in text:
        raise TemplateError(f"${{{'.'.join(reference.parts)}}} holds a NUL character, which no command can take")
    if not reference.inside:
        return shlex.quote(text)
    if unsuitable(reference, text):
        raise TemplateError(f"the value {text[:60]!r} {misplaced(reference)}")
    return text


def misplaced(reference: Reference) -> str:
    """Say why a value cannot be put there, and what to write instead."""
    name = ".".join(reference.parts)
    if reference.parts[0] == "params":
        remedy = f"write ${{{name}}} outside of them, or use the variable ${variable(reference.parts[1])}"
    else:
        remedy = f"write ${{{name}}} outside of them, or give it as a variable: `env: {{VALUE: '${{{name}}}'}}`"
    return f"needs quoting, and ${{{name}}} stands inside {reference.inside}; {remedy}"


def variable(param: str) -> str:
    """Name of the environment variable in which commands find a parameter."""
    return f"{PARAM_PREFIX}{param.upper()}"


def param_environment(params: Mapping[str, object]) -> dict[str, str]:
    """Every parameter as a variable of the environment."""
    return {variable(name): as_text(value, where=f"parameter {name!r}") for name, value in params.items()}


def _contexts(line: str) -> list[str]:
    """Say for every character what it stands in."""
    reader = _Reader(line)
    while reader.at < len(line):
        reader.step()
    return reader.contexts


class _Reader:
    """Walks over a shell line and notes what every character stands in."""

    def __init__(self, line: str) -> None:
        self.line, self.at = line, 0
        self.contexts: list[str] = []
        self._stack: list[str] = []
        """Open quotes and expansions, the innermost last; `$(` and `(` begin afresh."""
        self._here: list[str] = []
        """Words that end the here-documents whose text begins on the next line."""

    def step(self) -> None:
        """Read what is next."""
        rest = self.line[self.at :]
        reference = REFERENCE.match(self.line, self.at)
        top = self._stack[-1] if self._stack else ""
        opened = next(((start, what) for start, what in _OPENINGS if rest.startswith(start)), None)
        if reference is not None:
            self._take(reference.end() - self.at)
        elif top == "single quotes":
            self._close(rest.startswith("'"))
        elif rest[0] == "\\":
            self._take(2)
        elif rest[0] in _TOGGLES:
            self._toggle(_TOGGLES[rest[0]])
        elif opened is not None:
            self._open(opened[1], len(opened[0]))
        elif top in _ENDS and rest.startswith(_ENDS[top]):
            self._close(True, len(_ENDS[top]))
        elif top in ("double quotes", "arithmetic"):
            self._take(1)
        else:
            self._plain(rest)

    def _plain(self, rest: str) -> None:
        """Read a character outside of double quotes."""
        here = _HERE.match(rest)
        if rest[0] == "'" and "an expansion" not in self._stack[-1:]:
            self._open("single quotes", 1)
        elif rest.startswith("<<<"):
            self._take(3)
        elif here is not None:
            self._here.append(here["word"])
            self._take(here.end() + len(here["quote"].strip("\\")))
        elif rest[0] == "\n" and self._here:
            self._here_documents()
        elif rest[0] == "#" and (self.at == 0 or self.line[self.at - 1] in " \t\n;&|("):
            end = rest.find("\n")
            self._take(len(rest) if end < 0 else end, "a comment")
        elif rest[0] == "(":
            self._open("", 1)
        elif rest[0] == ")" and self._stack and self._stack[-1] == "":
            self._close(True)
        else:
            self._take(1)

    def _here_documents(self) -> None:
        self._take(1)
        for word in self._here:
            end = re.compile(rf"^\t*{re.escape(word)}$", re.MULTILINE).search(self.line, self.at)
            self._take((end.end() if end else len(self.line)) - self.at, "a here-document")
        self._here = []

    def _inside(self) -> str:
        # Backquotes and arithmetic reach into what they hold; `$(...)` begins afresh.
        for context in reversed(self._stack):
            if context == "":
                return "backquotes" if "backquotes" in self._stack else ""
            return context
        return ""

    def _take(self, count: int, inside: str | None = None) -> None:
        context = self._inside() if inside is None else inside
        count = min(count, len(self.line) - self.at)
        self.contexts += [context] * count
        self.at += count

    def _open(self, context: str, length: int) -> None:
        self._take(length)
        self._stack.append(context)

    def _close(self, is_end: bool, length: int = 1) -> None:  # noqa: FBT001 - asked at once by the caller
        self._take(length)
        if is_end:
            self._stack.pop()

    def _toggle(self, context: str) -> None:
        if self._stack and self._stack[-1] == context:
            self._close(True)
        else:
            self._open(context, 1)
