"""Parse YAML and JSON to plain values, and remember where each one stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tidemill_core.config.document import ConfigFault, ConfigFaults, Document, KeyPath, Place, dotted

MAX_VALUES = 250_000
"""A document with more values than this (usually aliases of aliases) is refused."""

_VARIABLE = re.compile(r"\$(\$(?=\{))?(?:\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_JSON_ESCAPE = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)
_MERGE = "tag:yaml.org,2002:merge"
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]  # libyaml's where it is built in, else Python's
    """Resolves plain scalars by the YAML 1.2 core schema, so that ``NO``, ``12:30`` and dates stay texts."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the base class's own way


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+0123456789."),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
    ("merge", r"<<", "<"),
):
    _letters = ["", *_first] if _tag == "null" else list(_first)
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _letters)


def parse(text: str, *, file: str, env: Mapping[str, str] | None) -> list[Document]:
    """Parse every document of a text; see `tidemill_core.config.parse_documents`.

    Raises:
        ConfigFaults: The text cannot be parsed, gives a key twice, or names an unset variable.
    """
    is_json = file.endswith(".json")
    if is_json:
        _check_json(text, file)
        text = _as_yaml(text)
    faults: list[ConfigFault] = []
    documents = []
    try:
        loader = _Loader(text)
        while loader.check_node():
            walk = _Walk(file, env, faults, loader, is_json=is_json)
            value = walk.build(loader.get_node(), ())
            if value is not None:
                documents.append(Document(value, walk.places, file))
    except yaml.YAMLError as error:
        raise ConfigFaults([*faults, _syntax_fault(error, text, file)]) from error
    except RecursionError as error:
        raise ConfigFaults([ConfigFault(Place(file), "", "nested too deeply")]) from error
    if faults:
        raise ConfigFaults(faults)
    return documents


def _check_json(text: str, file: str) -> None:
    """Refuse what is no JSON, with the JSON parser's own words and place."""
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = Place(file, error.lineno, error.colno)
        raise ConfigFaults([ConfigFault(place, "", f"not JSON: {error.msg}")]) from error
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigFaults([ConfigFault(Place(file), "", f"not JSON: {reason}")]) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _as_yaml(text: str) -> str:
    """Write JSON so that a YAML parser reads the same: no tabs between tokens, no surrogate pairs."""

    def joined(match: re.Match[str]) -> str:
        high, low = match.groups()
        if high is None:
            return match[0]
        return f"\\U{0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00):08X}"

    return _JSON_ESCAPE.sub(joined, text.replace("\t", " "))


def _syntax_fault(error: yaml.YAMLError, text: str, file: str) -> ConfigFault:
    if not isinstance(error, yaml.MarkedYAMLError):
        at = getattr(error, "position", 0)
        place = Place(file, text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
        return ConfigFault(place, "", f"not YAML: {getattr(error, 'reason', error)}")
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return ConfigFault(place, "", "not YAML: a tab in the indentation; indent with spaces")
    return ConfigFault(place, "", f"not YAML: {error.problem or error.context}")


class _Walk:
    """Builds plain values from YAML nodes and notes where each one stands."""

    def __init__(
        self, file: str, env: Mapping[str, str] | None, faults: list[ConfigFault], loader: Any, *, is_json: bool
    ) -> None:
        self.file, self.env, self.faults, self.loader, self.is_json = file, env, faults, loader, is_json
        self.places: dict[KeyPath, Place] = {}
        self._own: dict[int, set[int]] = {}
        self._open: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        """Build the value of `node`, and note its place under `path`."""
        self.places[path] = place = self._place(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place, path)
        if id(node) in self._open:
            raise yaml.MarkedYAMLError(problem="an alias refers to what it stands in", problem_mark=node.start_mark)
        if len(self.places) > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES} values", problem_mark=node.start_mark)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if node.tag != "tag:yaml.org,2002:seq":
                return self.loader.construct_object(node)
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _scalar(self, node: yaml.ScalarNode, place: Place, path: KeyPath) -> Any:
        if self.is_json and node.style is None:
            return json.loads(node.value)
        try:
            value = self.loader.construct_object(node)
        except ValueError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
        if isinstance(value, str) and "$" in value and self.env is not None:
            return self._interpolate(value, self.env, place, path)
        return value

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[Any, Any]:
        own = self._own.setdefault(id(node), {id(key) for key, _ in node.value if key.tag != _MERGE})
        self.loader.flatten_mapping(node)
        values: dict[Any, Any] = {}
        seen: set[Any] = set()
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if id(key_node) in own:
                if key in seen:
                    fault = ConfigFault(self._place(key_node), dotted((*path, key)), "this key is given twice")
                    self.faults.append(fault)
                seen.add(key)
            values[key] = self.build(value_node, (*path, key))
            if not isinstance(value_node, yaml.ScalarNode):
                self.places[(*path, key)] = self._place(key_node)
        return values

    def _key(self, node: yaml.Node) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.MarkedYAMLError(
                problem="a key must be a plain value, not a list or mapping", problem_mark=node.start_mark
            )
        return self.loader.construct_object(node)

    def _interpolate(self, value: str, env: Mapping[str, str], place: Place, path: KeyPath) -> str:
        def replace(match: re.Match[str]) -> str:
            escaped, name, default = match.groups()
            if escaped:
                return match[0][1:]
            if name is None:
                return match[0]
            found = env.get(name)
            if default is not None:
                return found or str(default)
            if found is None:
                reason = f"environment variable {name} is not set and has no default"
                self.faults.append(ConfigFault(place, dotted(path), reason))
            return found or ""

        return _VARIABLE.sub(replace, value)
