"""
A user's SELECT reads what it may, tells where it is wrong, and changes nothing, whatever it says.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.errors import NotReady, SourceError, StorageError
from batchrank.source.stage.asking import Interrupted, look, rows_of, schema_of, stream, types_of
from batchrank.source.stage.locked import connect, identity
from batchrank.source.stage.statement import select

MEMORY_BYTES = 200_000_000


@dataclass(frozen=True)
class Place:
    """
    A folder with a database, files that may be read, and files that may not.
    """

    root: Path
    connection: duckdb.DuckDBPyConnection

    def snapshot(self) -> dict[str, str]:
        """
        Every file and folder, with its content.
        """
        return {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            for path in sorted(self.root.rglob("*"))
            if path.suffix != ".duckdb"  # to open it would give up DuckDB's lock
        } | {"database": str((self.root / "d.duckdb").stat().st_size)}

    def rows(self, sql: str, **parameters: object) -> list[tuple[object, ...]]:
        """
        What a SELECT returns.
        """
        statement = select(sql.replace("ROOT", str(self.root)), parameters, base=self.root)
        with stream(self.connection, statement, 1_000) as rows:
            return [tuple(row.values()) for batch in rows for row in batch.to_pylist()]


def write_place(root: Path) -> None:
    """
    The files.
    """
    for name in ("in", "in/deep", "other", "in2"):
        (root / name).mkdir()
    (root / "in/a.csv").write_text("a,b\n1,x\n2,y\n")
    (root / "in/deep/it's.csv").write_text("a,b\n3,z\n")
    (root / "in/l.jsonl").write_text('{"a": 1, "b": ["x"]}\n')
    pq.write_table(pa.table({"a": [7, 8]}), root / "in/p.parquet")
    (root / "other/secret.csv").write_text("canary\n42\n")
    (root / "in2/secret.csv").write_text("canary\n42\n")
    (root / "in/deep/link.csv").symlink_to(root / "other/secret.csv")
    with duckdb.connect(str(root / "d.duckdb")) as made:
        made.execute("CREATE TABLE t AS SELECT range AS a, 'é' || range AS b FROM range(3)")
        made.execute("CREATE VIEW v AS SELECT a + 1 AS more, CAST(b AS VARCHAR) AS b FROM t")
        made.execute("CREATE VIEW bad AS SELECT CAST(b AS INTEGER) AS n FROM t")
        made.execute("CREATE SEQUENCE numbers")
        made.execute(f"CREATE VIEW outside AS SELECT * FROM read_csv('{root}/other/secret.csv')")
        copy = f"WITH x AS (COPY t TO ''{root}/in/hidden.csv'') SELECT * FROM x"
        hidden = f"json_execute_serialized_sql(json_serialize_sql('{copy}'))"
        made.execute(f"CREATE VIEW hiding AS SELECT * FROM {hidden}")
        made.execute("CREATE VIEW deeper AS SELECT * FROM query('FROM hiding')")
        made.execute(f"CREATE MACRO nested() AS (SELECT count(*) FROM {hidden})")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    One locked connection for all; the process stands in the folder, so that `..` means something.
    """
    root = tmp_path_factory.mktemp("locked")
    write_place(root)
    before = Path.cwd()
    os.chdir(root)
    with connect(
        database=root / "d.duckdb",
        readable=[root / "in"],
        temp=root / "spill",
        memory_bytes=MEMORY_BYTES,
    ) as connection:
        yield Place(root, connection)
    os.chdir(before)


COPY = "COPY (SELECT 1) TO 'ROOT/in/w.csv'"
HIDDEN = "WITH x AS (COPY t TO ''ROOT/in/w.csv'') FROM x"
HOSTILE = [
    # statements that are no SELECT
    (COPY, "it is COPY"),
    ("COPY t TO 'ROOT/spill/w.csv'", "it is COPY"),
    ("COPY FROM DATABASE d TO d", "only a SELECT is run"),
    ("EXPORT DATABASE 'ROOT/in/w'", "only a SELECT is run"),
    ("IMPORT DATABASE 'ROOT/in/w'", "only a SELECT is run"),
    ("ATTACH 'ROOT/in/w.duckdb' AS w", "it is ATTACH"),
    ("DETACH d", "it is DETACH"),
    ("USE d", "it is SET"),
    ("INSTALL httpfs", "only a SELECT is run"),
    ("LOAD httpfs", "it is LOAD"),
    ("SET threads = 8", "it is SET"),
    ("RESET threads", "it is SET"),
    ("SET VARIABLE x = 1", "it is SET"),
    ("PRAGMA enable_profiling", "it is PRAGMA"),
    ("CALL enable_logging()", "it is CALL"),
    ("CREATE TABLE w AS SELECT 1", "it is CREATE"),
    ("CREATE TEMP VIEW w AS SELECT 1", "it is CREATE"),
    ("CREATE SECRET (TYPE s3)", "only a SELECT is run"),
    ("INSERT INTO t VALUES (1, 'x')", "it is INSERT"),
    ("UPDATE t SET a = 1", "it is UPDATE"),
    ("DELETE FROM t", "it is DELETE"),
    ("MERGE INTO t USING t u ON t.a = u.a WHEN MATCHED THEN DELETE", "it is MERGE_INTO"),
    ("DROP TABLE t", "it is DROP"),
    ("ALTER TABLE t ADD COLUMN c INT", "it is ALTER"),
    ("CHECKPOINT", "only a SELECT is run"),
    ("VACUUM", "it is VACUUM"),
    ("BEGIN", "it is TRANSACTION"),
    ("PREPARE p AS SELECT 1", "it is PREPARE"),
    ("EXECUTE p", "it is EXECUTE"),
    ("EXPLAIN SELECT 1", "it is EXPLAIN"),
    ("EXPLAIN ANALYZE SELECT 1", "it is EXPLAIN"),
    (f"EXPLAIN ANALYZE WITH x AS ({COPY}) SELECT * FROM x", "it is EXPLAIN"),
    ("PIVOT t ON b USING sum(a)", "a PIVOT without IN"),
    ("SELECT * FROM (PIVOT t ON b USING sum(a))", "a PIVOT without IN"),
    # what is written inside one
    (f"WITH x AS ({COPY}) SELECT * FROM x", "COPY is not allowed"),
    (f"WITH x AS ({COPY}) SELECT 1", "COPY is not allowed"),
    (f"WITH y AS (WITH x AS ({COPY}) FROM x) FROM y", "COPY is not allowed"),
    (f"SELECT (WITH x AS ({COPY}) SELECT count(*) FROM x)", "COPY is not allowed"),
    (f"SELECT 1 WHERE EXISTS (WITH x AS ({COPY}) FROM x)", "COPY is not allowed"),
    (f"SELECT 1 UNION ALL (WITH x AS ({COPY}) SELECT 2 FROM x)", "COPY is not allowed"),
    (f"FROM t, LATERAL (WITH x AS ({COPY}) FROM x)", "COPY is not allowed"),
    ("WITH x AS (COPY t TO 'ROOT/d.duckdb') FROM x", "COPY is not allowed"),
    ("WITH x AS (INSERT INTO t VALUES (1, 'x') RETURNING *) FROM x", "INSERT is not allowed"),
    ("WITH x AS (UPDATE t SET a = 1 RETURNING *) FROM x", "UPDATE is not allowed"),
    ("WITH x AS (DELETE FROM t RETURNING *) FROM x", "DELETE is not allowed"),
    # more than one, and ways out of the subquery
    ("SELECT 1; SELECT 2", "2 statements (SELECT, SELECT)"),
    (f"SELECT 1; {COPY}", "2 statements (SELECT, COPY)"),
    (f"SELECT 1) q; {COPY}; SELECT * FROM (SELECT 1", 'syntax error at or near ")"'),
    ("SELECT 1) q --", 'syntax error at or near ")"'),
    ("SELECT 1 /*", "unterminated /* comment"),
    ("SELECT 'x", "unterminated"),
    (f"SELECT 1\0; {COPY}", "a NUL character"),
    ("SELECT '\udc80'", "it is no valid text"),
    ("SELECT " + "||".join(["'a'"] * 800), "it is nested too deeply"),
    ("", "there is no statement"),
    (" -- nothing\n/* here */ ;", "there is no statement"),
    # functions that run SQL, or reach beyond the data
    ("FROM query('SELECT 1')", "query() is not allowed"),
    ("FROM query_table('t')", "query_table() is not allowed"),
    (
        f"FROM json_execute_serialized_sql(json_serialize_sql('{HIDDEN}'))",
        "json_execute_serialized_sql() is not allowed",
    ),
    ("FROM System.MAIN.\"Query\"('SELECT 1')", "query() is not allowed"),
    ("SELECT getenv('HOME')", "getenv() is not allowed"),
    ("SELECT current_setting('temp_directory')", "current_setting() is not allowed"),
    ("SELECT write_log('x')", "write_log() is not allowed"),
    ("SELECT 'x'.write_log()", "write_log() is not allowed"),
    ("SELECT nextval('numbers')", "nextval() is not allowed"),
    ("FROM glob('/*')", "glob() is not allowed"),
    ("FROM sniff_csv('/etc/passwd')", "sniff_csv() is not allowed"),
    ("FROM duckdb_secrets()", "duckdb_secrets() is not allowed"),
    ("FROM which_secret('s3://x', 's3')", "which_secret() is not allowed"),
    ("FROM duckdb_settings()", "duckdb_settings() is not allowed"),
    ("FROM enable_logging(storage = 'file')", "enable_logging() is not allowed"),
    ("FROM enable_profiling(save_location = 'ROOT/in/w')", "enable_profiling() is not allowed"),
    ("FROM checkpoint()", "checkpoint() is not allowed"),
    ("FROM read_csv('in/a.csv', store_rejects = true)", "store_rejects is not allowed"),
    ("FROM arrow_scan(1, 2, 3)", "arrow_scan() is not allowed"),
    ("FROM read_duckdb('ROOT/d.duckdb', table_name = 't')", "read_duckdb() is not allowed"),
    ("FROM sqlite_scan('ROOT/in/s.db', 't')", "sqlite_scan() is not allowed"),
    ("FROM sqlite_query('s', 'SELECT 1')", "sqlite_query() is not allowed"),
    ("FROM sqlite_attach('ROOT/in/s.db')", "sqlite_attach() is not allowed"),
    ("FROM postgres_scan('host=a', 'public', 't')", "postgres_scan() is not allowed"),
    ("FROM postgres_scan_pushdown('', 'a', 't')", "postgres_scan_pushdown() is not allowed"),
    ("FROM postgres_query('p', 'SELECT 1')", "postgres_query() is not allowed"),
    ("FROM postgres_execute('p', 'DROP TABLE t')", "postgres_execute() is not allowed"),
    ("CALL postgres_execute('p', 'DROP TABLE t')", "it is CALL"),
    ("FROM \"Postgres_Execute\"('p', 'COMMIT')", "postgres_execute() is not allowed"),
    ("FROM t, LATERAL (FROM postgres_query('p', b))", "postgres_query() is not allowed"),
    ("SELECT (FROM sqlite_query('s', 'SELECT 1'))", "sqlite_query() is not allowed"),
    ("FROM postgres_attach('')", "postgres_attach() is not allowed"),
    ("FROM pg_clear_cache()", "pg_clear_cache() is not allowed"),
    ("FROM read_postgres_binary('in/a')", "read_postgres_binary() is not allowed"),
    ("WITH x AS (INSERT INTO p.t VALUES (1) RETURNING *) FROM x", "INSERT is not allowed"),
    ("DESCRIBE t", "DESCRIBE, SHOW and SUMMARIZE cannot be read from"),
    ("SUMMARIZE t", "DESCRIBE, SHOW and SUMMARIZE cannot be read from"),
    ("FROM (SHOW TABLES)", "DESCRIBE, SHOW and SUMMARIZE cannot be read from"),
    # files that the job does not name
    ("FROM read_text('/etc/passwd')", "Cannot access file"),
    ("FROM read_blob('/proc/self/environ')", "Cannot access file"),
    ("FROM '/etc/passwd.csv'", "Cannot access file"),
    ("FROM 'other/secret.csv'", "Cannot access file"),
    ("FROM 'in2/secret.csv'", "Cannot access file"),
    ("FROM 'in/../other/secret.csv'", "Cannot access file"),
    ("FROM 'in*/secret.csv'", "Cannot access file"),
    ("FROM 'in/deep/link.csv'", "Cannot access file"),
    ("FROM read_csv('file://ROOT/other/secret.csv')", "Cannot access file"),
    ("FROM read_csv(['in/a.csv', 'other/secret.csv'])", "Cannot access file"),
    ("FROM 's3://bucket/a.parquet'", "Cannot access file"),
    ("FROM 'https://127.0.0.1/a.csv'", "Cannot access file"),
    ("FROM outside", "Cannot access file"),
    ("FROM place", "Table with name place does not exist"),
    # what views and macros of the database hide
    ("FROM hiding", "a view or a macro in it uses json_execute_serialized_sql"),
    ("FROM deeper", "a view or a macro in it uses json_execute_serialized_sql"),
    ("SELECT nested()", "a view or a macro in it uses json_execute_serialized_sql"),
    ("FROM duckdb_tables", "a view or a macro in it uses duckdb_tables"),
]


@pytest.mark.parametrize(("sql", "words"), HOSTILE, ids=[sql[:60] for sql, _ in HOSTILE])
def test_what_does_more_than_read_is_refused(place: Place, sql: str, words: str) -> None:
    """
    With the setting's name, before anything has been written anywhere.
    """
    before = place.snapshot()

    with pytest.raises(SourceError, match=r"source\.sql") as raised:
        place.rows(sql)

    assert words in str(raised.value)
    assert before == place.snapshot()


@pytest.mark.parametrize(
    "sql",
    [
        "SET allowed_directories = ['/']",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SET temp_directory = '/'",
        "RESET memory_limit",
        "CALL enable_logging(storage = 'file', storage_path = 'ROOT/in/log')",
        "LOAD httpfs",
        "INSTALL httpfs",
        "ATTACH 'ROOT/other/new.duckdb' AS n",
        "COPY t TO 'ROOT/other/w.csv'",
        "INSERT INTO t VALUES (9, 'x')",
        "FROM read_text('/etc/passwd')",
    ],
)
def test_the_connection_is_locked_by_itself(place: Place, sql: str) -> None:
    """
    If somebody forgot to look at the SQL, it could still do little.
    """
    before = place.snapshot()

    with pytest.raises(duckdb.Error):
        place.connection.execute(sql.replace("ROOT", str(place.root)))

    assert before == place.snapshot()


ROWS: list[tuple[object, ...]] = [(0, "é0"), (1, "é1"), (2, "é2")]
GOOD: list[tuple[str, list[tuple[object, ...]]]] = [
    ("SELECT a, b FROM t ORDER BY a", ROWS),
    ("SELECT a, b FROM t ORDER BY a;", ROWS),
    ("SELECT a, b FROM t ORDER BY a; -- ; done", ROWS),
    ("SELECT a, b FROM t ORDER BY a -- the last line", ROWS),
    ("/* COPY t TO 'x' */ SELECT a FROM t WHERE b = 'é1'", [(1,)]),
    ("\ufeffSELECT 1", [(1,)]),
    ("SELECT ';--/*'", [(";--/*",)]),
    ("SELECT $$;) q$$", [(";) q",)]),
    ("FROM t SELECT a WHERE a > 1", [(2,)]),
    ("TABLE t ORDER BY a LIMIT 1", [(0, "é0")]),
    ("VALUES (1, 'x')", [(1, "x")]),
    ("WITH x AS (SELECT max(a) AS m FROM t) SELECT m FROM x", [(2,)]),
    ("WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
     [(1,), (2,), (3,)]),
    ("SELECT 1 UNION ALL SELECT 2", [(1,), (2,)]),
    ("SELECT min(more), max(b) FROM v", [(1, "é2")]),
    ("SELECT list(a ORDER BY a) FROM t", [([0, 1, 2],)]),
    ("SELECT {'text': b, 'n': a} FROM t WHERE a = 0", [({"text": "é0", "n": 0},)]),
    ("SELECT t.a FROM t JOIN v ON t.a = v.more ORDER BY 1", [(1,), (2,)]),
    ("FROM (PIVOT (SELECT a, b FROM t) ON b IN ('é0', 'é1') USING sum(a))",
     [(0, 1)]),
    ("SELECT a FROM 'in/a.csv' ORDER BY a", [(1,), (2,)]),
    ("SELECT a FROM read_csv('in/*.csv') ORDER BY a", [(1,), (2,)]),
    ("SELECT a FROM read_csv(['in/a.csv', 'in/deep/it''s.csv']) ORDER BY a", [(1,), (2,), (3,)]),
    ("SELECT a, b FROM read_json('in/l.jsonl')", [(1, ["x"])]),
    ("SELECT max(a) FROM read_parquet('ROOT/in/p.parquet')", [(8,)]),
    ("SELECT t.a FROM 'in/p.parquet' AS p JOIN t ON p.a = t.a + 7 ORDER BY 1", [(0,), (1,)]),
    ("SELECT content[:3] FROM read_text('in/a.csv')", [("a,b",)]),
    ("SELECT unnest([1, 2])", [(1,), (2,)]),
    ("SELECT count(*) FROM range(5), generate_series(1, 2)", [(10,)]),
    ("SELECT a, row_number() OVER (ORDER BY a DESC) FROM t QUALIFY a = 2", [(2, 1)]),
    ("SELECT '2026-01-01 12:00+02'::TIMESTAMPTZ::VARCHAR", [("2026-01-01 10:00:00+00",)]),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "rows"), GOOD, ids=[sql[:60] for sql, _ in GOOD])
def test_what_reads_returns_its_rows(
    place: Place, sql: str, rows: list[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    In any order, as nobody asked for one. Relative paths begin where the job file lies, wherever
    the process stands.
    """
    monkeypatch.chdir(place.root / "other")

    assert sorted(rows, key=repr) == sorted(place.rows(sql), key=repr)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("it's '; DROP TABLE t; --", "VARCHAR"),
        (7, "INTEGER"),
        (2**62, "BIGINT"),
        (0.5, "DOUBLE"),
        (True, "BOOLEAN"),
        (None, '"NULL"'),
        (datetime.date(2026, 11, 18), "DATE"),
        (datetime.datetime(2026, 11, 18, 1, 2, 3), "TIMESTAMP"),  # noqa: DTZ001 - as TIMESTAMP has none
        (decimal.Decimal("1.50"), "DECIMAL(3,2)"),
        (["a", "b"], "VARCHAR[]"),
    ],
    ids=repr,
)
def test_a_value_is_bound_as_what_it_is(place: Place, value: object, kind: str) -> None:
    """
    No value is ever a part of the SQL.
    """
    assert [(value, kind)] == place.rows("SELECT $value, typeof($value)", value=value)


def test_a_value_serves_wherever_an_expression_may_stand(place: Place) -> None:
    """
    Names in large or small letters, a day against a text, a path in parts.
    """
    assert [(2,)] == place.rows("SELECT a FROM t WHERE a >= $Least AND a >= $LEAST", least=2)
    assert [(True,)] == place.rows("SELECT DATE '2026-11-18' = $date", date="2026-11-18")
    assert [(3,)] == place.rows("SELECT a FROM read_csv('in/' || $name || '/it*.csv')", name="deep")
    assert [(1,), (2,)] == place.rows("SELECT a FROM t WHERE a IN $some ORDER BY a", some=[1, 2])


def test_values_without_use_are_told_and_names_without_value_refused(place: Place) -> None:
    """
    A list of what there is says how it is spelt.
    """
    assert ("other",) == select("SELECT $date", {"date": 1, "other": 2}).unused
    for sql, told in [
        ("SELECT 1,\n  $dat", "in its line 2, column 3: $dat has no value"),
        ("SELECT ?", "in its line 1, column 8: this value has no name"),
        ("SELECT $1", "this value has no name"),
    ]:
        with pytest.raises(SourceError) as raised:
            place.rows(sql, date="2026-11-18")
        assert told in str(raised.value)
        assert raised.value.hint.endswith("those that there are: $date")


def test_what_differs_from_run_to_run_is_told() -> None:
    """
    It is not refused.
    """
    sql = "SELECT random(), now(), current_date, a FROM t USING SAMPLE 3"

    assert ("current_date", "now()", "random()", "TABLESAMPLE") == select(sql, {}).unstable
    assert () == select("SELECT a FROM t", {}).unstable


PLACES = [
    ("SELECT 1,\n  nope FROM t", 2, 3, 'Referenced column "nope" not found', "names of columns"),
    ("SELECT 'é', 'ü' || nope\nFROM t", 1, 20, 'Referenced column "nope"', "names of columns"),
    ("SELECT *\nFROM tt", 2, 6, "Table with name tt does not exist", "source.database"),
    ("SELECT foo(1)", 1, 8, "Scalar Function with name foo does not exist", "spelt"),
    ("SELECT a\nFORM t", 2, 6, 'syntax error at or near "t"', "one SELECT"),
    ("SELECT 1;\nSELECT (;", 2, 9, "syntax error", "one SELECT"),
    ("SELECT a FROM\n  'in/a.csv' JOIN 'in/p.parquet' USING (a) WHERE zz = 1", 2, 50, '"zz"', ""),
    ("SELECT\n CAST(b AS INT) FROM t", 2, 2, "Could not convert string 'é0' to INT32", "TRY_CAST"),
    ("SELECT * FROM\n read_csv('in/none.csv')", 2, 2, "No files found", "file is there"),
    ("SELECT * FROM\n read_csv('../x.csv')", 2, 2, "Cannot access file", "source.reads"),
    ("SELECT a,\n\tWITH x", 2, 2, "syntax error", "one SELECT"),
]


@pytest.mark.parametrize(
    ("sql", "line", "column", "words", "hint"), PLACES, ids=[sql for sql, *_ in PLACES]
)
def test_an_error_says_where(
    place: Place, sql: str, line: int, column: int, words: str, hint: str
) -> None:
    """
    In lines and columns of what the user wrote, with that line, a mark, and what to do.
    """
    with pytest.raises(SourceError) as raised:
        place.rows(sql)

    problem = raised.value.problems[0].message
    told, shown, mark = problem.split("\n")
    assert f"in its line {line}, column {column}: " in told
    assert words in told
    assert hint in raised.value.hint
    assert shown == f"      {line} | {sql.splitlines()[line - 1]}".replace("\t", " ")
    assert mark.index("^") == len(f"      {line} | ") + column - 1


def test_an_error_in_a_view_is_not_given_a_place_in_the_sql(place: Place) -> None:
    """
    DuckDB counts it in the view's own SQL, and does not say so.
    """
    padding = "SELECT n -- " + "a long line " * 20 + "\nFROM bad"
    with pytest.raises(SourceError, match=r"source\.sql: Could not convert string"):
        place.rows(padding)
    with pytest.raises(SourceError, match=r"line 1, column 8: Referenced column \"m\""):
        place.rows("SELECT m FROM bad")


@pytest.mark.campaign
def test_an_error_far_down_the_stream_is_told_like_any_other(place: Place) -> None:
    """
    The rows before it have arrived.
    """
    sql = "SELECT\n CAST(if(range < 3_000_000, '1', 'x') AS INT) AS n FROM range(4_000_000)"
    rows = stream(place.connection, select(sql, {}), 1_000)

    assert 1_000 == next(rows).num_rows
    with pytest.raises(SourceError, match=r"in its line 2, column 2: Could not convert string 'x'"):
        list(rows)
    assert [(1,)] == place.rows("SELECT 1")


def test_places_survive_other_sql_around_it(place: Place) -> None:
    """
    As staging needs it, which sorts.
    """
    inner = select("SELECT a,\n nope FROM t", {})
    sorted_by = inner.within("SELECT * FROM (", ") ORDER BY a DESC")

    with pytest.raises(SourceError, match="in its line 2, column 2: Referenced column"):
        look(place.connection, sorted_by)
    sorted_by = select("FROM t", {}).within("SELECT a FROM (", ") ORDER BY a DESC")
    with stream(place.connection, sorted_by, 10) as rows:
        assert [2, 1, 0] == next(rows)["a"].to_pylist()


def test_the_columns_are_known_before_it_runs(place: Place) -> None:
    """
    The same that the rows have; a row that cannot be made does not matter yet.
    """
    statement = select("SELECT a, b, $x AS x, CAST(b AS INT) AS n FROM t", {"x": [0.5]})

    schema = schema_of(place.connection, statement)

    assert schema.equals(
        pa.schema({"a": pa.int64(), "b": pa.string(), "x": pa.list_(pa.float64()), "n": pa.int32()})
    ), schema
    assert {"a": "BIGINT", "b": "VARCHAR", "x": "DOUBLE[]", "n": "INTEGER"} == types_of(
        place.connection, statement
    )
    good = select("SELECT a, b FROM t", {})
    with stream(place.connection, good, 2) as rows:
        streamed = rows.schema
    assert streamed.equals(schema_of(place.connection, good))


def test_rows_that_nobody_wants_let_go_of_the_connection(place: Place) -> None:
    """
    Closed half-way, or twice.
    """
    rows = stream(place.connection, select("FROM range(1_000_000)", {}), 1_000)
    assert 1_000 == next(rows).num_rows

    rows.close()
    rows.close()

    assert [] == list(rows)
    assert [(1,)] == place.rows("SELECT 1")


# --- which files ----------------------------------------------------------------------------------


def test_files_and_globs_can_be_named_instead_of_folders(tmp_path: Path) -> None:
    """
    Then nothing else in their folder can be read.
    """
    write_place(tmp_path)
    with connect(
        database=None,
        readable=[tmp_path / "in/p.parquet", tmp_path / "in/*.csv"],
        temp=tmp_path / "spill",
        memory_bytes=MEMORY_BYTES,
    ) as connection:
        place = Place(tmp_path, connection)

        assert [(7,), (8,)] == place.rows("SELECT a FROM 'in/p.parquet' ORDER BY a")
        assert [(1,), (2,)] == place.rows("SELECT a FROM 'in/*.csv' ORDER BY a")
        assert [(1,), (2,)] == place.rows("SELECT a FROM 'in/a.csv' ORDER BY a")
        for path in ("in/l.jsonl", "in/*.parquet", "in/deep/it''s.csv", "d.duckdb"):
            with pytest.raises(SourceError, match="Cannot access file"):
                place.rows(f"FROM read_text('{path}')")


def test_what_a_job_gives_is_what_duckdb_has(tmp_path: Path) -> None:
    """
    And nothing that depends on the machine, such as its time zone.
    """
    names = ("memory_limit", "threads", "preserve_insertion_order", "TimeZone", "temp_directory")
    wanted = ("381.4 MiB", 2, True, "UTC", str(tmp_path / "made/spill"))
    with connect(
        database=None,
        readable=[],
        temp=tmp_path / "made/spill",
        memory_bytes=400_000_000,
        keep_order=True,
    ) as connection:
        settings = ", ".join(f"current_setting('{name}')" for name in names)

        assert [wanted] == connection.execute(f"SELECT {settings}").fetchall()
    assert 0o700 == (tmp_path / "made/spill").stat().st_mode & 0o777


def test_a_name_with_a_quote_is_no_way_out(tmp_path: Path) -> None:
    """
    Of a setting.
    """
    folder = tmp_path / "it's]; 'x"
    folder.mkdir()
    (folder / "a.csv").write_text("a\n1\n")
    with connect(
        database=None, readable=[folder], temp=folder / "s'", memory_bytes=MEMORY_BYTES
    ) as connection:
        statement = select("SELECT a FROM read_csv('a.csv')", {}, base=folder)
        with stream(connection, statement, 10) as rows:
            assert 1 == next(rows).num_rows


# --- the database ---------------------------------------------------------------------------------


def opening(database: Path, temp: Path) -> str:
    """
    What is said when it is opened.
    """
    with (
        pytest.raises((SourceError, NotReady)) as raised,
        connect(database=database, readable=[], temp=temp, memory_bytes=MEMORY_BYTES),
    ):
        pass
    return str(raised.value)


def in_another_process(code: str, *, wait_for: str = "") -> subprocess.Popen[str]:
    """
    Run some Python; return when it has printed *wait_for*, or has ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    if wait_for:
        assert wait_for == process.stdout.readline().strip()
    else:
        process.communicate()
    return process


def test_a_database_that_is_being_written_is_not_ready(tmp_path: Path) -> None:
    """
    Exit 75: the writer ends some time.
    """
    path = tmp_path / "d.duckdb"
    code = f"import duckdb; c = duckdb.connect({str(path)!r}); print('up', flush=True); input()"
    with in_another_process(code, wait_for="up") as writer:
        told = opening(path, tmp_path / "spill")
        writer.communicate("\n")

    assert f"is open for writing in another process (PID {writer.pid})" in told
    assert "(exit 75)" in told


def test_a_writer_waits_while_it_is_read(tmp_path: Path) -> None:
    """
    DuckDB's lock lasts as long as the connection.
    """
    write_place(tmp_path)
    identity(tmp_path / "d.duckdb", tmp_path)
    path = str(tmp_path / "d.duckdb")
    code = f"import duckdb; duckdb.connect({path!r}); open({path!r} + '.opened', 'w')"
    with connect(
        database=tmp_path / "d.duckdb",
        readable=[],
        temp=tmp_path / "spill",
        memory_bytes=MEMORY_BYTES,
    ):
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )

    assert "Conflicting lock" in process.stderr
    assert not (tmp_path / "d.duckdb.opened").exists()


def damaged_header(path: Path, version: int) -> None:
    """
    Another storage version in DuckDB's main header, with the right checksum.
    """
    body = bytearray(path.read_bytes())
    struct.pack_into("<Q", body, 12, version)
    checksum = 5381
    for (word,) in struct.iter_unpack("<Q", body[8:4096]):
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    struct.pack_into("<Q", body, 0, checksum)
    path.write_bytes(body)


def test_what_is_no_database_of_ours_is_said(tmp_path: Path) -> None:
    """
    And what it is, if that can be seen.
    """
    for name, body in [("empty", b""), ("text", b"query_id,doc_id\n" * 400), ("short", b"DUCK")]:
        (tmp_path / name).write_bytes(body)
        assert f"{tmp_path / name} is not a DuckDB file" in opening(tmp_path / name, tmp_path)
    with sqlite3.connect(tmp_path / "lite.db") as lite:
        lite.execute("CREATE TABLE t (a)")
    lite.close()
    write_place(tmp_path)
    whole = (tmp_path / "d.duckdb").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:8192])

    assert "is an SQLite file" in opening(tmp_path / "lite.db", tmp_path)
    assert f"there is no {tmp_path / 'none'}" in opening(tmp_path / "none", tmp_path)
    assert "is a folder" in opening(tmp_path / "in", tmp_path)
    assert "is damaged" in opening(tmp_path / "cut", tmp_path)
    damaged_header(tmp_path / "d.duckdb", 1999)
    told = opening(tmp_path / "d.duckdb", tmp_path)
    assert "written by a newer DuckDB: its storage version is 1999, and DuckDB" in told
    assert "install a newer duckdb" in told
    damaged_header(tmp_path / "d.duckdb", 40)
    assert "written by an older DuckDB" in opening(tmp_path / "d.duckdb", tmp_path)


def test_what_a_killed_writer_left_is_read_and_belongs_to_the_identity(tmp_path: Path) -> None:
    """
    Its log stands beside the file; reading it leaves both as they are.
    """
    path = tmp_path / "d.duckdb"
    in_another_process(
        f"import duckdb, os; c = duckdb.connect({str(path)!r}); "
        "c.execute('CREATE TABLE t (a INT)'); c.execute('CHECKPOINT'); "
        "c.execute('INSERT INTO t VALUES (1)'); os._exit(9)"
    )
    before = identity(path, tmp_path)

    with connect(
        database=path, readable=[], temp=tmp_path / "spill", memory_bytes=MEMORY_BYTES
    ) as connection:
        assert [(1,)] == Place(tmp_path, connection).rows("FROM t")

    assert ["d.duckdb", "d.duckdb.wal"] == [file.path for file in before]
    assert before == identity(path, tmp_path)
    body = path.read_bytes()
    assert (len(body), hashlib.sha256(body).hexdigest(), ()) == (
        before[0].size_bytes,
        before[0].footer_sha256,
        before[0].row_groups,
    )
    with duckdb.connect(str(path)) as writer:
        writer.execute("INSERT INTO t VALUES (2)")
    assert before != identity(path, tmp_path)
    assert ["d.duckdb"] == [file.path for file in identity(path, tmp_path)]
    with pytest.raises(SourceError, match="there is no"):
        identity(tmp_path / "none", tmp_path)


# --- memory, room and interruption ----------------------------------------------------------------

SORTING = """
import resource, sys
from pathlib import Path
from batchrank.source.stage.asking import stream
from batchrank.source.stage.locked import connect
from batchrank.source.stage.statement import select

sql = "SELECT range AS a, hash(a + $seed) AS h, repeat(md5(a::VARCHAR), 8) AS t FROM range(ROWS)"
with connect(database=None, readable=[], temp=Path(sys.argv[1]), memory_bytes=100_000_000) as con:
    statement = select(sql, {"seed": 1}).within("SELECT * FROM (", ") ORDER BY h, a")
    rows, last = 0, 0
    with stream(con, statement, 2_048) as reader:
        for batch in reader:
            rows += batch.num_rows
            hashes = batch["h"]
            assert last <= hashes[0].as_py() <= hashes[-1].as_py()
            last = hashes[-1].as_py()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.platform == "linux":  # what getrusage tells there begins with the peak of who started this
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
print(rows, peak)
"""


@pytest.mark.campaign
def test_sorting_more_than_memory_stays_within_it(tmp_path: Path) -> None:
    """
    200 MB of texts, sorted within 100 MB of DuckDB's and what a process with Arrow needs besides.
    """
    done = subprocess.run(
        [sys.executable, "-c", SORTING.replace("ROWS", "800_000"), str(tmp_path / "spill")],
        capture_output=True,
        text=True,
        check=True,
    )

    rows, peak_bytes = map(int, done.stdout.split())
    assert 800_000 == rows
    assert peak_bytes < 350_000_000
    assert [] == list((tmp_path / "spill").iterdir())
    assert "" == done.stderr


SLOW = (
    "SELECT count(*) FROM range(100_000) a, range(100_000_000) b WHERE hash(a.range, b.range) = 1"
)


def test_interrupting_ends_it(place: Place) -> None:
    """
    From another thread, while the first row is not there yet.
    """
    ended = threading.Event()

    def interrupt_until_it_ends() -> None:
        while not ended.wait(0.1):
            place.connection.interrupt()

    interrupter = threading.Thread(target=interrupt_until_it_ends)
    interrupter.start()
    with pytest.raises(Interrupted):
        stream(place.connection, select(SLOW, {}), 10)
    ended.set()
    interrupter.join()

    assert [(1,)] == place.rows("SELECT 1")


@pytest.mark.parametrize("ask", [partial(stream, rows_per_batch=10), rows_of])
def test_what_a_signal_raises_ends_it(place: Place, ask: Callable[..., object]) -> None:
    """
    The handler runs at once although DuckDB is at work, and its exception comes through.
    """

    class Stop(BaseException):
        pass

    def raise_stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGUSR1, raise_stop)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(Stop):
            ask(place.connection, select(SLOW, {}))
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert [(1,)] == place.rows("SELECT 1")


def test_no_room_to_spill_is_a_matter_of_storage(tmp_path: Path) -> None:
    """
    Exit 4: making room mends it.
    """
    with duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{tmp_path}'")
        connection.execute("SET max_temp_directory_size = '1MB'")
        connection.execute("SET memory_limit = '60MB'")
        connection.execute("SET threads = 1")
        sql = "SELECT hash(range) AS h, md5(range::VARCHAR) AS t FROM range(2_000_000) ORDER BY h"
        with pytest.raises(StorageError) as raised:
            stream(connection, select(sql, {}), 1_000)

    assert raised.value.out_of_space
