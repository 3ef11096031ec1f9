"""Give a package its public names without importing the modules that hold them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from tidemill_core.extras import needs_extra


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make a package's ``__getattr__`` and ``__dir__`` (PEP 562): a name is imported when it is first used.

    A library that is not installed is an error that names its extra.

    Args:
        package: The package's ``__name__``.
        homes: Names by the submodule that holds them.

    Example:
        >>> get, names = lazy_names("json", {"decoder": ["JSONDecodeError"]})
        >>> get("JSONDecodeError").__name__
        'JSONDecodeError'
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needs_extra():
            value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
