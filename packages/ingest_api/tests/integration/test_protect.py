"""Personal values are dropped or hashed before anything of them is stored, served, shown or logged."""

import json
import subprocess
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tidemill_ingest_api.config import ProtectConfig, SourceConfig, StreamConfig
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.fetch import run_stream, table_spec
from tidemill_ingest_api.records.flatten import compile_stream
from tidemill_ingest_api.records.protect import Protector, hashed
from tidemill_ingest_api.stores import open_store
from tidemill_ingest_api.testing.fake_api import FakeApi

KEY = "a-key-of-sixteen-or-more"
PEOPLE = [
    {
        "id": i,
        "email": f"ada{i}@hush.example",
        "user": {"name": f"Hush Lovelace {i}", "phone": "+00-hush"},
        "likes": [{"by": f"hush-{i}", "what": "tea"}, {"by": "hush-x", "what": "maths"}],
        "by_day": {"mon": {"ip": "hush-1"}, "tue": {"ip": "hush-2"}},
    }
    for i in range(3)
]
STREAM = {
    "name": "people",
    "path": "/all",
    "primary_key": ["email"],
    "fields": {"email": "string", "id": "int64", "user__name": "string", "likes": "json"},
    "protect": {"drop": ["user", "by_day.*.ip"], "hash": ["email", "likes.by"], "key": KEY},
}


def source_of(base_url, **more):
    return SourceConfig.model_validate({"source": "s", "base_url": base_url, "streams": [STREAM | more]})


def fetch(api, store, **more):
    source = source_of(api.base_url, **more)
    client = Client(source, api.base_url)
    try:
        return run_stream(source, source.streams[0], store, client)
    finally:
        client.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path}/i.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = open_store(url)
    yield store
    store.close()


def test_rows_hold_hashes_that_join_and_nothing_that_was_dropped(store):
    source = source_of("https://a.example")
    with FakeApi(PEOPLE) as api:
        report = fetch(api, store)
        spec = table_spec(source_of(api.base_url), source_of(api.base_url).streams[0])
        doc = orjson.loads(store.get(spec, (hashed(PEOPLE[1]["email"], KEY.encode()),)))

    assert 3 == report.rows
    assert (1, None) == (doc["id"], doc["user__name"])
    assert [hashed("hush-1", KEY.encode()), hashed("hush-x", KEY.encode())] == [each["by"] for each in doc["likes"]]
    assert source.streams[0].protected_fields == {"email": "hash", "user__name": "drop"}


def test_no_byte_of_them_reaches_the_file_the_log_or_an_error(tmp_path):
    bad = [*PEOPLE, {"id": "no number", "email": "hush-bad"}, {"id": 9}, "hush as a text"]
    path, file = tmp_path / "s.json", tmp_path / "s.db"
    with FakeApi(bad) as api:
        stream = STREAM | {"on_bad_record": "keep"}
        path.write_text(json.dumps({"source": "s", "base_url": api.base_url, "streams": [stream]}))
        command = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "ingest"]
        run = subprocess.run(
            [*command, "run", str(path), "--store", f"sqlite:///{file}"], capture_output=True, check=False, timeout=60
        )
        look = subprocess.run([*command, "preview", str(path)], capture_output=True, check=False, timeout=60)

    assert (0, 0) == (run.returncode, look.returncode)
    aside = open_store(f"sqlite:///{file}").rejects("s")
    assert 3 == len(aside)
    kept = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each != path)
    for text in (run.stdout, run.stderr, look.stdout, look.stderr, kept):
        assert b"hush" not in text.lower()
        assert KEY.encode() not in text


def test_another_key_reads_every_record_again_and_no_key_of_before_is_kept(store):
    with FakeApi(PEOPLE) as api:
        fetch(api, store, conditional="etag")
        again = fetch(api, store, conditional="etag")
        other = fetch(api, store, conditional="etag", protect=STREAM["protect"] | {"key": KEY + "2"})

    assert (1, 0) == (again.not_modified, other.not_modified)


def test_a_path_that_no_record_has_is_warned_of(tmp_path, capsys):
    store = open_store(f"sqlite:///{tmp_path}/i.db")
    with FakeApi(PEOPLE) as api:
        fetch(api, store, protect={"drop": ["user.nmae", "by_day"]})
    store.close()

    told = "".join(capsys.readouterr())
    assert "protected_path_never_seen" in told
    assert "user.nmae" in told
    assert "by_day" not in told


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_a_record_is_never_changed_in_place_and_other_values_stay(value):
    record = {"id": 1, "a": value, "b": {"c": value}}
    before = orjson.dumps(record, option=orjson.OPT_PASSTHROUGH_DATETIME) if _fits(record) else repr(record)
    protector = Protector(ProtectConfig(drop=("b.c",), hash=("a.x",), key=KEY))
    changed = protector.apply(record)

    after = orjson.dumps(record, option=orjson.OPT_PASSTHROUGH_DATETIME) if _fits(record) else repr(record)
    assert before == after
    assert {} == changed["b"]
    assert 1 == changed["id"]


def _fits(record):
    try:
        orjson.dumps(record)
    except TypeError:
        return False
    return True


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protect": {}}, "give `drop` or `hash`"),
        ({"protect": {"hash": ["email"]}}, "needs a `key`"),
        ({"protect": {"hash": ["email"], "key": "short"}}, "at least 16"),
        ({"protect": {"drop": ["email"]}}, "primary key"),
        ({"protect": {"hash": ["id"], "key": KEY}}, "must be a string"),
        ({"protect": {"drop": ["user..name"]}}, "no path"),
        ({"protect": {"drop": ["id"]}, "cursor": {"field": "id"}}, "is the cursor"),
    ],
)
def test_rules_that_cannot_work_are_refused(change, words):
    with pytest.raises(ValidationError, match=words):
        StreamConfig.model_validate(STREAM | change)


def test_a_stream_without_rules_is_as_it_was():
    plain = {name: value for name, value in STREAM.items() if name != "protect"}
    flatten = compile_stream(StreamConfig.model_validate(plain)).flatten

    assert "ada0@hush.example" == flatten(PEOPLE[0])[0]
