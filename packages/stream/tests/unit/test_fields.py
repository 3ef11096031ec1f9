"""Paths of fields: dots part names, unless a backslash says that they belong to one."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill_stream.errors import PipelineInvalid
from tidemill_stream.records.fields import bury, dig, join_path, reader, split_path
from tidemill_stream.records.filter import compile_filter, field_paths, parse
from tidemill_stream.records.schema import Fault, Need, RecordDecoder, property_at

NAMES = st.text(st.sampled_from("ab.\\\"' "), min_size=1, max_size=5)


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_path_is_split_into_the_names_it_was_joined_from(names: list[str]) -> None:
    assert tuple(names) == split_path(join_path(names))


@given(st.lists(NAMES, min_size=1, max_size=3), st.integers(-(2**63), 2**63 - 1))
def test_every_name_reaches_its_value_in_both_decoders_and_in_conditions(names: list[str], value: int) -> None:
    path = join_path(names)
    record: Any = value
    schema: Any = {"type": "integer"}
    for name in reversed(names):
        record = {name: record, "other": 1} if name != "other" else {name: record}
        schema = {"type": "object", "properties": {name: schema}}
    raw = orjson.dumps(record)
    need = Need(path, "integer")

    decoders = [RecordDecoder(schema, needs=[need], paths=[path]), RecordDecoder(None, needs=[need], paths=[path])]

    assert value == dig(record, path)
    assert {"type": "integer"} == property_at(schema, path)
    bury(record, path, None)
    assert dig(record, path) is None
    for decoder in decoders:
        found = decoder.decode(raw)
        assert not isinstance(found, Fault)
        assert value == reader(path)(found)
        if len(names) == 1:
            assert compile_filter(f"{quoted(names)} = {value}")(found)


def quoted(names: list[str]) -> str:
    return '"' + names[0].replace('"', '""') + '"'


def test_a_quoted_field_of_a_condition_is_one_name() -> None:
    assert {"service\\.name", "a.b"} == field_paths(parse('"service.name" = 1 and a.b = 2'))


OTEL = {
    "type": "object",
    "properties": {
        "service.name": {"type": "string"},
        "resource": {"type": "object", "properties": {"host.id": {"type": "string"}}},
    },
}


def test_a_dot_in_a_name_is_written_with_a_backslash_or_refused_with_what_to_write(make_plan) -> None:
    def plan(field: str):
        return make_plan(
            schema={"inline": OTEL},
            rows={"columns": {"service": {"field": field, "type": "string"}}},
            where=None,
            window=None,
            flush_on_drain=False,
        )

    made = plan("service\\.name")
    nested = plan("resource.host\\.id")
    with pytest.raises(PipelineInvalid, match=r"'service\.name' is one name in the schema; write 'service\\\\\.name'"):
        plan("service.name")

    assert "web" == dig({"service.name": "web"}, made.columns[0].path)
    assert "h" == dig({"resource": {"host.id": "h"}}, nested.columns[0].path)
    assert [] == made.notes == nested.notes


def test_columns_keys_and_aggregates_that_the_schema_does_not_describe_are_named(make_plan) -> None:
    open_schema = {"type": "object", "properties": {"id": {"type": "integer"}, "user": {"type": "string"}}}
    rows = {"columns": {"id": "integer", "usr": "string"}}
    common = {"where": None, "window": None, "flush_on_drain": False}
    window = {
        "type": "tumbling",
        "size_s": 60,
        "time": {"field": "at"},
        "key": ["usr"],
        "aggs": {"n": {"op": "max", "field": "idd"}},
    }

    noted = make_plan(schema={"inline": open_schema}, rows=rows, **common)
    grouped = make_plan(schema={"inline": open_schema}, rows={"columns": {"id": "integer"}}, where=None, window=window)
    with pytest.raises(PipelineInvalid, match=r"'usr' is in no schema; did you mean 'user'.*always be null"):
        make_plan(schema={"inline": {**open_schema, "additionalProperties": False}}, rows=rows, **common)
    elsewhere = {**open_schema, "patternProperties": {"^u": {"type": "string"}}}

    assert [
        "'usr' is in no schema; did you mean 'user'?: its values are checked by the type of the column only"
    ] == noted.notes
    assert ["'at'", "'usr'", "'idd'"] == [note.split(" ")[0] for note in grouped.notes]
    assert [] == make_plan(schema={"inline": elsewhere}, rows=rows, **common).notes
