"""Plans, patterns and options, without a server."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tidemill_core.errors import ConfigError
from tidemill_core.storage import open_store
from tidemill_loader.cli import load
from tidemill_loader.config import LoadConfig
from tidemill_loader.copy import decoded_ahead
from tidemill_loader.engine import plan_load
from tidemill_loader.errors import SchemaConflict, SourceMissing
from tidemill_loader.formats import format_for
from tidemill_loader.formats.json import as_text, parse
from tidemill_loader.rejects import actual_row
from tidemill_loader.sources import find_files, glob_regex, hive_keys, split_pattern


@pytest.mark.parametrize(
    ("pattern", "head", "tail"),
    [
        ("data/*.csv", "data", "*.csv"),
        ("planes.csv", ".", "planes.csv"),
        ("*.csv", ".", "*.csv"),
        ("/abs/x.csv", "/abs", "x.csv"),
        ("/x.csv", "/", "x.csv"),
        ("s3://bucket/a/b/*.parquet", "s3://bucket/a/b", "*.parquet"),
        ("s3://bucket/*.parquet", "s3://bucket", "*.parquet"),
        ("s3://bucket/a.parquet", "s3://bucket", "a.parquet"),
        ("s3://bucket/y=*/**/*.parquet", "s3://bucket", "y=*/**/*.parquet"),
        ("file:///tmp/a*/b.csv", "file:///tmp", "a*/b.csv"),
        ("lake://*.parquet", "lake://", "*.parquet"),
        ("lake://events/x/**/*.parquet", "lake://events/x", "**/*.parquet"),
    ],
)
def test_a_pattern_is_divided_before_its_first_wildcard(pattern, head, tail):
    assert split_pattern(pattern) == (head, tail)


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "x/a.csv", False),
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("a?c.csv", "abc.csv", True),
        ("a[0-9].csv", "a7.csv", True),
        ("a[!0-9].csv", "a7.csv", False),
        ("a.csv", "aXcsv", False),
        ("y=*/m=0[12]/*", "y=2013/m=01/x", True),
    ],
)
def test_a_pattern_matches_keys_as_a_shell_would(pattern, key, matches):
    assert bool(re.fullmatch(glob_regex(pattern), key)) is matches


@given(st.text(alphabet="abc/.+()$^|\\", min_size=1))
def test_a_pattern_without_wildcards_matches_itself_alone(text):
    assert re.fullmatch(glob_regex(text), text)
    assert not re.fullmatch(glob_regex(text), text + "x")


def test_hive_keys_are_read_from_folders_and_decoded():
    keys = hive_keys("s3://bucket/year=2013/city=New%20York/none=__HIVE_DEFAULT_PARTITION__/a=b.parquet")

    assert keys == {"year": "2013", "city": "New York", "none": None}


@pytest.mark.parametrize(
    ("name", "path", "found"),
    [
        ("auto", "a.PARQUET", "parquet"),
        ("auto", "a.csv.gz", "csv"),
        ("auto", "a.ndjson.zst", "json"),
        ("csv", "a", "csv"),
        ("jsonl", "a", "json"),
    ],
)
def test_the_name_tells_the_format(name, path, found):
    assert format_for(name, path) == found


def test_a_name_without_a_format_is_refused():
    with pytest.raises(ConfigError, match="set `format`"):
        format_for("auto", "data.bin")


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "upsert"},
        {"table": "a.b.c"},
        {"workers": 0},
        {"files": []},
        {"moed": "append"},
        {"columns": {"a": {"rename": "x" * 64}}},
    ],
)
def test_a_wrong_configuration_is_refused(wrong):
    with pytest.raises(ValidationError):
        LoadConfig(**{"files": "a.csv", "table": "t", **wrong})


@pytest.fixture
def folder(tmp_path):
    pq.write_table(pa.table({"id": range(10), "x": range(10)}), tmp_path / "b.parquet", row_group_size=4)
    pq.write_table(pa.table({"id": range(3), "x": range(3)}), tmp_path / "a.parquet")
    return tmp_path


def test_a_plan_lists_row_groups_in_order_and_the_ddl(folder):
    plan = plan_load(
        LoadConfig(
            files=f"{folder}/*.parquet", table="raw.t", key="id", columns={"x": {"rename": "y", "type": "numeric(9,1)"}}
        )
    )

    assert [(task.source.key, task.unit.index, task.unit.rows) for task in plan.tasks] == [
        ("a.parquet", 0, 3),
        ("b.parquet", 0, 4),
        ("b.parquet", 1, 4),
        ("b.parquet", 2, 2),
    ]
    assert plan.source_rows == 13
    assert (
        plan.ddl
        == 'CREATE TABLE "raw"."t" (\n    "id" bigint NOT NULL,\n    "y" numeric(9,1),\n    PRIMARY KEY ("id")\n)'
    )


def test_the_same_files_and_options_are_the_same_generation(folder):
    config = LoadConfig(files=f"{folder}/*.parquet", table="raw.t")
    before = plan_load(config).generation

    assert plan_load(config.model_copy(update={"workers": 7, "batch_rows": 10})).generation == before
    assert plan_load(config.model_copy(update={"digits": "round"})).generation != before
    (folder / "a.parquet").touch()
    assert plan_load(config).generation != before


def test_options_for_a_column_of_no_file_are_refused(folder):
    with pytest.raises(SchemaConflict, match="'nope'"):
        plan_load(LoadConfig(files=f"{folder}/*.parquet", table="t", columns={"nope": "text"}))
    with pytest.raises(SchemaConflict, match="'nope'"):
        plan_load(LoadConfig(files=f"{folder}/*.parquet", table="t", key="nope"))
    with pytest.raises(SchemaConflict, match="both"):
        plan_load(LoadConfig(files=f"{folder}/*.parquet", table="t", columns={"x": {"rename": "id"}}))


def test_a_file_is_loaded_once_however_often_it_is_named(folder):
    files = find_files([f"{folder}/a.parquet", f"{folder}/*.parquet", str(folder)])

    assert [file.key.rpartition("/")[2] for file in files] == ["a.parquet", "b.parquet"]


def test_a_folder_leaves_hidden_files_out(tmp_path):
    store = open_store(str(tmp_path))
    for key in ("x/a.csv", "x/_SUCCESS", "x/.hidden.csv", "x/_tmp/b.csv"):
        store.put(key, b"id\n1\n")

    assert [file.url.rpartition("/")[2] for file in find_files([f"{tmp_path}/x"])] == ["a.csv"]


@given(st.lists(st.booleans(), max_size=30))
def test_rows_are_numbered_as_they_stand_in_the_file(is_readable):
    skipped = [at for at, ok in enumerate(is_readable) if not ok]
    readable = [at for at, ok in enumerate(is_readable) if ok]

    assert [actual_row(place, skipped) for place in range(len(readable))] == readable


@given(st.lists(st.integers()), st.integers(1, 3))
def test_decoding_ahead_changes_neither_items_nor_order(items, depth):
    with decoded_ahead(iter(items), depth) as ahead:
        assert list(ahead) == items


def test_decoding_ahead_passes_errors_on_and_ends_when_left():
    def failing():
        yield 1
        raise ValueError("broken")

    with decoded_ahead(failing()) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
    with decoded_ahead(iter(range(10**9))) as ahead:
        assert next(ahead) == 0


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        (b'"a"', "a"), (b"1", "1"), (b"true", "true"), (b"null", None), (b"1.5", "1.5"), (b"0.12345678901234567890", "0.12345678901234567890"),
        (b"123456789012345678901234567890", "123456789012345678901234567890"), (b'{"a": [1, 2.50]}', '{"a":[1,2.5]}'),
        (b'{"a": 12345678901234567890123}', '{"a": 12345678901234567890123}'),
    ],
)  # fmt: skip
def test_json_values_keep_their_digits_as_text(text, spelled):
    assert as_text(parse(text)) == spelled


@pytest.mark.parametrize("text", [b"{", b"NaN", b'{"a": NaN, "b": 1e5}', b"'a'", b""])
def test_text_that_is_not_json_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


def test_an_interrupt_raised_in_the_callers_thread_stops_the_workers():
    import ctypes
    import threading

    from tidemill_core.lifecycle import StopToken
    from tidemill_loader.engine import _run_all

    halt, started, caught = StopToken(), threading.Event(), []

    def work():
        started.set()
        halt.wait(30)

    def load():
        try:
            _run_all([threading.Thread(target=work)], halt)
        except KeyboardInterrupt as error:
            caught.append(error)

    caller = threading.Thread(target=load)
    caller.start()
    started.wait(10)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(caller.ident), ctypes.py_object(KeyboardInterrupt))
    caller.join(10)

    assert len(caught) == 1
    assert halt.is_set


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["a.csv", "_year=2013/b.csv"]),
        ("**/*.csv", ["a.csv", "_year=2013/b.csv"]),
        ("_exports/*.csv", ["c.csv"]),
        ("_exp*/*.csv", ["_exports/c.csv"]),
        ("_*.csv", ["_d.csv"]),
        ("**/.*", ["._a.csv", ".a.csv.crc"]),
    ],
)
def test_hidden_files_are_passed_over_and_said_unless_the_pattern_means_them(tmp_path, pattern, found):
    names = ["a.csv", "_SUCCESS", ".a.csv.crc", "._a.csv", "_d.csv", "_exports/c.csv", "_temporary/0/e.csv"]
    for name in [*names, "_year=2013/b.csv"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("id\n1\n")
    hidden = []

    sources = find_files([f"{tmp_path}/{pattern}" if pattern else str(tmp_path)], on_hidden=hidden.append)

    assert sorted(found) == sorted(each.key for each in sources)
    if pattern in ("", "**/*.csv"):
        said = {name for name in names[1:] if any(url.endswith(f"/{name}") for url in hidden)}
        assert said == {name for name in names[1:] if not pattern or name.endswith(".csv")}


def test_a_pattern_of_nothing_but_hidden_files_says_so(tmp_path):
    (tmp_path / "_a.csv").write_text("id\n1\n")

    with pytest.raises(SourceMissing, match=r"but 1 hidden ones, such as file://.*_a\.csv"):
        find_files([f"{tmp_path}/*.csv"])


def test_the_plan_names_what_it_passes_over(tmp_path):
    for name in ("a.csv", "._a.csv"):
        (tmp_path / name).write_text("id\n1\n")

    plan = plan_load(LoadConfig(files=f"{tmp_path}/*.csv", table="t"))

    assert [task.source.key for task in plan.tasks] == ["a.csv"]
    assert [url.rpartition("/")[2] for url in plan.hidden] == ["._a.csv"]
    shown = CliRunner().invoke(load, ["plan", f"{tmp_path}/*.csv", "--table", "t"])
    assert "/._a.csv: hidden, passed over" in shown.output
