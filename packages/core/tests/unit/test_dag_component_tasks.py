"""Components as tasks: they run after what they need, with the pool and retries of the file."""

import pytest
from tidemill_core.dag.load import load_dags
from tidemill_core.defs import definitions_from_dags
from tidemill_core.errors import ConfigError

FILE = """\
name: order
executor: in_process
tasks:
  - {name: first, kind: asset, asset_key: a-b/first, call: "parts:noop"}
  - name: pair
    use: tidemill_core.AssetsComponent
    with: {load: ["parts:pair", "parts:single", "parts:checked"]}
    needs: [first]
    pool: slow
    retry: 2
  - {name: last, call: "parts:noop", needs: [pair]}
"""
PARTS = """\
import dagster as dg

def noop():
    return {}

@dg.multi_asset(specs=[dg.AssetSpec(["x", "one"]), dg.AssetSpec(["x", "two"])])
def pair():
    yield dg.MaterializeResult(asset_key=["x", "one"])
    yield dg.MaterializeResult(asset_key=["x", "two"])

@dg.asset(key=["x", "three"], ins={"one": dg.AssetIn(["x", "one"], dagster_type=dg.Nothing)})
def single():
    return dg.MaterializeResult()

@dg.asset_check(asset=dg.AssetKey(["x", "three"]))
def checked():
    return dg.AssetCheckResult(passed=True)

nothing = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "order.yaml").write_text(FILE)
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_component_assets_run_after_what_their_task_needs(folder) -> None:
    job = definitions_from_dags(folder).resolve_job_def("order")

    result = job.execute_in_process()

    started = [each.step_key for each in result.all_events if each.is_step_start]
    assert ["order__first", "pair", "x__three"] == [each for each in started if not each.endswith(("last", "checked"))]
    assert started.index("order__last") > started.index("x__three")


def test_without_the_need_the_same_component_starts_first(folder) -> None:
    (folder / "order.yaml").write_text(
        FILE.replace("    needs: [first]\n", "").replace("- {name: first,", "- {name: zz,")
    )

    job = definitions_from_dags(folder).resolve_job_def("order")

    assert {} == next(inputs for node, inputs in job.dependencies.items() if node.name == "pair")


def test_pool_and_retries_of_the_file_reach_the_ops_of_a_component(folder) -> None:
    job = definitions_from_dags(folder).resolve_job_def("order")

    pair = job.get_node_named("pair").definition

    assert ("slow", 2) == (pair.pool, pair.retry_policy.max_retries)


def test_a_reference_to_something_else_is_refused_by_name(folder) -> None:
    (folder / "order.yaml").write_text(FILE.replace('"parts:single"', '"parts:nothing"'))

    with pytest.raises(ConfigError, match="parts:nothing is a int, not an asset"):
        definitions_from_dags(load_dags(folder / "order.yaml"))
