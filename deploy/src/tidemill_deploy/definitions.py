"""What Dagster loads: the DAG files beside this module, their checks, and the resources."""

from pathlib import Path

import dagster as dg
from tidemill_core.defs import default_resources, definitions_from_dags
from tidemill_core.settings import Settings
from tidemill_lineage.defs import install

from tidemill_deploy.checks import truth_checks
from tidemill_deploy.resources import UpstreamResource

DAGS = Path(__file__).parent / "dags"


def build(settings: Settings | None = None) -> dg.Definitions:
    """Build the definitions of this code location from the settings.

    Raises:
        ConfigError: A setting or a DAG file is wrong; names file and line.
    """
    settings = settings or Settings.from_env()
    install(settings)
    resources = {**default_resources(), "upstream": UpstreamResource()}
    pipelines = definitions_from_dags(DAGS, resources=resources, executor=settings.executor)
    return dg.Definitions.merge(pipelines, dg.Definitions(asset_checks=list(truth_checks())))


defs = build()
