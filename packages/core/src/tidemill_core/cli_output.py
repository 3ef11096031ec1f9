"""What commands print, and how they refuse a number: the same in every group.

Results go to stdout. ``--json`` prints one document, indented; what comes bit by bit
is one line of JSON each (NDJSON). Without it, rows are a table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import click

from tidemill_core.errors import ConfigError

if TYPE_CHECKING:
    from tidemill_core.config import Config

    _Number = click.ParamType[int]
else:
    _Number = click.ParamType  # generic from click 8.4 on only


def emit(rows: Any, *, as_json: bool, empty: str = "nothing") -> None:
    """Print a result: a JSON document, or a table of its rows.

    Args:
        rows: Mappings, or results that have `as_dict`; for JSON any plain value.
        as_json: Whether ``--json`` was given.
        empty: The line for no rows at all; JSON prints an empty list.

    Example:
        >>> emit([{"table": "raw.planes", "rows": 3322}], as_json=False)
        table       rows
        raw.planes  3322
        >>> emit([], as_json=False, empty="nothing is loaded yet")
        nothing is loaded yet
    """
    if as_json:
        click.echo(json.dumps(plain(rows), indent=2, default=_text))
        return
    if not rows:
        click.echo(empty)
        return
    _table([plain(row) for row in rows])


def emit_line(row: Any) -> None:
    """Print one row of a stream as one line of JSON.

    Example:
        >>> emit_line({"key": "a", "bytes": 3})
        {"key": "a", "bytes": 3}
    """
    click.echo(json.dumps(plain(row), default=_text))


def plain(value: Any) -> Any:
    """Turn results into mappings of plain values: by their `as_dict`, or field by field."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def _text(value: Any) -> str:
    """Write what JSON has no form for: instants and dates by ISO 8601, else the value's text."""
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print aligned columns; a terminal's width wraps them, a pipe never does."""
    texts = [{name: _cell(row.get(name)) for name in rows[0]} for row in rows]
    if sys.stdout.isatty():
        _rich_table(texts)
        return
    widths = {name: max(len(name), *(len(row[name]) for row in texts)) for name in texts[0]}
    for row in ({name: name for name in widths}, *texts):
        click.echo("  ".join(row[name].ljust(width) for name, width in widths.items()).rstrip())


def _rich_table(texts: Sequence[Mapping[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*texts[0], box=None, pad_edge=False)
    for row in texts:
        table.add_row(*map(Text, row.values()))
    Console().print(table)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def schema_command(model: Callable[[], type[Config]]) -> click.Command:
    """Build the command `schema` of a group: the JSON Schema of its configuration, for editors.

    Args:
        model: Imports and answers the configuration's model; called when the command runs.
    """

    @click.command("schema", help="Print the JSON Schema of the configuration, for editors.")
    def schema() -> None:
        click.echo(json.dumps(model().model_json_schema(), indent=2))

    return schema


class Bounded(_Number):
    """A whole number of an option whose bounds are judged as a configuration's: exit code 3.

    Args:
        low: The smallest that is allowed.
        high: The largest that is allowed; None for no limit.
    """

    name = "integer"

    def __init__(self, low: int, high: int | None = None) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number.

        Raises:
            ConfigError: It is out of bounds.
        """
        number = int(click.INT.convert(value, param, ctx))
        if number < self.low:
            raise self._refused(param, f"greater than or equal to {self.low}")
        if self.high is not None and number > self.high:
            raise self._refused(param, f"less than or equal to {self.high}")
        return number

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Show the bounds in the help text."""
        del param, ctx
        return f"INTEGER >= {self.low}" if self.high is None else f"INTEGER {self.low}..{self.high}"

    @staticmethod
    def _refused(param: click.Parameter | None, bound: str) -> ConfigError:
        # The words of a configuration's fault, for it is the same mistake.
        return ConfigError(f"options: {param.name if param else 'value'}: Input should be {bound}")
