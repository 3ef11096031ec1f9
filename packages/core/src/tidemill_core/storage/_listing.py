"""Read XML listings and answers of object stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from tidemill_core.storage.errors import StoreUnavailable


class Xml:
    """One element, found by local names whatever its namespace."""

    __slots__ = ("_element", "_space")

    def __init__(self, element: ET.Element) -> None:
        self._element = element
        self._space = element.tag[: element.tag.index("}") + 1] if element.tag[:1] == "{" else ""

    @property
    def name(self) -> str:
        """The element's local name."""
        return self._element.tag[len(self._space) :]

    def text(self, name: str, default: str = "") -> str:
        """Text of the first child called `name`."""
        return self._element.findtext(self._space + name) or default

    def has(self, name: str) -> bool:
        """Tell whether there is a child called `name`."""
        return self._element.find(self._space + name) is not None

    def children(self, name: str) -> Iterator[Xml]:
        """Every child called `name`."""
        return map(Xml, self._element.iterfind(self._space + name))

    def child(self, name: str) -> Xml | None:
        """The first child called `name`."""
        found = self._element.find(self._space + name)
        return None if found is None else Xml(found)

    def rows(self, name: str, fields: Sequence[str]) -> Iterator[list[str]]:
        """For every child called `name`, the texts of its own children `fields`; a missing one is empty."""
        tags = [self._space + field for field in fields]
        for element in self._element.iterfind(self._space + name):
            find = element.findtext
            yield [find(tag) or "" for tag in tags]

    def attribute(self, name: str) -> str | None:
        """One attribute."""
        return self._element.get(name)

    def own_text(self) -> str:
        """This element's text."""
        return self._element.text or ""


def parse(body: bytes, store_url: str, doing: str) -> Xml:
    """Read an answer; a truncated one, or an error inside a 200, may be asked for again.

    Raises:
        StoreUnavailable: The body is not XML, or is an error.
    """
    try:
        root = Xml(ET.fromstring(body))  # noqa: S314 - see the import
    except ET.ParseError as error:
        raise StoreUnavailable(store_url, doing, f"its answer is not XML ({error})", is_unclear=True) from error
    if root.name == "Error":
        reason = f"{root.text('Code')} {root.text('Message')}"
        raise StoreUnavailable(store_url, doing, reason.strip(), is_unclear=True)
    return root
