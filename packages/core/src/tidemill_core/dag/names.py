"""Names and values that Dagster takes: what it refuses is refused when the file is checked, at its line.

Each function returns its value, or raises a ValueError that says what is allowed. Texts with `${...}` are
checked when their copies are made. The rules are those of Dagster 1.13: ``_core/definitions/utils.py``
(names, groups, owners), ``op_definition.py`` (pools), ``_utils/tags.py`` (tags, kinds) and
``partitions/utils/base.py`` (partition keys).
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

_RESERVED = frozenset(
    {
        *("context", "conf", "config", "meta", "arg_dict", "dict", "input_arg_dict", "output_arg_dict"),
        *("int", "str", "float", "bool", "input", "output", "type"),
        *keyword.kwlist,
    }
)
_GROUP = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")
_EMAIL = re.compile(r"\b[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z|]{2,7}\b")
_TEAM = re.compile(r"team:.+", re.DOTALL)
_TAG_PART = r"[A-Za-z0-9_.-]{1,63}"
_TAG_KEY = re.compile(rf"({_TAG_PART}/|dagster/kind/)?{_TAG_PART}")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}")
_KIND = re.compile(_TAG_PART)
_KEY_PART = re.compile(r"[A-Za-z0-9_.-]+")
"""Dagster takes any text in a key, but names inputs and outputs after it."""
_NOT_IN_PARTITION = ("...", "\a", "\b", "\f", "\n", "\r", "\t", "\v", "\0")
_WHOLE_NUMBERS = ("dagster/priority", "dagster/max_retries", "dagster/max_runtime")
"""Tags that Dagster reads as whole numbers, when the run goes on already."""
PARTITION_FORMATS = {"hourly": "%Y-%m-%d-%H:%M"}
DAY_FORMAT = "%Y-%m-%d"


def _is_open(text: str) -> bool:
    return "${" in text


def check_job(name: str) -> str:
    """Check the name of a DAG, which is that of its job."""
    if name in _RESERVED:
        raise ValueError(f"{name!r} is a word that Dagster or Python keeps for itself; use another, such as {name}_dag")
    if name.startswith("__"):
        raise ValueError(f"{name!r}: names that begin with two underscores are Dagster's own")
    return name


def check_group(text: str | None) -> str | None:
    """Check the name of an asset group."""
    if text is not None and not _GROUP.fullmatch(text):
        raise ValueError(f"{text!r} is no group: letters, digits and _ expected, with / between parts")
    return text


def check_pool(text: str | None) -> str | None:
    """Check the name of a concurrency pool."""
    if text is not None and not _is_open(text) and not re.fullmatch(r"\S+", text):
        raise ValueError(f"{text!r} is no pool: a name without blanks expected")
    return text


def check_owner(text: str) -> str:
    """Check the owner of an asset."""
    if not _EMAIL.fullmatch(text) and not _TEAM.fullmatch(text):
        raise ValueError(f"{text!r} is no owner: an e-mail address, or team:name, expected")
    return text


def check_kind(text: str) -> str:
    """Check a technology that is shown on an asset."""
    if not _KIND.fullmatch(text):
        raise ValueError(f"{text!r} is no kind: at most 63 letters, digits, _ - . expected")
    return text


def check_key(key: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
    """Check an asset key: text with `/` between its parts, or the parts."""
    if key is None:
        return None
    parts = key.split("/") if isinstance(key, str) else key
    wrong = next((part for part in parts if not _KEY_PART.fullmatch(part) and not _is_open(part)), None)
    if wrong is not None or not parts:
        raise ValueError(f"{key!r} is no asset key: letters, digits, _ - . expected in each part, not {wrong!r}")
    return key


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """Check tags of a run or a step."""
    for key, value in tags.items():
        if not _is_open(key) and not _TAG_KEY.fullmatch(key):
            raise ValueError(f"tag {key!r}: at most 63 letters, digits, _ - . expected, and one namespace before a /")
        if key.startswith(".dagster/"):
            raise ValueError(f"tag {key!r} is Dagster's own")
        if key in _WHOLE_NUMBERS and not _is_open(value) and not re.fullmatch(r"-?\d{1,9}", value):
            raise ValueError(f"tag {key}: {value!r} is no whole number")
    return tags


def check_partition_keys(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Check a fixed list of partition keys."""
    for index, key in enumerate(keys):
        wrong = next((each for each in _NOT_IN_PARTITION if each in key), None)
        if wrong is not None:
            raise ValueError(f"partition key {key!r} must not hold {wrong!r}")
        if not key:
            raise ValueError("a partition key must not be empty")
        if key in keys[:index]:
            raise ValueError(f"partition key {key!r} is there twice")
    return keys


def check_partition_time(text: str, kind: str) -> datetime:
    """Read the start or end of time partitions of a kind (hourly, daily, weekly, monthly)."""
    wanted = PARTITION_FORMATS.get(kind, DAY_FORMAT)
    try:
        return datetime.strptime(text, wanted)  # noqa: DTZ007 - the time zone stands beside it
    except ValueError as error:
        example = "2013-01-01-00:00" if kind in PARTITION_FORMATS else "2013-01-01"
        raise ValueError(f"{text!r} is no time of {kind} partitions; write {example}") from error


Group = Annotated[str, AfterValidator(check_group)]
Pool = Annotated[str, AfterValidator(check_pool)]
Owner = Annotated[str, AfterValidator(check_owner)]
KindName = Annotated[str, AfterValidator(check_kind)]
AssetKeyText = Annotated[str | tuple[str, ...], AfterValidator(check_key)]
Tags = Annotated[dict[str, str], AfterValidator(check_tags)]
