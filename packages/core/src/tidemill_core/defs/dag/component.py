"""`tidemill_core.DagComponent`: a DAG inside a `defs.yaml`, or the DAG files it points to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tidemill_core.config import ConfigFault, ConfigFaults, Document
from tidemill_core.dag.load import LoadedDag, load_dags, loaded_dag
from tidemill_core.dag.spec import DagSpec, Identifier
from tidemill_core.defs.component import _RAW, ConfigComponent, _document
from tidemill_core.defs.dag.jobs import build_dag
from tidemill_core.settings import Settings


class DagAttributes(DagSpec):
    """A DAG written in place, or the files that hold it."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["name"]}, {"required": ["file"]}]})

    # The default is no identifier: it stands for "the files say it".
    name: Identifier = Field(default="", validate_default=False)
    """Name of the DAG and of its Dagster job; required unless `file` is given."""
    file: str | None = None
    """A DAG file, or a folder of them, relative to this one; then nothing else is given."""

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if not self.name and self.file is None:
            raise ValueError("give `name` and `tasks`, or the `file` that holds them")
        return self


class DagComponent(ConfigComponent):
    """A DAG of commands, callables and components: assets, their checks, and one job."""

    config_type = DagAttributes
    example: ClassVar[Mapping[str, Any]] = {
        "name": "hello",
        "tasks": [
            {"name": "greet", "run": "echo hello"},
            {"name": "wave", "run": "echo goodbye", "needs": ["greet"]},
        ],
    }
    tags: ClassVar[tuple[str, ...]] = ("orchestration", "dag")
    produces: ClassVar[tuple[str, ...]] = ("asset", "job", "schedule", "sensor")
    document: Document | None = None

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Self:
        """Make the component, and keep where its values stand in the file."""
        made = super().load(attributes, context)
        raw = getattr(attributes, _RAW, None)
        made.document = _document(raw, context) if raw else None
        return made

    def build(self, config: DagAttributes, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Compile the DAG, or all DAGs of the files.

        Raises:
            ConfigFaults: What is wrong with them, with file and line.
        """
        executor = Settings.from_env().executor
        parts = [build_dag(dag, executor=executor, context=context) for dag in self._dags(config, context)]
        return dg.Definitions.merge(*parts)

    def _dags(self, config: DagAttributes, context: dg.ComponentLoadContext) -> list[LoadedDag]:
        document = self.document or Document(
            config.model_dump(mode="json", by_alias=True, exclude_unset=True), {}, "attributes"
        )
        if config.file is None:
            at = Path(document.file)
            return [loaded_dag(document, file=at if at.is_file() else None)]
        others = sorted(config.model_fields_set - {"file"})
        if others:
            place = document.place((others[0],))
            raise ConfigFaults([ConfigFault(place, others[0], "goes into the file that `file` names, not beside it")])
        return load_dags(Path(context.path) / config.file)
