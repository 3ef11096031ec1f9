"""Read the elements of a JSON array one by one, however long the array is."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator

_SPACE = re.compile(r"[ \t\r\n]*")
READ_CHARS = 1 << 20
"""Text kept ahead of an element; doubled for as long as an element does not end within it."""
MAX_CHARS = 1 << 29
"""An element that is longer is refused: PostgreSQL would not take it, and a broken one would be read to the end."""

LONGEST_TAIL = 400
"""Characters of a number's fraction and exponent; a double has no more."""


def elements(parts: Iterable[bytes], *, read_chars: int = READ_CHARS) -> Iterator[bytes]:
    """Yield the text of every element of the one array in `parts`.

    Args:
        parts: The array, in pieces of any size; the first begins with ``[`` or space before it.
        read_chars: Characters to have at hand before an element is looked for.

    Raises:
        ValueError: It is no JSON array, ends too soon, or something follows it.
    """
    text = _Text(parts, read_chars)
    text.expect("[", "an array")
    if text.skip_space() == "]":
        text.take(1)
    else:
        yield text.element(0)
        count = 1
        while text.skip_space() == ",":
            text.take(1)
            text.skip_space()
            yield text.element(count)
            count += 1
        text.expect("]", f"`,` or `]` behind element {count - 1}")
    if text.skip_space():
        raise ValueError("something follows the end of the array")


class _Text:
    """A window over decoded text that moves forward."""

    def __init__(self, parts: Iterable[bytes], read_chars: int) -> None:
        self._parts, self._read_chars = iter(parts), read_chars
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._find = json.JSONDecoder().raw_decode
        self._window, self._at, self._ended = "", 0, False

    def take(self, count: int) -> str:
        """Answer characters and move past them."""
        taken = self._window[self._at : self._at + count]
        self._at += count
        return taken

    def skip_space(self) -> str:
        """Move to the next character that is no space and show it; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._window, self._at).end()  # type: ignore[union-attr]  # it matches nothing too
            if self._at < len(self._window) or not self._fill(1):
                return self._window[self._at : self._at + 1]

    def expect(self, character: str, what: str) -> None:
        """Move past a character.

        Raises:
            ValueError: Another one stands there, or nothing.
        """
        if self.skip_space() != character:
            raise ValueError(f"{what} is expected, not {self._shown()}")
        self.take(1)

    def element(self, number: int) -> bytes:
        """Answer the text of the value that begins here, and move past it."""
        wanted = self._read_chars
        while True:
            end = self._end()
            if end is not None and (self._ended or not self._may_go_on(end)):
                return self.take(end - self._at).encode()
            if self._ended:
                raise ValueError(f"element {number} is no JSON value, or ends too soon: {self._shown()}")
            if wanted >= MAX_CHARS:
                raise ValueError(f"element {number} has no end within {MAX_CHARS} characters: {self._shown()}")
            # only now, and by doubling: text is copied a few times in all, not once an element
            self._fill(wanted)
            wanted *= 2

    def _may_go_on(self, end: int) -> bool:
        """Tell whether a number may go on in the next part: ``12.`` is read as 12 before its 5 has come."""
        following = self._window[end : end + LONGEST_TAIL]
        return len(following) < LONGEST_TAIL and not following.strip("0123456789.eE+-")

    def _end(self) -> int | None:
        try:
            _, end = self._find(self._window, self._at)
        except ValueError:
            return None
        return int(end)

    def _fill(self, count: int) -> bool:
        """Have `count` characters at hand, if there are as many; tells whether some are."""
        parts, have = [self._window[self._at :]], len(self._window) - self._at
        while have < count and not self._ended:
            part = next(self._parts, None)
            self._ended = part is None
            decoded = self._decode.decode(part or b"", final=self._ended)
            parts.append(decoded)
            have += len(decoded)
        if len(parts) > 1:
            self._window, self._at = "".join(parts), 0
        return self._at < len(self._window)

    def _shown(self) -> str:
        return repr(self._window[self._at : self._at + 40]) if self._at < len(self._window) else "the end"
