"""The base of every Tidemill component: our own config model is the YAML schema.

A subclass names its config and builds definitions from it:

    class LoadComponent(ConfigComponent):
        '''Load files into PostgreSQL.'''

        config_type = LoadConfig
        example = {"source": "data/*.csv", "table": "raw.planes"}

        def build(self, config: LoadConfig, context: dg.ComponentLoadContext) -> dg.Definitions: ...

Templates (``{{ env.X }}``) are resolved before the values are checked, so they may stand in
a field of any type; every fault names file and line at once, with "did you mean".
"""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from dagster.components.resolved.scopes import LoadContextScope
from pydantic import BaseModel, create_model, model_validator

from tidemill_core.config import Config, Document, Place, validate
from tidemill_core.defs.component_schema import with_templates

if TYPE_CHECKING:
    from tidemill_core.config import KeyPath
    from tidemill_core.defs._dagster import SourcePositionTree

_RAW = "_raw_attributes"


RESOURCES_TYPE = "tidemill_core.ResourcesComponent"
_RESOURCES_FOLDER = "tidemill_resources"


class ExampleScaffolder(dg.Scaffolder):
    """Writes a working example: the component's `example` as its attributes, and the files that this needs.

    Beside it come the shared resources, if the component asks for some and the project has none yet.
    """

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write ``defs.yaml``, or ``component.py`` when Python was asked for."""
        module, _, name = request.type_name.rpartition(".")
        component: type[ConfigComponent] = getattr(__import__(module, fromlist=[name]), name)
        for path, text in component.example_files.items():
            file = request.target_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if component.needs_resources:
            _scaffold_resources(request.target_path.parent)
        if request.scaffold_format == "yaml":
            scaffold_component(request, dict(component.example))
            return
        attributes = dict(component.example)
        (request.target_path / "component.py").write_text(
            f"import dagster as dg\nfrom {module} import {name}\n\n\n@dg.component_instance\n"
            f"def load(context: dg.ComponentLoadContext) -> {name}:\n"
            f"    return {name}.from_attributes_dict(attributes={attributes!r}, context=context)\n",
            encoding="utf-8",
        )


def _scaffold_resources(folder: Path) -> None:
    """Write the ``defs.yaml`` of the shared resources, unless some file of the project names them."""
    root = next((each for each in (folder, *folder.parents) if each.name == "defs"), folder)
    for file in (*root.rglob("*.yaml"), *root.rglob("*.py")):
        if any(word in file.read_text(encoding="utf-8") for word in (RESOURCES_TYPE, "default_resources")):
            return
    target = root / _RESOURCES_FOLDER
    target.mkdir(exist_ok=True)
    (target / "defs.yaml").write_text(f"type: {RESOURCES_TYPE}\n\nattributes: {{}}\n", encoding="utf-8")


@dg.scaffold_with(ExampleScaffolder)
class ConfigComponent(dg.Component):
    """A component whose attributes are one of our config models.

    In Python it is made from its config (`LoadComponent(LoadConfig(...))`), from plain
    values by `from_attributes_dict`, or from a ``defs.yaml`` by Dagster.

    Args:
        config: The checked configuration.
    """

    config_type: ClassVar[type[Config]]
    """The model of the attributes."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Attributes of a working example, which `dg scaffold defs` writes."""
    example_files: ClassVar[Mapping[str, str]] = {}
    """Files that the example needs, by path beside its ``defs.yaml``."""
    needs_resources: ClassVar[bool] = False
    """Whether its assets ask for shared resources."""
    tags: ClassVar[Sequence[str]] = ()
    """Words to find the component type by."""
    produces: ClassVar[Sequence[str]] = ("asset",)
    """What it makes: asset, asset_check, schedule, sensor, job, resource."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def build(self, config: Any, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Make definitions; called with the checked config (an instance of `config_type`)."""

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build, as Dagster asks."""
        return self.build(self.config, context)

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The model of the attributes: `config_type`, checked after templates are resolved."""
        return _unchecked(cls.config_type)

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Describe the component type by its class docstring."""
        return dg.ComponentTypeSpec(description=inspect.getdoc(cls), tags=list(cls.tags), produces=list(cls.produces))

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Resolve the templates of the attributes, check them and make the component.

        Raises:
            ConfigFaults: Every fault, with its place in the YAML file.
        """
        if attributes is not None and isinstance(attributes, cls.config_type) and not hasattr(attributes, _RAW):
            return cls(attributes)
        raw = getattr(attributes, _RAW, None) or {}
        return cls(validate(_document(raw, context), cls.config_type))

    @classmethod
    def from_attributes_dict(
        cls, *, attributes: dict[str, Any], context: dg.ComponentLoadContext | None = None
    ) -> Self:
        """Make the component from what would stand under ``attributes:``.

        Raises:
            ConfigFaults: Every fault.
        """
        found = context or dg.ComponentTree.for_test().load_context
        return cls(validate(_document(attributes, found), cls.config_type))


@cache
def _unchecked(model: type[Config]) -> type[Config]:
    """Make a subclass with the same schema that takes any value, for `ConfigComponent.load` to check."""

    def keep(cls: type[Config], value: Any, _check: Callable[[Any], Config]) -> Config:
        kept = cls.model_construct()
        object.__setattr__(kept, _RAW, value)
        return kept

    def model_json_schema(cls: type[Config], *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG001
        return with_templates(model.model_json_schema(*args, **kwargs))

    validators: dict[str, Any] = {"keep": model_validator(mode="wrap")(keep)}
    made = create_model(
        model.__name__,
        __base__=model,
        __doc__=model.__doc__,
        __module__=model.__module__,
        __validators__=validators,
    )
    made.model_json_schema = classmethod(model_json_schema)  # type: ignore[method-assign, assignment]
    return made


def _document(attributes: Mapping[str, Any], context: dg.ComponentLoadContext) -> Document:
    scope: Any = LoadContextScope
    scoped = context.with_rendering_scope({"context": scope(context)}).resolution_context
    resolved = scoped.at_path("attributes").resolve_value(dict(attributes))
    tree = scoped.source_position_tree
    if tree is None:
        return Document(resolved, {}, "attributes")
    places: dict[KeyPath, Place] = {}
    _note(tree.children.get("attributes", tree), (), places)
    return Document(resolved, places, tree.position.filename)


def _note(tree: "SourcePositionTree", path: "KeyPath", places: "dict[KeyPath, Place]") -> None:
    start = tree.position.start
    places[path] = Place(tree.position.filename, start.line, start.col)
    for key, child in tree.children.items():
        _note(child, (*path, key), places)
