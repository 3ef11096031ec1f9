"""Create, upsert, replace and swap on a real server."""

import threading

import psycopg
import pyarrow as pa
import pytest
from tidemill_core.errors import ConfigError, PermanentError, TransientError
from tidemill_core.postgres import (
    PostgresRefused,
    PostgresUnavailable,
    ValueRefused,
    connect,
    copy_into,
    create_table,
    open_pool,
    postgres_errors,
    replace_where,
    swap_in,
    table_exists,
    upsert,
)


@pytest.fixture
def conn(postgres_url):
    with connect(postgres_url) as connection:
        yield connection


def _rows(conn, sql):
    return conn.execute(sql).fetchall()


def test_a_table_and_its_schema_are_made_once(conn):
    schema = pa.schema([("id", pa.int64()), ("x", pa.string())])

    create_table(conn, "new schema.t", schema, ("id",))
    create_table(conn, "new schema.t", schema, ("id",))

    assert table_exists(conn, "new schema.t")
    with pytest.raises(PostgresRefused, match="already exists"):
        create_table(conn, "new schema.t", schema, if_not_exists=False)


def test_sessions_that_create_the_same_table_wait_for_each_other(postgres_url):
    schema = pa.schema([("id", pa.int64())])
    failures = []

    def create():
        try:
            with connect(postgres_url) as mine:
                create_table(mine, "s.t", schema)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_an_upsert_updates_inserts_and_lets_the_last_row_win(conn):
    create_table(conn, "t", pa.schema([("id", pa.int64()), ("a", pa.string()), ("b", pa.int32())]), ("id",))
    copy_into(conn, "t", pa.table({"id": [1, 2], "a": ["old", "keep"], "b": [10, 20]}))

    result = upsert(conn, "t", pa.table({"id": [1, 3, 3], "a": ["new", "first", "last"]}), ["id"])

    assert result.rows == 3
    assert _rows(conn, "SELECT * FROM t ORDER BY id") == [(1, "new", 10), (2, "keep", 20), (3, "last", None)]


def test_an_upsert_twice_changes_nothing(conn):
    data = pa.table({"id": [1, 2], "k": ["x", "y"], "v": [1.5, None]})
    create_table(conn, "t", data.schema, ("id", "k"))

    upsert(conn, "t", data, ["id", "k"])
    upsert(conn, "t", data, ["id", "k"])

    assert _rows(conn, "SELECT * FROM t ORDER BY id") == [(1, "x", 1.5), (2, "y", None)]


def test_an_upsert_without_a_whole_key_is_refused(conn):
    create_table(conn, "t", pa.schema([("id", pa.int64()), ("x", pa.int64())]), ("id",))
    conn.commit()

    with pytest.raises(PostgresRefused, match="null in its key"):
        upsert(conn, "t", pa.table({"id": pa.array([None], pa.int64()), "x": [1]}), ["id"])
    with pytest.raises(PostgresRefused, match="unique or exclusion constraint"):
        upsert(conn, "t", pa.table({"id": [1], "x": [1]}), ["x"])
    with pytest.raises(ConfigError):
        upsert(conn, "t", pa.table({"id": [1]}), ["x"])
    assert _rows(conn, "SELECT count(*) FROM t") == [(0,)]


def test_a_partition_is_replaced_and_the_others_stay(conn):
    data = pa.table({"day": ["a", "a", "b"], "x": [1, 2, 3]})
    create_table(conn, "t", data.schema)
    copy_into(conn, "t", data)

    replace_where(conn, "t", pa.table({"day": ["a"], "x": [9]}), {"day": "a"})

    assert _rows(conn, "SELECT * FROM t ORDER BY day") == [("a", 9), ("b", 3)]
    with pytest.raises(ConfigError):
        replace_where(conn, "t", data, {})


def test_a_failed_partition_replace_keeps_the_old_rows(conn):
    conn.execute("CREATE TABLE t (day text, x smallint)")
    copy_into(conn, "t", pa.table({"day": ["a"], "x": [1]}))
    conn.commit()

    with pytest.raises(ValueRefused):
        replace_where(conn, "t", pa.table({"day": ["a"], "x": [70_000]}), {"day": "a"})

    assert _rows(conn, "SELECT * FROM t") == [("a", 1)]


def test_a_swap_keeps_grants_comments_indexes_and_names(conn):
    conn.execute("CREATE ROLE reader_of_t")
    try:
        create_table(conn, "s.t", pa.schema([("id", pa.int64()), ("x", pa.string())]), ("id",))
        conn.execute(
            "CREATE INDEX t_x ON s.t (lower(x)); GRANT SELECT ON s.t TO reader_of_t; COMMENT ON TABLE s.t IS 'its'"
        )
        conn.execute(
            "GRANT UPDATE (x) ON s.t TO reader_of_t; COMMENT ON COLUMN s.t.x IS 'words'; ALTER TABLE s.t ADD CONSTRAINT pos CHECK (id > 0)"
        )
        conn.commit()

        swap_in(conn, "s.t", pa.table({"id": [1, 2], "x": ["A", "B"], "more": [1, 2]}), primary_key=["id"])
        conn.commit()

        assert _rows(conn, "SELECT * FROM s.t ORDER BY id") == [(1, "A", 1), (2, "B", 2)]
        assert _rows(
            conn,
            "SELECT has_table_privilege('reader_of_t', 's.t', 'SELECT'), has_column_privilege('reader_of_t', 's.t', 'x', 'UPDATE')",
        ) == [(True, True)]
        assert _rows(conn, "SELECT obj_description('s.t'::regclass), col_description('s.t'::regclass, 2)") == [
            ("its", "words")
        ]
        assert _rows(conn, "SELECT indexname FROM pg_indexes WHERE schemaname = 's' ORDER BY 1") == [
            ("t_pkey",),
            ("t_x",),
        ]
        assert _rows(conn, "SELECT tablename FROM pg_tables WHERE schemaname = 's'") == [("t",)]
        with pytest.raises(PostgresRefused, match="pos"):
            copy_into(conn, "s.t", pa.table({"id": [-1]}))
    finally:
        conn.rollback()
        conn.execute("DROP OWNED BY reader_of_t; DROP ROLE reader_of_t")
        conn.commit()


def test_a_failed_swap_leaves_the_old_table_and_nothing_else(conn):
    swap_in(conn, "t", pa.table({"x": [1]}))
    conn.commit()

    with pytest.raises(ValueRefused):
        swap_in(conn, "t", pa.table({"x": ["a\x00"]}))

    assert _rows(conn, "SELECT * FROM t") == [(1,)]
    assert _rows(conn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(1,)]


def test_readers_see_the_old_table_while_the_new_one_loads(conn, postgres_url):
    swap_in(conn, "t", pa.table({"x": [1]}))
    conn.commit()
    seen = []

    def batches():
        for value in (2, 3):
            with connect(postgres_url) as reader:
                seen.append(_rows(reader, "SELECT x FROM t"))
            yield pa.record_batch({"x": [value]})

    swap_in(conn, "t", batches())
    conn.commit()

    assert seen == [[(1,)], [(1,)]]
    assert _rows(conn, "SELECT x FROM t ORDER BY x") == [(2,), (3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS SELECT * FROM t",
        "CREATE TABLE child (id int REFERENCES t)",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM t",
    ],
)
def test_a_swap_under_dependents_is_refused_before_loading(conn, sql):
    swap_in(conn, "t", pa.table({"id": pa.array([1], pa.int32())}), primary_key=["id"])
    conn.execute(sql)
    conn.commit()

    with pytest.raises(PostgresRefused, match="depend on it"):
        swap_in(conn, "t", pa.table({"id": [2]}))

    assert _rows(conn, "SELECT id FROM t") == [(1,)]


def test_writes_join_the_callers_transaction(conn, postgres_url):
    create_table(conn, "t", pa.schema([("x", pa.int64())]))
    conn.commit()

    conn.execute("SELECT 1")
    copy_into(conn, "t", pa.table({"x": [1]}))
    conn.rollback()

    assert _rows(conn, "SELECT count(*) FROM t") == [(0,)]


def test_no_server_is_transient_and_a_wrong_database_is_not(postgres_url):
    with pytest.raises(PostgresUnavailable):
        connect("postgresql://me:pw@127.0.0.1:1/db")
    info = psycopg.conninfo.make_conninfo(postgres_url, dbname="no_such_database")
    with pytest.raises(PermanentError, match="does not exist"):
        connect(info)


def test_a_cut_connection_and_a_deadlock_are_transient(postgres_url):
    with connect(postgres_url) as victim, connect(postgres_url, autocommit=True) as killer:
        killer.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))

        with pytest.raises(TransientError), postgres_errors("work"):
            victim.execute("SELECT 1")
        victim.close()


def test_connections_say_who_they_are_and_errors_hide_the_password(postgres_url):
    with open_pool(postgres_url, max_size=2) as pool, pool.connection() as pooled:
        assert _rows(pooled, "SHOW application_name") == [("tidemill",)]
    with pytest.raises(PostgresUnavailable) as failed:
        connect("postgresql://me:s3cret@127.0.0.1:1/db")
    assert "s3cret" not in str(failed.value)
