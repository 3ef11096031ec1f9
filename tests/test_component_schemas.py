"""What the schema of a component accepts is what loading it accepts, and the other way round."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tidemill_core.config import ConfigFaults, Document, validate

COMPONENTS = (
    "tidemill_core.AssetsComponent",
    "tidemill_core.DagComponent",
    "tidemill_core.ResourcesComponent",
    "tidemill_ingest_api.IngestComponent",
    "tidemill_lineage.LineageComponent",
    "tidemill_loader.LoadComponent",
    "tidemill_stream.StreamDrainComponent",
    "tidemill_stream.StreamServiceComponent",
    "tidemill_sync.SyncComponent",
)
SHORTHANDS = {
    "tidemill_loader.LoadComponent": [
        {"table": "raw.planes", "files": "*.csv", "key": "tailnum", "columns": {"year": "int4"}},
        {"loads": [{"table": "raw.planes", "files": ["*.csv"], "key": ["a", "b"]}]},
    ],
    "tidemill_stream.StreamDrainComponent": [
        {"pipeline": {"topics": "a"}},
        {
            "pipeline": {
                "name": "p",
                "source": {"topics": ["a", "b"]},
                "rows": {"columns": {"n": "integer", "m": {"type": "text", "from": "x.m"}}},
                "sinks": [{"type": "memory"}],
            }
        },
    ],
    "tidemill_ingest_api.IngestComponent": [
        {
            "source": "s",
            "base_url": "https://api.example",
            "streams": [{"name": "a", "path": "/a", "table": "raw.a", "primary_key": "id", "fields": {"id": "int64"}}],
        }
    ],
}
"""Documents in the short forms, beside the examples; whether right or wrong, both must judge alike."""
ODD = st.sampled_from(
    [0, 1, -1, 7, 2.5, None, True, "", "x", "a.b", "integer", "2024-01-01", [], ["x"], [1], {}, {"x": 1}, {"type": "x"}]
)
RELATES_KEYS = (
    "is not in `fields`",
    "cursor.field must be",
    "give `files` and `table`",
    "stands alone",
    "needs exactly",
    "needs a field",
    "must be http(s)",
    "time zone",
    "bad cron",
    "is no asset key",
    "is no pool",
    "is no group",
    "cannot name a table",
    "unknown",
    "names no",
    "more than once",
    "expected",
)
"""Words of faults that a JSON schema cannot see: relations between keys, and names that are looked up or parsed."""


@cache
def component(name: str) -> Any:
    package, _, cls = name.partition(".")
    return getattr(importlib.import_module(package), cls)


@cache
def schema(name: str) -> jsonschema.Draft202012Validator:
    found = component(name).get_model_cls().model_json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@cache
def keys(name: str) -> list[str]:
    """Every key that some object of the component may have."""
    return sorted({key for found in _objects(schema(name).schema) for key in found})


def _objects(value: Any) -> Iterator[list[str]]:
    if isinstance(value, dict):
        if isinstance(value.get("properties"), dict):
            yield list(value["properties"])
        for each in value.values():
            yield from _objects(each)
    elif isinstance(value, list):
        for each in value:
            yield from _objects(each)


def fault(name: str, document: Any) -> str | None:
    """Say why loading refuses a document; None if it does not."""
    try:
        validate(Document(document, {}, "defs.yaml"), component(name).config_type)
    except ConfigFaults as refused:
        return str(refused)
    return None


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container with each of its keys or places."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places(inner)


@st.composite
def documents(draw: st.DrawFn, name: str) -> Any:
    """A right document with one to three things changed: a value, a key more, a key less."""
    examples = [dict(component(name).example), *SHORTHANDS.get(name, [])]
    found = json.loads(json.dumps(draw(st.sampled_from(examples))))
    for _ in range(draw(st.integers(0, 3))):
        at = list(places(found))
        how = draw(st.sampled_from(["change", "remove", "add"]))
        odd = copy.deepcopy(draw(ODD))
        if how == "add" or not at:
            objects = [found, *(box[key] for box, key in at if isinstance(box[key], dict))]
            draw(st.sampled_from(objects))[draw(st.sampled_from([*keys(name), "no_such_key"]))] = odd
        else:
            box, key = draw(st.sampled_from(at))
            if how == "change":
                box[key] = odd
            else:
                del box[key]
    return found


def holds_lax_scalar(value: Any) -> bool:
    """Whether a number or truth value may be written as another: ``1`` for true, or text, as a template gives it."""
    if isinstance(value, dict):
        return any(map(holds_lax_scalar, value.values()))
    if isinstance(value, list):
        return any(map(holds_lax_scalar, value))
    return isinstance(value, bool) or value in (0, 1)


@pytest.mark.parametrize("name", COMPONENTS)
def test_examples_are_accepted_by_both(name: str) -> None:
    example = json.loads(json.dumps(dict(component(name).example)))

    assert fault(name, example) is None
    assert list(schema(name).iter_errors(example)) == []


@pytest.mark.parametrize("name", COMPONENTS)
@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_what_loading_accepts_the_schema_accepts(name: str, data: st.DataObject) -> None:
    document = data.draw(documents(name))
    assume(not holds_lax_scalar(document) or schema(name).is_valid(document))

    if fault(name, document) is None:
        assert [error.message for error in schema(name).iter_errors(document)] == []


@pytest.mark.parametrize("name", COMPONENTS)
@settings(max_examples=150, derandomize=True)
@given(data=st.data())
def test_what_the_schema_accepts_loading_accepts_unless_keys_do_not_fit_together(
    name: str, data: st.DataObject
) -> None:
    document = data.draw(documents(name))

    if schema(name).is_valid(document):
        found = fault(name, document)
        assert found is None or any(words in found for words in RELATES_KEYS), found


def test_the_comparison_sees_a_schema_that_lacks_a_short_form() -> None:
    """The negative control: the schema of what validation makes, which knows no short forms."""
    name = "tidemill_loader.LoadComponent"
    strict = jsonschema.Draft202012Validator(component(name).config_type.model_json_schema(mode="serialization"))
    short = SHORTHANDS[name][0]

    assert fault(name, short) is None
    assert schema(name).is_valid(short)
    assert not strict.is_valid(short)


def test_a_template_may_stand_for_any_value_and_no_other_text_may() -> None:
    document = dict(component("tidemill_sync.SyncComponent").example)

    assert schema("tidemill_sync.SyncComponent").is_valid({**document, "min_size_bytes": "{{ env.LEAST }}"})
    assert not schema("tidemill_sync.SyncComponent").is_valid({**document, "min_size_bytes": "least"})
