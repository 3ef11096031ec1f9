"""Long text files are cut into ranges that together are the file, whatever stands in their fields."""

import json
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tidemill_loader.config import LoadConfig
from tidemill_loader.errors import LoadError, RangesDiffer, SourceUnreadable
from tidemill_loader.formats import _ranges
from tidemill_loader.formats._array import elements
from tidemill_loader.formats._base import Unit
from tidemill_loader.formats.csv import CsvFormat
from tidemill_loader.formats.json import JsonFormat
from tidemill_loader.pending import units_left
from tidemill_loader.plan import Task
from tidemill_loader.sources import find_files

PIECES = ["a", "b", ",", '"', "\n", "\r", "\r\n", '"x\ny"', '"a""b"', '""', "é", "\n\n"]
BODIES = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def _written(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("ranges") / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    (source,) = find_files([str(path)])
    return source


def _read(reader, source, units):
    schema = pa.schema([(name, pa.string()) for name in reader._names(source)])
    rows, bad = [], []
    try:
        for unit in units:
            for batch in reader.batches(source, unit, schema, lambda row: bad.append((row.reason, row.text))):
                rows += zip(*[column.to_pylist() for column in batch.columns], strict=True)
    except LoadError:
        return "unreadable"
    return rows, bad


def _cut(reader, source, chunk_bytes):
    with source.open() as file:
        borders = _ranges.csv_borders(
            lambda size: bytes(file.read(size)), reader._quoting(), reader._config.split_bytes, chunk_bytes=chunk_bytes
        )
    return _ranges.units_of(source, borders)


@given(body=BODIES, every=st.integers(1, 30), chunk_bytes=st.integers(1, 40), mark=st.booleans())
@example(body='5" pipe,b\n"x\ny",2\n' * 3, every=1, chunk_bytes=7, mark=False)
def test_the_ranges_of_a_csv_file_are_the_rows_of_a_single_reader(tmp_path_factory, body, every, chunk_bytes, mark):
    source = _written(tmp_path_factory, "a.csv", ("\ufeff" if mark else "") + "h,g\n" + body)
    reader = CsvFormat(LoadConfig(files="x", table="t", split_bytes=every))

    ranges = _cut(reader, source, chunk_bytes)

    assert _read(reader, source, ranges) == _read(
        reader, source, [Unit(index=0, rows=None, size_bytes=source.size_bytes)]
    )


def test_negative_control_counting_every_quote_cuts_fields(tmp_path_factory, monkeypatch):
    source = _written(tmp_path_factory, "a.csv", "h,g\n" + '5" pipe,b\n"x\ny",2\n' * 20)
    reader = CsvFormat(LoadConfig(files="x", table="t", split_bytes=1))
    whole = _read(reader, source, [Unit(index=0, rows=None, size_bytes=source.size_bytes)])
    every_quote = [at for at, byte in enumerate(source.local_path.read_bytes()) if byte == ord('"')]
    monkeypatch.setattr(_ranges._Scan, "_toggles", lambda self, chunk, start: every_quote)

    assert _read(reader, source, _cut(reader, source, 1 << 20)) != whole


def test_skipped_lines_may_hold_a_quote_and_a_range_never_begins_before_the_header(tmp_path_factory):
    source = _written(tmp_path_factory, "a.csv", 'made "by hand\n\n\nh,g\n' + '1,"a\nb"\n' * 50)
    reader = CsvFormat(LoadConfig(files="x", table="t", split_bytes=1, csv={"skip_rows": 1}))

    units = reader.units(source)

    assert len(units) > 40
    assert _read(reader, source, units) == ([("1", "a\nb")] * 50, [])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.csv.gz", {}),
        ("a.csv", {"split": "none"}),
        ("a.csv", {"csv": {"encoding": "utf-16"}}),
        ("a.csv", {"csv": {"escape": "\\"}}),
        ("a.csv", {"split_bytes": 1_000}),
    ],
)
def test_what_cannot_be_cut_is_one_unit(tmp_path_factory, name, options):
    source = _written(tmp_path_factory, name, "h,g\n" + "1,2\n" * 100)

    units = CsvFormat(LoadConfig(files="x", table="t", **({"split_bytes": 10} | options))).units(source)

    assert [(unit.index, unit.start, unit.end) for unit in units] == [(0, None, None)]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    values=st.lists(VALUES, max_size=5),
    piece=st.integers(1, 20),
    ahead=st.integers(1, 30),
    indent=st.sampled_from([None, 1]),
)
def test_an_array_is_read_element_by_element_in_pieces_of_any_size(values, piece, ahead, indent):
    text = json.dumps(values, ensure_ascii=False, indent=indent).encode("utf-8", "surrogatepass")

    parts = [text[at : at + piece] for at in range(0, len(text), piece)]
    found = [json.loads(element) for element in elements(parts, read_chars=ahead)]

    assert values == found


@given(values=st.lists(VALUES, min_size=1, max_size=4), data=st.data())
def test_a_damaged_array_is_refused_exactly_when_a_whole_reader_refuses_it(values, data):
    text = json.dumps(values).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from([b"", b"x", b",", b"]"])) + text[at + 1 :]

    def outcome(read):
        try:
            return read()
        except ValueError:
            return "refused"

    whole = outcome(lambda: json.loads(damaged))
    if isinstance(whole, list) or whole == "refused":
        assert whole == outcome(lambda: [json.loads(element) for element in elements([damaged], read_chars=3)])


@given(
    rows=st.lists(st.dictionaries(st.just("k"), st.text(max_size=8), min_size=1), max_size=20), every=st.integers(1, 60)
)
def test_the_ranges_of_json_lines_are_the_rows_of_a_single_reader(tmp_path_factory, rows, every):
    source = _written(tmp_path_factory, "a.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    schema = pa.schema([("k", pa.string())])
    reader = JsonFormat(LoadConfig(files="x", table="t", split_bytes=every))

    found = []
    for unit in reader.units(source):
        for batch in reader.batches(source, unit, schema, lambda bad: pytest.fail(bad.reason)):
            found += batch.to_pylist()

    assert rows == found


def test_a_json_array_is_never_cut_and_a_broken_one_is_named(tmp_path_factory):
    reader = JsonFormat(LoadConfig(files="x", table="t", split_bytes=5))
    array = _written(tmp_path_factory, "a.json", '\ufeff \n[{"k": 1},\n {"k": 2},\n {"k": 3}]')
    broken = _written(tmp_path_factory, "b.json", '[{"k": 1}, {"k": ]')

    units = reader.units(array)

    assert [unit.start for unit in units] == [None]
    assert sum(b.num_rows for b in reader.batches(array, units[0], pa.schema([("k", pa.int64())]), pytest.fail)) == 3
    with pytest.raises(SourceUnreadable, match=r"b\.json cannot be read: not JSON: element 1"):
        list(reader.batches(broken, units[0], pa.schema([("k", pa.int64())]), pytest.fail))


def _tasks(source, places):
    units = [Unit(index=at, rows=None, size_bytes=1, start=a, end=b) for at, (a, b) in enumerate(places)]
    return [
        Task(source=source, format="csv", unit=unit, schema=pa.schema([]), number=at) for at, unit in enumerate(units)
    ]


@pytest.mark.parametrize(
    ("done", "left"),
    [
        ({}, [0, 1]),
        ({0: (0, 4)}, [1]),
        ({0: (0, 4), 1: (4, 9)}, []),
        ({0: (None, None)}, []),
        ({0: (0, 2), 1: (2, 5), 2: (5, 9)}, []),
    ],
    ids=["nothing", "the first", "both", "whole by an older version", "whole by other ranges"],
)
def test_what_is_left_of_a_file_follows_from_the_ranges_that_are_loaded(tmp_path_factory, done, left):
    source = _written(tmp_path_factory, "a.csv", "h\n1\n2\n3\n\n")

    tasks = units_left(_tasks(source, [(0, 4), (4, 9)]), {(source.url, source.etag): done})

    assert [task.unit.index for task in tasks] == left


def test_a_part_loaded_by_other_ranges_is_refused_not_loaded_twice(tmp_path_factory):
    source = _written(tmp_path_factory, "a.csv", "h\n1\n2\n3\n\n")

    with pytest.raises(RangesDiffer, match="split_bytes"):
        units_left(_tasks(source, [(0, 4), (4, 9)]), {(source.url, source.etag): {0: (0, 2)}})


_GROWTH = """
import re, sys
import pyarrow as pa
from tidemill_loader.config import LoadConfig
from tidemill_loader.formats.json import JsonFormat
from tidemill_loader.sources import find_files

def peak(path):
    if whole:
        import json
        json.load(open(path))
    reader, (source,) = JsonFormat(LoadConfig(files="x", table="t", batch_rows=2_000)), find_files([path])
    rows = sum(b.num_rows for u in reader.units(source) for b in reader.batches(source, u, schema, print))
    # not getrusage, which remembers the process that started us
    return rows, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

whole, schema = len(sys.argv) > 3, pa.schema([("id", pa.int64()), ("text", pa.string())])
_, before = peak(sys.argv[1])
rows, after = peak(sys.argv[2])
print(rows, after - before)
"""


@pytest.mark.parametrize(("whole", "is_bounded"), [([], True), (["whole"], False)], ids=["stream", "negative control"])
def test_the_memory_for_an_array_does_not_grow_with_it(tmp_path, whole, is_bounded):
    for name, count in (("small.json", 20_000), ("large.json", 400_000)):
        body = ",".join(f'{{"id": {at}, "text": "{"x" * 60}"}}' for at in range(count))
        (tmp_path / name).write_text(f"[{body}]")

    arguments = [sys.executable, "-c", _GROWTH, str(tmp_path / "small.json"), str(tmp_path / "large.json"), *whole]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)

    rows, grown_mb = done.stdout.split()
    assert int(rows) == 400_000
    assert (float(grown_mb) < 20) is is_bounded
