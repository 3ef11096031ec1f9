"""The Dagster component."""

import dagster as dg
import pytest
from tidemill_core.defs import PostgresResource
from tidemill_core.errors import ConfigError
from tidemill_core.lineage_hooks import subscribed
from tidemill_ingest_api.defs import IngestComponent
from tidemill_ingest_api.testing.fake_api import Answer, FakeApi


class UpstreamResource(dg.ConfigurableResource):
    url: str

    def get_base_url(self) -> str:
        return self.url


def attributes(**more):
    stream = {
        "name": "things",
        "path": "/link",
        "paginate": {"type": "link_header"},
        "conditional": "etag",
        "primary_key": ["id"],
        "fields": {"id": "int64", "name": "string"},
    }
    return (
        {"source": "fake", "base_url": "resource:upstream", "http": {"retry": {"attempts": 2, "delay_s": 0}}}
        | more
        | {"streams": [stream]}
    )


def build(**more):
    component = IngestComponent.from_attributes_dict(attributes=attributes(**more))
    return component.build_defs(dg.ComponentTree.for_test().load_context)


def materialize(api, postgres_url, *, raise_on_error=True, **more):
    resources = {"upstream": UpstreamResource(url=api.base_url), "postgres": PostgresResource(url=postgres_url)}
    return dg.materialize(list(build(**more).assets), resources=resources, raise_on_error=raise_on_error)


@pytest.fixture
def api():
    with FakeApi([{"id": i, "name": f"n{i}"} for i in range(5)]) as api:
        yield api


def test_an_asset_is_fetched_into_the_postgres_resource_with_checks_and_metadata(api, postgres_url):
    events = []
    with subscribed(events.append):
        result = materialize(api, postgres_url)

    (event,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in event.materialization.metadata.items()}
    assert dg.AssetKey(["raw", "things"]) == event.asset_key
    assert (5, "raw.things", 3, 5) == (
        metadata["dagster/row_count"],
        metadata["dagster/table_name"],
        metadata["pages"],
        metadata["inserted"],
    )
    assert {"has_rows", "unique_key", "no_rejects"} == {
        c.check_name for c in result.get_asset_check_evaluations() if c.passed
    }
    assert ["raw/things"] == [event.asset_key for event in events]


def test_a_second_run_skips_every_page(api, postgres_url):
    materialize(api, postgres_url)
    (event,) = materialize(api, postgres_url).get_asset_materialization_events()

    metadata = event.materialization.metadata
    assert (3, 0, 5) == tuple(metadata[name].value for name in ("not_modified", "inserted", "dagster/row_count"))


def test_an_empty_table_fails_its_check(postgres_url):
    with FakeApi([]) as api:
        result = materialize(api, postgres_url)

    assert ["has_rows"] == [check.check_name for check in result.get_asset_check_evaluations() if not check.passed]


def test_a_permanent_fault_fails_the_step_and_names_its_error(api, postgres_url):
    api.fail(Answer(status=404))
    permanent = materialize(api, postgres_url, raise_on_error=False)
    failure = permanent.failure_data_for_node("raw__things")

    assert not permanent.success
    assert failure.user_failure_data.metadata["error"].value == "UpstreamRefused"


def test_the_definitions_say_group_pool_kinds_and_schedule():
    made = build(schedule="0 * * * *", deps=["raw/first"], base_url="https://api.example.org")
    (asset,) = made.assets
    (spec,) = asset.specs

    assert ("raw", {"rest", "postgres"}, "api/api.example.org") == (spec.group_name, spec.kinds, asset.op.pool)
    assert [dg.AssetKey(["raw", "first"])] == [dep.asset_key for dep in spec.deps]
    assert ["0 * * * *"] == [schedule.cron_schedule for schedule in made.schedules]
    assert "postgres" in asset.required_resource_keys


def test_wrong_attributes_are_refused():
    with pytest.raises(ConfigError, match="retry"):
        IngestComponent.from_attributes_dict(attributes=attributes(http={"rety": {}}))


def test_the_scaffolded_example_is_valid():
    component = IngestComponent.from_attributes_dict(attributes=dict(IngestComponent.example))

    assert ["raw/issues"] == [
        "/".join(a.key.path) for a in component.build_defs(dg.ComponentTree.for_test().load_context).assets
    ]


def test_the_asset_of_a_child_comes_after_that_of_its_parent(postgres_url):
    children = {
        "name": "parts",
        "path": "/link",
        "params": {"of": "{parent.id}"},
        "paginate": {"type": "link_header"},
        "parent": {"stream": "things"},
        "primary_key": ["thing", "id"],
        "fields": {"id": "int64", "thing": {"path": "_parent.id", "type": "int64"}},
    }
    with FakeApi([{"id": i} for i in range(2)]) as api:
        given = attributes()
        given["streams"] = [children, *given["streams"]]
        component = IngestComponent.from_attributes_dict(attributes=given)
        defs = component.build_defs(dg.ComponentTree.for_test().load_context)
        resources = {"upstream": UpstreamResource(url=api.base_url), "postgres": PostgresResource(url=postgres_url)}
        result = dg.materialize(list(defs.assets), resources=resources)

    (child,) = [each for each in defs.assets if each.key == dg.AssetKey(["raw", "parts"])]
    assert {dg.AssetKey(["raw", "things"])} == child.asset_deps[child.key]
    rows = {
        event.asset_key.path[-1]: event.materialization.metadata["dagster/row_count"].value
        for event in result.get_asset_materialization_events()
    }
    assert {"things": 2, "parts": 4} == rows
