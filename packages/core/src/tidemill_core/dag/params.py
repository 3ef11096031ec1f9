"""Turn parameters given as text into values of their types, and refuse wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from tidemill_core.dag.spec import ParamSpec
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import did_you_mean

_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "date": (str, date),
    "list": (list, tuple),
}


def check_value(spec: ParamSpec, value: Any) -> Any:
    """Return `value` if it is of the parameter's type and one of its choices.

    Raises:
        ValueError: Says what was expected.
    """
    wrong_bool = isinstance(value, bool) and spec.type != "bool"
    if wrong_bool or not isinstance(value, _TYPES[spec.type]):
        raise ValueError(f"{value!r} is not of type {spec.type}")
    if spec.type == "date":
        try:
            value = date.fromisoformat(str(value)).isoformat()
        except ValueError as error:
            raise ValueError(f"{value!r} is not a date (YYYY-MM-DD)") from error
    if spec.choices and value not in spec.choices:
        raise ValueError(f"{value!r} is not one of {', '.join(map(str, spec.choices))}")
    return list(value) if spec.type == "list" else value


def parse_text(spec: ParamSpec, text: str) -> Any:
    """Read a value written on a command line.

    Raises:
        ValueError: The text is no value of the parameter's type.
    """
    if spec.type == "bool":
        if text.lower() not in _WORDS:
            raise ValueError(f"{text!r} is not a bool (true or false)")
        return check_value(spec, _WORDS[text.lower()])
    if spec.type in ("int", "float"):
        try:
            return check_value(spec, int(text) if spec.type == "int" else float(text))
        except ValueError as error:
            raise ValueError(f"{text!r} is not {'an int' if spec.type == 'int' else 'a float'}") from error
    if spec.type == "list":
        return check_value(spec, [part.strip() for part in text.split(",")] if text else [])
    return check_value(spec, text)


def bind(specs: Mapping[str, ParamSpec], given: Mapping[str, Any], *, dag: str) -> dict[str, Any]:
    """Give every parameter its value: the one given (text or typed), else its default.

    Raises:
        ConfigError: A name is unknown, a value is wrong, or a required one is missing.
    """
    values: dict[str, Any] = {}
    for name in given:
        if name not in specs:
            raise ConfigError(f"DAG {dag!r} has no parameter {name!r}{did_you_mean(name, list(specs))}")
    for name, spec in specs.items():
        try:
            if name in given:
                value = given[name]
                values[name] = parse_text(spec, value) if isinstance(value, str) else check_value(spec, value)
            elif spec.default is None:
                raise ValueError("it has no default; give it with --param or in the run's configuration")
            else:
                values[name] = check_value(spec, spec.default)
        except ValueError as error:
            raise ConfigError(f"parameter {name!r} of DAG {dag!r}: {error}") from error
    return values
