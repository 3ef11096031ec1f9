"""A component's YAML schema is our config model; templates come first; faults name file and line."""

import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster.components.core.component_tree import ComponentTreeException
from dagster.components.testing import create_defs_folder_sandbox
from pydantic import Field, SecretStr
from tidemill_core.config import Config, ConfigFaults
from tidemill_core.defs import ConfigComponent

MODULE = '''
import dagster as dg
from pydantic import Field, SecretStr
from tidemill_core.config import Config
from tidemill_core.defs import ConfigComponent

class Column(Config):
    name: str
    """Name of the column."""

class LoadConfig(Config):
    """What to load."""
    table: str = Field(pattern=r"^[a-z_.]+$")
    """Where to."""
    batch_rows: int = Field(default=10, gt=0)
    """Rows of a batch."""
    columns: tuple[Column, ...] = ()
    """Which columns."""
    password: SecretStr | None = None
    """A secret."""

class LoadComponent(ConfigComponent):
    """Load a table.

    It does so at once.
    """

    config_type = LoadConfig
    example = {"table": "raw.planes", "columns": [{"name": "tailnum"}]}
    tags = ("load",)

    def build(self, config: LoadConfig, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[dg.AssetSpec(config.table.split("."), metadata={"rows": config.batch_rows})])
'''


@pytest.fixture
def load_component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "loads_for_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    import loads_for_test

    yield loads_for_test.LoadComponent
    sys.modules.pop("loads_for_test")


def loaded(component: Any, text: str) -> tuple[Any, dg.Definitions]:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=component)
        (path / "defs.yaml").write_text(text)
        with sandbox.load_component_and_build_defs(defs_path=path) as found:
            return found


def faults(component: Any, text: str) -> list[str]:
    with pytest.raises(ComponentTreeException) as caught:
        loaded(component, text)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, ConfigFaults):
        error = error.__cause__ or error.__context__
    assert isinstance(error, ConfigFaults)
    return [f"{Path(f.place.file).name}:{f.place.line}: {f.key}: {f.message}" for f in error.faults]


def test_attributes_build_definitions(load_component: Any) -> None:
    component, defs = loaded(
        load_component, "type: loads_for_test.LoadComponent\nattributes:\n  table: raw.planes\n  batch_rows: 5\n"
    )

    assert component.config.batch_rows == 5
    (spec,) = defs.resolve_all_asset_specs()
    assert (spec.key.to_user_string(), spec.metadata["rows"]) == ("raw/planes", 5)


def test_templates_stand_in_fields_of_any_type_and_inside_bounds(
    load_component: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH", "7")
    monkeypatch.setenv("PW", "hush")

    component, _ = loaded(
        load_component,
        "type: loads_for_test.LoadComponent\nattributes:\n  table: \"raw.{{ 'plan' ~ 'es' }}\"\n"
        "  batch_rows: '{{ env.BATCH }}'\n  password: '{{ env.PW }}'\n  columns: \"{{ [{'name': 'a'}] }}\"\n",
    )

    assert (component.config.table, component.config.batch_rows) == ("raw.planes", 7)
    assert component.config.password.get_secret_value() == "hush"
    assert component.config.columns[0].name == "a"


def test_every_fault_names_file_and_line_and_the_nearest_key(load_component: Any) -> None:
    text = (
        "type: loads_for_test.LoadComponent\nattributes:\n  table: RAW\n  batch_rows: 0\n"
        "  columns:\n    - nam: x\n  batch_row: 3\n"
    )

    assert faults(load_component, text) == [
        "defs.yaml:3: table: String should match pattern '^[a-z_.]+$'",
        "defs.yaml:4: batch_rows: Input should be greater than 0",
        "defs.yaml:6: columns[0].name: this key is required",
        "defs.yaml:6: columns[0].nam: unknown key; did you mean 'name'?",
        "defs.yaml:7: batch_row: unknown key; did you mean 'batch_rows'?",
    ]


def test_a_fault_after_templating_is_told_without_the_value(
    load_component: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH", "hush")
    text = "type: loads_for_test.LoadComponent\nattributes:\n  table: raw.x\n  batch_rows: '{{ env.BATCH }}'\n"

    (fault,) = faults(load_component, text)

    assert fault.startswith("defs.yaml:4: batch_rows: Input should be a valid integer")
    assert "hush" not in fault


def test_no_attributes_at_all_are_checked_too(load_component: Any) -> None:
    (fault,) = faults(load_component, "type: loads_for_test.LoadComponent\n")

    assert fault.endswith("table: this key is required")


def test_each_document_of_a_file_is_a_component_of_its_own(load_component: Any) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=load_component)
        one = "type: loads_for_test.LoadComponent\nattributes:\n  table: raw.{}\n"
        (path / "defs.yaml").write_text(one.format("a") + "---\n" + one.format("b"))
        with sandbox.build_all_defs() as defs:
            keys = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}

    assert keys == {"raw/a", "raw/b"}


def test_the_schema_is_that_of_the_config_model_where_a_template_may_stand_for_any_value(load_component: Any) -> None:
    from jsonschema import Draft202012Validator

    schema = load_component.get_model_cls().model_json_schema()
    check = Draft202012Validator(schema)

    assert issubclass(load_component.get_model_cls(), load_component.config_type)
    assert schema["properties"]["batch_rows"]["description"] == "Rows of a batch."
    assert check.is_valid({"table": "raw.x", "batch_rows": 3, "columns": [{"name": "a"}]})
    assert check.is_valid({"table": "{{ env.TABLE }}", "batch_rows": "{{ env.N }}", "columns": ["{{ column }}"]})
    assert check.is_valid({"table": "raw.x", "columns": "{{ columns() }}"})
    assert not check.is_valid({"table": "RAW", "batch_rows": 3})
    assert not check.is_valid({"table": "raw.x", "batch_rows": "three"})
    assert not check.is_valid({"table": "raw.x", "columns": [{"nam": "a"}]})
    assert not check.is_valid({"table": "raw.x", "tabel": "raw.x"})


def test_the_type_is_described_by_its_docstring(load_component: Any) -> None:
    spec = load_component.get_spec()

    assert spec.description == "Load a table.\n\nIt does so at once."
    assert (list(spec.tags), list(spec.produces)) == (["load"], ["asset"])


def test_plain_values_and_a_config_make_the_same_component(load_component: Any) -> None:
    from_dict = load_component.from_attributes_dict(attributes={"table": "raw.{{ 'x' }}"})
    direct = load_component(load_component.config_type(table="raw.x"))

    assert from_dict.config == direct.config
    with pytest.raises(ConfigFaults, match="tabel: unknown key; did you mean 'table'"):
        load_component.from_attributes_dict(attributes={"tabel": "raw.x"})


@pytest.mark.parametrize("form", ["yaml", "python"])
def test_a_scaffolded_component_works_as_it_is(load_component: Any, form: Any) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=load_component, scaffold_format=form)
        if form == "yaml":
            attributes = yaml.safe_load((path / "defs.yaml").read_text())["attributes"]
            assert attributes == load_component.example
        with sandbox.build_all_defs() as defs:
            keys = [spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()]

    assert keys == ["raw/planes"]


def test_the_base_class_is_no_component_type_of_its_own() -> None:
    from dagster.components.core.package_entry import get_package_objects_in_module
    from tidemill_core import defs

    names = [name for name, _ in get_package_objects_in_module(defs)]

    assert "ConfigComponent" not in names
    assert "DagComponent" in names


def test_a_component_class_in_a_test_needs_no_module() -> None:
    class Small(Config):
        n: int = Field(default=1, gt=0)
        secret: SecretStr | None = None

    class SmallComponent(ConfigComponent):
        """Small."""

        config_type = Small

        def build(self, config: Small, context: dg.ComponentLoadContext) -> dg.Definitions:
            return dg.Definitions(assets=[dg.AssetSpec(f"a{config.n}")])

    component = SmallComponent.from_attributes_dict(attributes={"n": "{{ 2 }}"})

    defs = component.build_defs(dg.ComponentTree.for_test().load_context)
    assert [spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()] == ["a2"]
