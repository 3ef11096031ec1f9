"""The Grafana board and the alert rules ask only for metrics that the exporter has."""

import json
import re
from pathlib import Path

import pytest
import yaml
from tidemill_core.defs.metrics.families import Families

DEPLOY = Path(__file__).parents[4] / "deploy"


def _known() -> set[str]:
    known = set()
    for family in Families().registry.collect():
        known |= {
            family.name,
            f"{family.name}_total",
            *(f"{family.name}_{part}" for part in ("bucket", "count", "sum")),
        }
    return known


def _board() -> list[str]:
    board = json.loads((DEPLOY / "grafana" / "boards" / "dagster.json").read_text())
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def _rules() -> list[str]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.skipif(not DEPLOY.is_dir(), reason="the package is tested without its repository")
def test_every_expression_uses_metrics_that_exist() -> None:
    used = {name for expr in _board() + _rules() for name in re.findall(r"\bdagster_\w+", expr)}

    assert used
    assert used - _known() == set()


@pytest.mark.skipif(not DEPLOY.is_dir(), reason="the package is tested without its repository")
def test_the_documentation_names_every_metric() -> None:
    text = (DEPLOY.parent / "docs" / "how-to" / "metrics.md").read_text()
    documented = set(re.findall(r"`(dagster_\w+)`", text))
    families = Families().registry.collect()

    offered = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}

    assert documented == offered
