"""The Dagster component: YAML attributes, materializations, checks, retries."""

import shutil

import dagster as dg
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from tidemill_core.config import ConfigFaults
from tidemill_core.defs import ObjectStoreResource, PostgresResource
from tidemill_core.postgres import connect
from tidemill_loader.defs import LoadComponent


@pytest.fixture
def run(postgres_url, tmp_path):
    def materialize(attributes, **options):
        component = LoadComponent.from_attributes_dict(attributes=attributes)
        definitions = component.build(component.config, dg.ComponentTree.for_test().load_context)
        resources = {
            "postgres": PostgresResource(url=postgres_url),
            "lake": ObjectStoreResource(url=(tmp_path / "lake").as_uri()),
        }
        return dg.materialize(list(definitions.assets), resources=resources, **options)

    return materialize


@pytest.fixture
def lake(tmp_path):
    for hour in range(3):
        path = tmp_path / "lake" / "events" / f"hour={hour}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"id": [hour * 10, hour * 10 + 1]}), path)
    return tmp_path / "lake"


def _metadata(result, key):
    (event,) = [each for each in result.get_asset_materialization_events() if each.asset_key == dg.AssetKey(key)]
    return {name: value.value for name, value in event.materialization.metadata.items()}


def test_loads_become_assets_with_metadata_and_checks(run, lake, tmp_path):
    (tmp_path / "airlines.csv").write_text("carrier,name\nAA,American\nUA,United\n")

    result = run(
        {
            "loads": [
                {
                    "files": "lake://events/**/*.parquet",
                    "table": "raw.events",
                    "asset_key": "events/flights",
                    "deps": ["lake/events"],
                },
                {"files": str(tmp_path / "airlines.csv"), "table": "raw.airlines", "key": "carrier"},
            ]
        }
    )

    events, airlines = _metadata(result, ["events", "flights"]), _metadata(result, ["raw", "airlines"])
    assert (events["dagster/row_count"], events["files"], events["units_loaded"]) == (6, 3, 3)
    assert airlines["dagster/table_name"].endswith(".raw.airlines")
    assert [column.name for column in events["dagster/column_schema"].columns] == ["id", "hour"]
    assert {check.passed for check in result.get_asset_check_evaluations()} == {True}
    assert len(result.get_asset_check_evaluations()) == 4


def test_a_second_run_does_nothing_and_says_so(run, lake):
    attributes = {"files": "lake://events/**/*.parquet", "table": "raw.events"}
    run(attributes)

    again = _metadata(run(attributes), ["raw", "events"])

    assert (again["rows_loaded"], again["units_already_loaded"], again["dagster/row_count"]) == (0, 3, 6)
    assert again["did_work"] is False


def test_rows_that_vanish_from_the_table_fail_the_check(run, lake, postgres_url):
    attributes = {"files": "lake://events/**/*.parquet", "table": "raw.events"}
    run(attributes)
    with connect(postgres_url) as conn:
        conn.execute("DELETE FROM raw.events WHERE id = 10")

    result = run(attributes)

    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "rows_equal_source": False,
        "schema_as_planned": True,
    }


def test_a_permanent_error_is_a_failure_that_is_not_retried(run):
    result = run({"files": "lake://nothing/*.parquet", "table": "raw.t"}, raise_on_error=False)

    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert not result.success
    assert "no file matches" in str(failure.step_failure_data.user_failure_data)


def test_assets_have_kinds_pool_and_deps():
    component = LoadComponent.from_attributes_dict(
        attributes={
            "files": "lake://x/*.parquet",
            "table": "raw.t",
            "deps": "lake/x",
            "description": "all of it",
            "tags": {"team": "air"},
        }
    )

    (asset,) = component.build(component.config, dg.ComponentTree.for_test().load_context).assets

    spec = next(iter(asset.specs))
    assert spec.kinds == {"postgres", "parquet"}
    assert {dep.asset_key for dep in spec.deps} == {dg.AssetKey(["lake", "x"])}
    assert (spec.group_name, spec.description, spec.tags["team"]) == ("raw", "all of it", "air")
    assert asset.op.pool == "postgres"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"files": "a.csv", "table": "t", "moed": "append"}, "did you mean 'mode'"),
        ({"table": "t"}, "give `files` and `table`"),
        ({"loads": [{"files": "a.csv", "table": "t"}], "table": "u"}, "stands alone"),
        ({"loads": [{"files": "a.csv"}]}, "required"),
    ],
)
def test_wrong_attributes_are_refused_with_a_reason(attributes, message):
    with pytest.raises(ConfigFaults, match=message):
        LoadComponent.from_attributes_dict(attributes=attributes)


@pytest.mark.parametrize(("beside", "rows"), [(True, 2), (False, 1)])
def test_a_relative_path_is_beside_the_defs_yaml_or_else_in_the_working_folder(
    tmp_path, postgres_url, monkeypatch, beside, rows
):
    (tmp_path / "work/planes").mkdir(parents=True)
    (tmp_path / "work/planes/a.csv").write_text("n\n1\n")
    monkeypatch.chdir(tmp_path / "work")
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=LoadComponent)
        if not beside:
            shutil.rmtree(path / "planes")
        table = f"raw.beside_{beside}".lower()
        text = (path / "defs.yaml").read_text().replace("raw.planes", table).replace("tailnum", "n")
        (path / "defs.yaml").write_text(text if not beside else text.replace("- n", "- tailnum"))
        with sandbox.load_component_and_build_defs(defs_path=path) as (_, defs):
            resources = {"postgres": PostgresResource(url=postgres_url), "lake": ObjectStoreResource()}
            job = dg.Definitions.merge(
                defs, dg.Definitions(resources=resources)
            ).resolve_implicit_global_asset_job_def()

            done = job.execute_in_process(instance=dg.DagsterInstance.ephemeral())

    with psycopg.connect(postgres_url) as connection:
        (found,) = connection.execute(f"select count(*) from {table}").fetchone()
    assert (True, rows) == (done.success, found)
