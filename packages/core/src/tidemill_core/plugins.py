"""Find extensions through entry points, and load one only when it is asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar, Union, cast, get_args

from tidemill_core.errors import PluginError
from tidemill_core.extras import missing_extra

if TYPE_CHECKING:
    from pydantic import BaseModel

T = TypeVar("T")


class Registry(Generic[T]):
    """The extensions of one kind, by name.

    Names come from installed entry points (nothing is imported to list them) and
    from `register`, which tests and notebooks use.

    Args:
        group: Entry-point group, such as ``tidemill.storage``.
        kind: What one extension is called in messages, such as ``object store``.

    An extension is what opens or makes a thing: a function or a class. One with settings of its own
    carries their model as the attribute ``config_type``, with a field ``type: Literal["name"]``.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group, self.kind = group, kind
        self._registered: dict[str, T] = {}
        self._found: dict[str, list[EntryPoint]] | None = None

    def names(self) -> list[str]:
        """List every known name, sorted."""
        return sorted({*self._entry_points(), *self._registered})

    def register(self, name: str, extension: T) -> None:
        """Add an extension for this process; it wins over an entry point of that name."""
        self._registered[name] = extension

    def get(self, name: str) -> T:
        """Load the extension called `name`.

        Raises:
            PluginError: The name is unknown, claimed by two, or its module cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        points = self._entry_points().get(name)
        if points is None:
            raise PluginError(f"unknown {self.kind} {name!r}{did_you_mean(name, self.names())}")
        if len({point.value for point in points}) > 1:
            values = " and ".join(f"{point.value} of {point.dist.name if point.dist else '?'}" for point in points)
            raise PluginError(f"{self.kind} {name!r} is claimed by {values}; uninstall one, or register() your choice")
        found = points[0]
        try:
            extension = cast("T", found.load())
        except ModuleNotFoundError as error:
            reason = missing_extra(error) or f"{error}; is its extra installed?"
            raise PluginError(f"{self.kind} {name!r} ({found.value}) cannot be loaded: {reason}") from error
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{self.kind} {name!r} ({found.value}) cannot be loaded: {error}") from error
        self._registered[name] = extension
        return extension

    def config_types(self) -> dict[str, type[BaseModel]]:
        """Collect the settings models of the extensions that have some: their attribute ``config_type``.

        An extension that cannot be loaded (its extra is not installed) is left out; using it says why.

        Returns:
            Models by the name of the extension.

        Raises:
            PluginError: A model has no field ``type: Literal["name"]`` of its extension's name.
        """
        found: dict[str, type[BaseModel]] = {}
        for name in self.names():
            try:
                model = getattr(self.get(name), "config_type", None)
            except PluginError:
                continue
            if model is not None:
                self._check_config_type(name, model)
                found[name] = model
        return found

    def _check_config_type(self, name: str, model: type[BaseModel]) -> None:
        field = model.model_fields.get("type")
        if field is None or name not in get_args(field.annotation):
            raise PluginError(
                f"{self.kind} {name!r}: its config_type {model.__module__}.{model.__qualname__} needs the field "
                f'`type: Literal["{name}"]`, which tells its settings from those of others'
            )

    def config_union(self) -> Any:
        """Make the type of a field that holds the settings of any one extension, told apart by ``type``.

        A configuration class that uses it knows every installed extension, also a stranger's: its values are
        checked with their place in the file, and the JSON schema lists it.

        Raises:
            PluginError: No extension has settings, or a model lacks its ``type``.
        """
        models = tuple(self.config_types().values())
        if not models:
            raise PluginError(f"no {self.kind} with settings of its own is installed")
        if len(models) == 1:
            return models[0]
        from pydantic import Field

        return Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007 - made at run time

    def _entry_points(self) -> dict[str, list[EntryPoint]]:
        if self._found is None:
            found: dict[str, list[EntryPoint]] = {}
            for point in entry_points(group=self.group):
                found.setdefault(point.name, []).append(point)
            self._found = found  # only when whole: other threads read it without a lock
        return self._found


def did_you_mean(name: str, known: list[str]) -> str:
    """Finish a message about an unknown name with the nearest known one, or with all of them."""
    near = get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""
