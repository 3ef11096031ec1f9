"""Loads of every mode and format into a real PostgreSQL."""

import gzip
import itertools
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tidemill_core.errors import ConfigError, PermanentError
from tidemill_core.lineage_hooks import subscribed
from tidemill_core.postgres import PostgresRefused, connect
from tidemill_core.storage import open_store
from tidemill_loader import engine
from tidemill_loader.config import LoadConfig
from tidemill_loader.engine import run_load
from tidemill_loader.errors import (
    LoadBusy,
    SchemaConflict,
    SourceChanged,
    SourceMissing,
    SourceUnreadable,
    TooManyRejects,
)
from tidemill_loader.report import load_rejects, load_status


@pytest.fixture
def conn(postgres_url):
    with connect(postgres_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def query(conn):
    return lambda sql: conn.execute(sql).fetchall()


def _parquet(path, rows=100, start=0, groups=20):
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(start, start + rows), "name": [f"n{at}" for at in range(start, start + rows)]})
    pq.write_table(table, path, row_group_size=groups)
    return path


def _config(files, **more):
    return LoadConfig(files=str(files), table=more.pop("table", "raw.t"), **more)


def test_a_replace_loads_every_row_group_and_says_so(tmp_path, postgres_url, query):
    _parquet(tmp_path / "a.parquet", 100)

    result = run_load(_config(tmp_path / "a.parquet", key="id"), postgres_url)

    assert (result.rows, result.units, result.source_rows, result.unchanged) == (100, 5, 100, False)
    assert query("SELECT count(*), sum(id) FROM raw.t") == [(100, 4950)]
    assert query("SELECT count(*) FROM pg_constraint WHERE conrelid = 'raw.t'::regclass AND contype = 'p'") == [(1,)]


def test_a_second_replace_of_the_same_files_does_nothing(tmp_path, postgres_url, query):
    _parquet(tmp_path / "a.parquet")
    run_load(_config(tmp_path / "*.parquet"), postgres_url)
    before = query("SELECT 'raw.t'::regclass::oid, xmin FROM raw.t LIMIT 1")

    again = run_load(_config(tmp_path / "*.parquet"), postgres_url)

    assert (again.unchanged, again.rows, again.units, again.total_rows) == (True, 0, 0, 100)
    assert query("SELECT 'raw.t'::regclass::oid, xmin FROM raw.t LIMIT 1") == before


def test_a_forced_or_a_changed_or_a_dropped_load_is_done_again(tmp_path, postgres_url, query, conn):
    path = _parquet(tmp_path / "a.parquet")
    config = _config(path)
    run_load(config, postgres_url)

    assert run_load(config, postgres_url, force=True).rows == 100
    conn.execute("DROP TABLE raw.t")
    assert run_load(config, postgres_url).rows == 100
    _parquet(path, 30)
    assert run_load(config, postgres_url).rows == 30
    assert query("SELECT count(*) FROM raw.t") == [(30,)]


def test_the_version_of_a_table_changes_with_every_load_that_changed_it_and_only_then(tmp_path, postgres_url, conn):
    path = _parquet(tmp_path / "a.parquet")
    added = _config(tmp_path / "b.parquet", mode="append")

    versions = [run_load(_config(path), postgres_url).version for _ in range(2)]
    versions.append(run_load(_config(path), postgres_url, force=True).version)
    _parquet(path, 100)  # the same rows, written anew
    versions.append(run_load(_config(path), postgres_url).version)
    _parquet(tmp_path / "b.parquet")
    versions += [run_load(added, postgres_url).version for _ in range(2)]
    conn.execute("DROP TABLE raw.t")
    versions.append(run_load(_config(path), postgres_url).version)

    changed = [before != after for before, after in itertools.pairwise(versions)]
    assert changed == [False, True, True, True, False, True]


def test_an_append_loads_each_file_once(tmp_path, postgres_url, query):
    _parquet(tmp_path / "a.parquet", 50)
    config = _config(tmp_path / "*.parquet", mode="append")
    run_load(config, postgres_url)
    _parquet(tmp_path / "b.parquet", 50, start=50)

    second = run_load(config, postgres_url)
    third = run_load(config, postgres_url)

    assert (second.rows, second.total_rows, third.rows, third.unchanged) == (50, 100, 0, True)
    assert query("SELECT count(*), count(DISTINCT id) FROM raw.t") == [(100, 100)]


def test_an_append_of_a_rewritten_file_is_a_decision(tmp_path, postgres_url, query):
    path = _parquet(tmp_path / "a.parquet", 10)
    run_load(_config(path, mode="append"), postgres_url)
    _parquet(path, 12)

    with pytest.raises(SourceChanged, match="on_changed"):
        run_load(_config(path, mode="append"), postgres_url)
    skipped = run_load(_config(path, mode="append", on_changed="skip"), postgres_url)
    loaded = run_load(_config(path, mode="append", on_changed="load"), postgres_url)

    assert (skipped.rows, loaded.rows) == (0, 12)
    assert query("SELECT count(*) FROM raw.t") == [(22,)]


def test_an_upsert_merges_and_the_later_file_wins(tmp_path, postgres_url, query):
    for name, value in (("a", "old"), ("b", "new")):
        pq.write_table(pa.table({"id": [1, 2], "v": [value, value]}), tmp_path / f"{name}.parquet", row_group_size=1)
    run_load(_config(tmp_path / "*.parquet", mode="upsert", key="id"), postgres_url)
    pq.write_table(pa.table({"id": [2, 3], "v": ["x", "y"]}), tmp_path / "c.parquet")

    run_load(_config(tmp_path / "c.parquet", mode="upsert", key="id"), postgres_url)

    assert query("SELECT * FROM raw.t ORDER BY id") == [(1, "new"), (2, "x"), (3, "y")]
    assert query("SELECT count(*) FROM pg_tables WHERE schemaname = 'raw'") == [(1,)]


def test_csv_keeps_what_text_says(tmp_path, postgres_url, query):
    (tmp_path / "a.csv").write_text(
        'zip,n,price,when,flag,note\n00501,1,1.10,2013-01-01T05:00:00Z,true,"a ""b"", c"\n'
        '10001,,2.50,2013-01-01T06:00:00Z,false,"two\nlines"\n90210,3,3.00,,,\\.\n',
        encoding="utf8",
    )

    run_load(_config(tmp_path / "a.csv"), postgres_url)

    types = dict(
        query(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'raw.t'::regclass AND attnum > 0"
        )
    )
    assert types == {
        "zip": "text",
        "n": "bigint",
        "price": "double precision",
        "when": "timestamp with time zone",
        "flag": "boolean",
        "note": "text",
    }
    assert query("SELECT zip, n, price, flag, note FROM raw.t ORDER BY zip") == [
        ("00501", 1, 1.1, True, 'a "b", c'), ("10001", None, 2.5, False, "two\nlines"), ("90210", 3, 3.0, None, "\\."),
    ]  # fmt: skip


def test_csv_options_overrides_renames_and_compression(tmp_path, postgres_url, query):
    with gzip.open(tmp_path / "a.csv.gz", "wt", encoding="latin-1") as file:
        file.write("# made by hand\nA|B|C\nNA|1.5|x\né|2.25|y\n")

    run_load(
        _config(
            tmp_path / "a.csv.gz",
            csv={"delimiter": "|", "skip_rows": 1, "encoding": "latin-1"},
            nulls=["NA"],
            columns={"A": {"rename": "a name"}, "B": "numeric(9,2)", "C": {"skip": True}},
        ),
        postgres_url,
    )

    assert [(a, str(b)) for a, b in query('SELECT "a name", "B" FROM raw.t ORDER BY "B"')] == [
        (None, "1.50"),
        ("é", "2.25"),
    ]
    assert query("SELECT count(*) FROM pg_attribute WHERE attrelid = 'raw.t'::regclass AND attnum > 0") == [(2,)]


def test_json_lines_and_arrays_keep_digits_and_nesting(tmp_path, postgres_url, query):
    lines = '{"id": 1, "big": 12345678901234567890, "x": 0.1, "tags": ["a"], "o": {"k": 1.10}}\n\n{"id": 2, "s": "t", "x": 2}\n'
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.json").write_text(json.dumps([{"id": 3, "s": "u"}, {"id": 4, "o": None}], indent=2))

    run_load(_config([str(tmp_path / "a.jsonl"), str(tmp_path / "b.json")][0], table="raw.a"), postgres_url)
    run_load(_config(tmp_path / "*.json*", table="raw.b"), postgres_url)

    assert query("SELECT id, big::text, x, tags, o::text, s FROM raw.b ORDER BY id") == [
        (1, "12345678901234567890", 0.1, ["a"], '{"k": 1.10}', None), (2, None, 2.0, None, None, "t"), (3, None, None, None, None, "u"), (4, None, None, None, None, None),
    ]  # fmt: skip
    assert query("SELECT count(*) FROM raw.a") == [(2,)]


def test_hive_folders_become_columns(tmp_path, postgres_url, query):
    for year, month in ((2013, "01"), (2013, "02"), (2014, "__HIVE_DEFAULT_PARTITION__")):
        _parquet(tmp_path / f"year={year}" / f"month={month}" / "x.parquet", 10)

    run_load(_config(f"{tmp_path}/**/*.parquet"), postgres_url)

    assert query("SELECT year, month, count(*) FROM raw.t GROUP BY 1, 2 ORDER BY 1, 2") == [
        (2013, "01", 10),
        (2013, "02", 10),
        (2014, None, 10),
    ]


def test_files_of_different_columns_are_united(tmp_path, postgres_url, query):
    pq.write_table(pa.table({"id": pa.array([1], pa.int32()), "a": ["x"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"b": [1.5], "id": pa.array([2**40], pa.int64())}), tmp_path / "2.parquet")

    run_load(_config(tmp_path / "*.parquet"), postgres_url)

    assert query("SELECT id, a, b FROM raw.t ORDER BY id") == [(1, "x", None), (2**40, None, 1.5)]


def test_files_that_disagree_are_refused_and_an_override_settles_it(tmp_path, postgres_url, query):
    pq.write_table(pa.table({"x": [True]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": ["yes"]}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"x": [b"1"]}), tmp_path / "3.parquet")

    with pytest.raises(SchemaConflict, match="'x'"):
        run_load(_config(tmp_path / "*.parquet"), postgres_url)
    run_load(_config(tmp_path / "*.parquet", columns={"x": "text"}), postgres_url)

    assert sorted(query("SELECT x FROM raw.t")) == [("1",), ("true",), ("yes",)]


def test_empty_files_make_an_empty_table(tmp_path, postgres_url, query):
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,x\n")
    (tmp_path / "zero.csv").write_text("")

    run_load(_config(tmp_path / "a.parquet"), postgres_url)
    run_load(_config(tmp_path / "*.csv", table="raw.c"), postgres_url)

    assert query("SELECT count(*) FROM raw.t") == query("SELECT count(*) FROM raw.c") == [(0,)]


def test_no_files_is_an_error_unless_allowed(tmp_path, postgres_url):
    with pytest.raises(SourceMissing, match="allow_empty"):
        run_load(_config(tmp_path / "*.parquet"), postgres_url)

    assert run_load(_config(tmp_path / "*.parquet", allow_empty=True), postgres_url).unchanged


def test_a_file_that_is_not_what_it_says_is_named(tmp_path, postgres_url):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "a.xyz").write_bytes(b"")

    with pytest.raises(SourceUnreadable, match=r"a\.parquet"):
        run_load(_config(tmp_path / "a.parquet"), postgres_url)
    with pytest.raises(ConfigError, match="format"):
        run_load(_config(tmp_path / "a.xyz"), postgres_url)


def test_weird_names_survive(tmp_path, postgres_url, query):
    names = ['say "hi"', "SELECT", "Größe; DROP TABLE x", "a" * 70 + "1", "a" * 70 + "2", " ", "%s"]
    pq.write_table(pa.table([[at] for at in range(len(names))], names=names), tmp_path / "it's 100% #1?.parquet")

    run_load(_config(f"{tmp_path}/it's*.parquet", table='"My Schema"."t ""x"""'), postgres_url)

    row = query('SELECT * FROM "My Schema"."t ""x"""')[0]
    assert row == tuple(range(len(names)))


def test_bad_rows_are_set_aside_with_their_place(tmp_path, postgres_url, query):
    rows = [f"{at},{at}" for at in range(1000)]
    rows[10], rows[500], rows[700] = "10,oops", "500", "700,70000000000000000000"
    (tmp_path / "a.csv").write_text("id,v\n" + "\n".join(rows) + "\n")
    config = _config(tmp_path / "a.csv", max_rejects=3, columns={"v": "integer"})

    result = run_load(config, postgres_url)

    assert (result.rows, result.rejected) == (997, 3)
    assert query("SELECT count(*) FROM raw.t") == [(997,)]
    found = {(each["row"], each["column"]) for each in load_rejects(postgres_url, "raw.t")}
    assert found == {(10, "v"), (500, None), (700, "v")}


def test_one_bad_row_too_many_stops_the_load_and_keeps_the_old_table(tmp_path, postgres_url, query):
    _parquet(tmp_path / "old.parquet", 7)
    run_load(_config(tmp_path / "old.parquet"), postgres_url)
    (tmp_path / "a.csv").write_text("id,name\n1,a\nx,b\ny,c\n")

    for allowed in (0, 1):
        with pytest.raises(TooManyRejects, match="row"):
            run_load(_config(tmp_path / "a.csv", max_rejects=allowed, columns={"id": "bigint"}), postgres_url)

    assert query("SELECT count(*) FROM raw.t") == [(7,)]
    assert load_rejects(postgres_url, "raw.t") == []


def test_rows_the_server_refuses_are_found_and_set_aside(tmp_path, postgres_url, query, conn):
    conn.execute("CREATE SCHEMA raw; CREATE TABLE raw.t (id bigint PRIMARY KEY, doc jsonb CHECK (doc <> '7'))")
    docs = [json.dumps(at) for at in range(300)]
    docs[50], docs[120] = "{broken", "7"
    pq.write_table(pa.table({"id": [*range(299), 5], "doc": docs}), tmp_path / "a.parquet")

    result = run_load(_config(tmp_path / "a.parquet", mode="append", max_rejects=10), postgres_url)

    rejects = load_rejects(postgres_url, "raw.t")
    assert (result.rows, result.rejected) == (296, 4)
    assert {each["row"] for each in rejects} == {7, 50, 120, 299}
    assert query("SELECT count(*) FROM raw.t") == [(296,)]


def test_existing_columns_decide_and_a_missing_one_is_named(tmp_path, postgres_url, query, conn):
    conn.execute("CREATE SCHEMA raw; CREATE TABLE raw.t (id numeric(10,1), made timestamptz DEFAULT now())")
    pq.write_table(pa.table({"id": [1.5, 2.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [1.5], "extra": [1]}), tmp_path / "b.parquet")

    run_load(_config(tmp_path / "a.parquet", mode="append"), postgres_url)

    assert [str(row[0]) for row in query("SELECT id FROM raw.t ORDER BY id")] == ["1.5", "2.0"]
    with pytest.raises(SchemaConflict, match="extra"):
        run_load(_config(tmp_path / "b.parquet", mode="append"), postgres_url)


def test_one_failing_connection_leaves_the_old_table(tmp_path, postgres_url, query):
    _parquet(tmp_path / "old.parquet", 7)
    run_load(_config(tmp_path / "old.parquet"), postgres_url)
    values = list(range(100))
    pq.write_table(pa.table({"id": [*values[:-1], 10**10]}), tmp_path / "new.parquet", row_group_size=10)

    with pytest.raises(TooManyRejects, match="row 9, column 'id'"):
        run_load(_config(tmp_path / "new.parquet", columns={"id": "integer"}, workers=2), postgres_url)

    assert query("SELECT count(*) FROM raw.t") == [(7,)]


def test_a_replace_under_a_view_is_refused_before_work(tmp_path, postgres_url, conn):
    path = _parquet(tmp_path / "a.parquet", 7)
    run_load(_config(path), postgres_url)
    conn.execute("CREATE VIEW v AS SELECT * FROM raw.t")
    _parquet(path, 8)

    with pytest.raises(PostgresRefused, match="view v"):
        run_load(_config(path), postgres_url)


def test_two_loaders_of_one_table_take_turns(tmp_path, postgres_url, conn, monkeypatch):
    path = _parquet(tmp_path / "a.parquet", 7)
    conn.execute("SELECT pg_advisory_lock(hashtextextended('tidemill.load raw.t', 0))")
    monkeypatch.setattr(engine, "LOCK_WAIT_S", 0.3)

    with pytest.raises(LoadBusy):
        run_load(_config(path), postgres_url)


def test_a_file_rewritten_under_the_load_is_not_committed(tmp_path, postgres_url, query):
    path = _parquet(tmp_path / "a.parquet", 100)

    class Rewriter(engine.NoProgress):
        def advance(self, rows, size):
            path.touch()

    with pytest.raises(SourceChanged, match="rewritten"):
        run_load(_config(path), postgres_url, progress=Rewriter())

    assert query("SELECT to_regclass('raw.t')") == [(None,)]


def test_a_cut_connection_is_opened_anew(tmp_path, postgres_url, query, conn):
    path = _parquet(tmp_path / "a.parquet", 100)
    cut = []

    class Cutter(engine.NoProgress):
        def unit_done(self):
            if not cut:
                cut.extend(
                    conn.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%COMMIT%' AND datname = current_database() AND pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
                    ).fetchall()
                )

    result = run_load(
        _config(path, workers=1),
        postgres_url,
        progress=Cutter(),
        retry=engine.RETRY.model_copy(update={"delay_s": 0.01}),
    )

    assert cut
    assert result.rows == 100
    assert query("SELECT count(*), count(DISTINCT id) FROM raw.t") == [(100, 100)]


def test_a_memory_store_is_a_source_and_lineage_hears_of_it(postgres_url, tmp_path):
    store = open_store("memory://loader-test")
    store.put("x/a.parquet", _parquet(tmp_path / "a.parquet", 10).read_bytes())
    heard = []

    with subscribed(heard.append):
        run_load(
            LoadConfig(files="memory://loader-test/x/*.parquet", table="raw.t"),
            postgres_url,
            opener=lambda url: _under(store, url),
        )

    read, wrote = heard
    assert (read.kind, wrote.kind, wrote.rows) == ("read", "wrote", 10)
    assert wrote.dataset.endswith("/raw.t")
    assert wrote.dataset.startswith("postgres://")
    assert wrote.inputs == (read.dataset,)
    assert [(c.name, c.type, c.sources) for c in wrote.columns] == [
        ("id", "bigint", ((read.dataset, "id"),)),
        ("name", "text", ((read.dataset, "name"),)),
    ]


def _under(store, url):
    return open_store(url)


def test_status_tells_what_is_loaded(tmp_path, postgres_url):
    _parquet(tmp_path / "a.parquet", 40)
    run_load(_config(tmp_path / "a.parquet"), postgres_url)
    run_load(_config(tmp_path / "a.parquet", mode="append", table="raw.u"), postgres_url)

    rows = [
        (each["table"], each["mode"], each["state"], each["units"], each["rows"]) for each in load_status(postgres_url)
    ]

    assert rows == [("raw.t", "replace", "done", 2, 40), ("raw.u", "append", "done", 2, 40)]


def test_errors_are_permanent_where_trying_again_cannot_help():
    assert issubclass(SchemaConflict, PermanentError)
    assert issubclass(TooManyRejects, PermanentError)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_of_nothing_but_broken_rows_stops_at_the_limit(tmp_path, postgres_url, name):
    lines = ["id,v", *["1"] * 50_000] if name == "a.csv" else ['{"id": 1, "v": 2}', *["{"] * 50_000]
    (tmp_path / name).write_text("\n".join(lines) + "\n")

    with pytest.raises(TooManyRejects, match="more than 5"):
        run_load(_config(tmp_path / name, max_rejects=5), postgres_url)


def test_an_append_to_a_table_that_was_dropped_or_replaced_loads_again(tmp_path, postgres_url, query, conn):
    path = _parquet(tmp_path / "a.parquet", 20)
    other = _parquet(tmp_path / "b.parquet", 5)
    append, replace = _config(path, mode="append"), _config(other)
    run_load(append, postgres_url)
    conn.execute("DROP TABLE raw.t")

    again = run_load(append, postgres_url)
    run_load(replace, postgres_url)
    after_replace = run_load(append, postgres_url)

    assert (again.rows, after_replace.rows) == (20, 20)
    assert query("SELECT count(*) FROM raw.t") == [(25,)]


def test_a_replace_of_a_table_that_was_appended_to_is_done_again(tmp_path, postgres_url, query):
    path, more = _parquet(tmp_path / "a.parquet", 20), _parquet(tmp_path / "b.parquet", 5)
    run_load(_config(path), postgres_url)
    run_load(_config(more, mode="append"), postgres_url)

    again = run_load(_config(path), postgres_url)

    assert again.rows == 20
    assert query("SELECT count(*) FROM raw.t") == [(20,)]


def test_an_upsert_without_its_constraint_is_refused_before_loading(tmp_path, postgres_url, conn, query):
    path = _parquet(tmp_path / "a.parquet", 20)
    conn.execute("CREATE SCHEMA raw; CREATE TABLE raw.t (id bigint, name text, UNIQUE (id, name))")

    with pytest.raises(PostgresRefused, match="unique index on exactly"):
        run_load(_config(path, mode="upsert", key="id"), postgres_url)

    assert query("SELECT count(*) FROM pg_tables WHERE schemaname = 'raw'") == [(1,)]


def test_bytes_that_are_no_utf8_cost_their_row_alone(tmp_path, postgres_url, query):
    (tmp_path / "a.csv").write_bytes(b"id,x\n1,ok\n2,\xff\xfe\n3,fine\n")

    result = run_load(_config(tmp_path / "a.csv", max_rejects=1), postgres_url)

    (reject,) = load_rejects(postgres_url, "raw.t")
    assert (result.rows, reject["row"], reject["column"]) == (2, 1, "x")
    assert "\ufffd" in reject["record"]
    assert query("SELECT id FROM raw.t ORDER BY id") == [(1,), (3,)]


def test_int96_timestamps_far_away_do_not_wrap(tmp_path, postgres_url, query):
    far = pa.array(["9999-12-31T00:00:00", "2020-01-01T01:02:03.456789"]).cast(pa.timestamp("us"))
    pq.write_table(pa.table({"t": far}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)

    run_load(_config(tmp_path / "a.parquet"), postgres_url)

    assert query("SELECT t::text FROM raw.t ORDER BY t DESC") == [
        ("9999-12-31 00:00:00",),
        ("2020-01-01 01:02:03.456789",),
    ]


def test_a_sample_cut_inside_a_quoted_field_does_no_harm(tmp_path, postgres_url, query):
    (tmp_path / "a.csv").write_text("id,x\n" + "".join(f'{at},"line\none {at}"\n' for at in range(2_000)))

    for size in (775, 780, 785):
        result = run_load(_config(tmp_path / "a.csv", sample_bytes=size), postgres_url, force=True)

        assert (result.rows, result.columns["id"]) == (2_000, "bigint")


def test_the_first_loads_of_a_database_may_start_together(tmp_path, postgres_url):
    path = _parquet(tmp_path / "a.parquet", 20)
    failures = []

    def load(table):
        try:
            run_load(_config(path, table=table), postgres_url)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=load, args=(f"s{at}.t",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(load_status(postgres_url)) == 4
