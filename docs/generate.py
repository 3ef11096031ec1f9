"""Write the reference pages that the code itself knows: settings, every command's help, every config field.

``python docs/generate.py`` writes them; ``--check`` only says whether they are current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
from pydantic import BaseModel
from tidemill_core.cli import cli
from tidemill_core.plugins import Registry
from tidemill_core.settings import Settings, StorageOptions
from tidemill_core.variables import FILE_SUFFIX, PREFIX, declared

HERE = Path(__file__).parent / "reference"
CONFIGS: Registry[type[BaseModel]] = Registry("tidemill.config", "configuration")
_WORDS: dict[Any, str] = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", Any: "any"}
NOTE = "<!-- Written by docs/generate.py; change the code, not this page. -->\n"


def pages() -> dict[str, str]:
    """Return every generated page by file name."""
    return {"settings.md": settings_page(), "commands.md": commands_page(), "configs.md": configs_page()}


def settings_page() -> str:
    """List every `TIDEMILL_*` variable: the settings, then what each part reads or sets besides."""
    intro = (
        "Environment variables; unset means the embedded default. A `TIDEMILL_*` variable that no part declares is "
        "refused\n(exit code 3), with the nearest one there is. A secret can also be in a file, which the second name "
        "in its row gives."
    )
    lines = [NOTE, "# Settings", "", intro, "", "| variable | default | meaning |", "|---|---|---|"]
    defaults = {
        f"{PREFIX}{name.upper()}": field.default
        for model in (Settings, StorageOptions)
        for name, field in model.model_fields.items()
    }
    part = "core"
    for each, variable in sorted(declared(), key=lambda pair: pair[0] != "core"):
        if each != part:
            part = each
            lines += ["", f"## {part}", "", "| variable | default | meaning |", "|---|---|---|"]
        default = defaults.get(variable.name)
        shown = "" if default is None else f"`{default}`"
        names = f"`{variable.name}`" + (f", `{variable.name}{FILE_SUFFIX}`" if variable.is_secret else "")
        lines.append(f"| {names} | {shown} | {_cell(variable.text)} |")
    return "\n".join([*lines, ""])


def commands_page() -> str:
    """Print the help text of every command."""
    lines = [NOTE, "# Commands", ""]
    for path, command in _commands(cli, ("tidemill",)):
        context = click.Context(command, info_name=" ".join(path), max_content_width=100, terminal_width=100)
        lines += [
            f"{'#' * min(len(path) + 1, 4)} {' '.join(path)}",
            "",
            "```text",
            command.get_help(context),
            "```",
            "",
        ]
    return "\n".join(lines)


def configs_page() -> str:
    """List every field of every configuration model, from the entry points `tidemill.config`."""
    lines = [NOTE, "# Configuration files", ""]
    for name in CONFIGS.names():
        lines += [f"## {name}", ""]
        for model in _models(CONFIGS.get(name), []):
            lines += [f"### {model.__name__}", "", _cell(model.__doc__ or ""), "", "| key | type | default | meaning |"]
            lines += ["|---|---|---|---|"]
            for key, field in model.model_fields.items():
                default = "required" if field.is_required() else f"`{_default(field)!r}`"
                kind = _cell(_type(field.annotation))
                lines.append(
                    f"| `{field.alias or key}` | {kind} | {_cell(default)[:80]} | {_cell(field.description)} |"
                )
            lines.append("")
    return "\n".join(lines)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _commands(found, (*path, name))


def _models(model: Any, seen: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """List a model and the models inside it, depth first, each once."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        if model not in seen:
            seen.append(model)
            for field in model.model_fields.values():
                _models(field.annotation, seen)
    else:
        for argument in getattr(model, "__args__", ()):
            _models(argument, seen)
    return seen


def _type(annotation: Any) -> str:
    """Write a type as a reader of YAML needs it: without modules, annotations and validators."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type(each) for each in arguments if each is not NoneType))
    if origin in (dict, Mapping):
        return f"mapping of {_type(arguments[1])}"
    if origin in (list, tuple, set, frozenset, Sequence):
        return f"list of {_type(arguments[0])}"
    return _WORDS.get(annotation, getattr(annotation, "__name__", "any"))


def _default(field: Any) -> Any:
    """Take a field's default; a set, whose order changes from run to run, as a sorted list."""
    value = field.get_default(call_default_factory=True)
    return sorted(value) if isinstance(value, set | frozenset) else value


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def main() -> int:
    """Write the pages, or with ``--check`` name those that are not current."""
    stale = [name for name, text in pages().items() if not _is_current(HERE / name, text)]
    if "--check" in sys.argv:
        for name in stale:
            print(f"docs/reference/{name} is not current; run: uv run just docs")
        return bool(stale)
    HERE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (HERE / name).write_text(text, encoding="utf-8")
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
