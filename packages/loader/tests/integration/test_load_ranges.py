"""Long text files load by ranges: in parallel, each range once, and as one reader would."""

import json

import pytest
from tidemill_core.postgres import connect
from tidemill_loader.config import LoadConfig
from tidemill_loader.engine import NoProgress, run_load
from tidemill_loader.errors import RangesDiffer
from tidemill_loader.report import load_rejects

ROWS = 2_000
_DIGEST = "SELECT count(*), md5(string_agg(t::text, '|' ORDER BY id, t::text)) FROM {} t"


@pytest.fixture
def query(postgres_url):
    with connect(postgres_url, autocommit=True) as conn:
        yield lambda sql: conn.execute(sql).fetchall()


def _csv(path):
    lines = [f'{at},"two\nlines, ""{at}""",{at / 8}' for at in range(ROWS)]
    path.write_text("id,note,x\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def _jsonl(path):
    path.write_text("".join(json.dumps({"id": at, "o": {"k": at}}) + "\n" for at in range(ROWS)), encoding="utf-8")
    return str(path)


class _Stopping(NoProgress):
    """Fails after some units, as a fault would."""

    def __init__(self, units):
        self.left = units

    def unit_done(self):
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("enough")


@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
@pytest.mark.parametrize("write", [_csv, _jsonl])
def test_ranges_bring_the_rows_of_a_single_reader(tmp_path, postgres_url, query, write, mode):
    files = write(tmp_path / f"a.{write.__name__.strip('_')}")
    run_load(LoadConfig(files=files, table="raw.whole", split="none"), postgres_url)

    result = run_load(LoadConfig(files=files, table="raw.cut", mode=mode, key="id", split_bytes=3_000), postgres_url)

    assert result.units > 10
    assert query(_DIGEST.format("raw.cut")) == query(_DIGEST.format("raw.whole"))


@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_a_load_that_was_stopped_goes_on_with_the_ranges_that_are_left(tmp_path, postgres_url, query, mode):
    config = LoadConfig(files=_csv(tmp_path / "a.csv"), table="raw.t", mode=mode, key="id", split_bytes=3_000)
    with pytest.raises(RuntimeError, match="enough"):
        run_load(config, postgres_url, progress=_Stopping(5))

    result = run_load(config, postgres_url)

    assert result.units_skipped >= 5
    assert result.total_rows == ROWS
    assert query("SELECT count(*), count(DISTINCT id) FROM raw.t") == [(ROWS, ROWS)]


def test_other_ranges_of_an_append_are_refused_while_it_is_half_done_and_known_when_it_is_whole(
    tmp_path, postgres_url, query
):
    files = _csv(tmp_path / "a.csv")
    config = LoadConfig(files=files, table="raw.t", mode="append", split_bytes=3_000)
    with pytest.raises(RuntimeError, match="enough"):
        run_load(config, postgres_url, progress=_Stopping(5))

    with pytest.raises(RangesDiffer, match="in part"):
        run_load(config.model_copy(update={"split_bytes": 5_000}), postgres_url)
    run_load(config, postgres_url)
    again = run_load(config.model_copy(update={"split_bytes": 5_000}), postgres_url)

    assert (again.unchanged, again.total_rows) == (True, ROWS)
    assert query("SELECT count(*) FROM raw.t") == [(ROWS,)]


def test_other_ranges_of_a_replace_begin_again(tmp_path, postgres_url, query):
    config = LoadConfig(files=_csv(tmp_path / "a.csv"), table="raw.t", split_bytes=3_000)
    with pytest.raises(RuntimeError, match="enough"):
        run_load(config, postgres_url, progress=_Stopping(5))

    run_load(config.model_copy(update={"split_bytes": 5_000}), postgres_url)

    assert query("SELECT count(*), count(DISTINCT id) FROM raw.t") == [(ROWS, ROWS)]


def test_a_file_that_an_older_version_loaded_whole_is_not_loaded_again(tmp_path, postgres_url, query):
    config = LoadConfig(files=_csv(tmp_path / "a.csv"), table="raw.t", mode="append", split="none")
    run_load(config, postgres_url)
    with connect(postgres_url, autocommit=True) as conn:
        conn.execute("ALTER TABLE tidemill.load_ledger DROP COLUMN start_byte, DROP COLUMN end_byte")

    again = run_load(config.model_copy(update={"split": "auto", "split_bytes": 3_000}), postgres_url)

    assert (again.unchanged, again.total_rows) == (True, ROWS)


def test_a_bad_row_is_set_aside_with_its_range_and_its_row_in_it(tmp_path, postgres_url, query):
    lines = [f"{at},{'oops' if at == 1_500 else at}" for at in range(ROWS)]
    (tmp_path / "a.csv").write_text("id,v\n" + "\n".join(lines) + "\n")

    result = run_load(
        LoadConfig(
            files=f"{tmp_path}/a.csv", table="raw.t", split_bytes=2_000, max_rejects=1, columns={"v": "integer"}
        ),
        postgres_url,
    )

    (reject,) = load_rejects(postgres_url, "raw.t")
    assert (result.rows, reject["column"]) == (ROWS - 1, "v")
    assert reject["unit"] > 0
    assert "'1500'" in reject["record"]


@pytest.mark.parametrize("before", ["", "\n", "\r\n\r\n", "\ufeff\n"])
def test_empty_lines_before_the_header_are_no_rows(tmp_path, postgres_url, query, before):
    (tmp_path / "a.csv").write_bytes(f"{before}id,v\n1,2\n".encode())

    run_load(LoadConfig(files=f"{tmp_path}/a.csv", table="raw.t"), postgres_url)

    assert query("SELECT id, v FROM raw.t") == [(1, 2)]
