"""
Databases that are attached are read and never written, lead nowhere else, and are known by content.

What needs DuckDB's extensions for SQLite and PostgreSQL runs where they are installed; nobody
publishes them for DuckDB 2.0 but DuckDB's own server, and tests download nothing. There, everything
around them runs: what is looked at before, the message without them, and with a DuckDB file in
PostgreSQL's place all that a run does with an answer.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchrank
from batchrank.config.schema import SourceTable
from batchrank.domain import Positions
from batchrank.errors import BatchrankError, ChangedError, NotReady, SourceError
from batchrank.source.parquet import ParquetSource
from batchrank.source.stage import material
from batchrank.source.stage.asking import _translated, stream
from batchrank.source.stage.content import Content
from batchrank.source.stage.inputs import identity as file_identity
from batchrank.source.stage.locked import Attached, Kind, _refuse_reaching, connect, identity
from batchrank.source.stage.statement import select
from batchrank.source.staged import open_groups
from tests.edges.postgres import PASSWORD, Server, server
from tests.laws import law

MEMORY_BYTES = 200_000_000
COLUMNS = "query_id TEXT, query TEXT, doc_id TEXT, text TEXT, score FLOAT"
PAIRS = [
    ("b", "two", "3", "z", 1.0),
    ("a", "one", "1", "x", 0.5),
    ("b", "two", "1", "x", 2.0),
    ("a", "one", "2", "y", 0.7),
]
GROUPS = [("a", ("y", "x")), ("b", ("x", "z"))]


def installed(extension: str) -> None:
    """
    Skip a test for which the extension is missing.
    """
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        try:
            connection.load_extension(extension)
        except duckdb.Error:
            pytest.skip(f"DuckDB {duckdb.__version__}'s extension {extension} is not installed")


def duck(path: Path, rows: Sequence[Sequence[object]] = PAIRS, name: str = "pairs") -> Path:
    """
    Write a DuckDB file with a table of candidates.
    """
    with duckdb.connect(str(path)) as made:
        made.execute(f"CREATE OR REPLACE TABLE {name} ({COLUMNS})")
        made.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?)", rows)
    return path


def lite(path: Path, *more: str) -> Path:
    """
    Write an SQLite file with a table of candidates, and do what else is said.
    """
    made = sqlite3.connect(path, isolation_level=None)
    made.execute(f"CREATE TABLE pairs ({COLUMNS})")
    made.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?, ?)", PAIRS)
    for sql in more:
        made.execute(sql)
    made.close()
    return path


def attached(folder: Path, *others: Attached) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """
    A locked connection with other databases.
    """
    return connect(
        database=None,
        readable=[],
        temp=folder / "spill",
        memory_bytes=MEMORY_BYTES,
        attached=others,
    )


def refused(folder: Path, *others: Attached) -> BatchrankError:
    """
    The error with which they are not attached.
    """
    with pytest.raises(BatchrankError) as raised, attached(folder, *others):
        pass
    return raised.value


def rows(connection: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[object, ...]]:
    """
    What a user's SELECT returns.
    """
    with stream(connection, select(sql, {}), 1_000) as found:
        return [tuple(row.values()) for batch in found for row in batch.to_pylist()]


def source_of(folder: Path, begun_with: Sequence[str] = (), **table: Any) -> ParquetSource:
    """
    The source that `[source]` tells of, staged in *folder*.
    """
    held = SourceTable.model_validate(table)
    return open_groups(held, folder, folder / "staging", begun_with=begun_with)


def groups_of(source: ParquetSource) -> list[tuple[object, tuple[object, ...]]]:
    """
    Ids and texts of every group.
    """
    batches = source.batches(Positions(source.total), source.total)
    found = (b.group(p) for b in batches for p in range(b.position, b.position + b.rows))
    return [(group.query_id, group.documents) for group in found]


# --- what is said before anything is read ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_extension_is_never_downloaded(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It says which, where it would be and how to get it, and nothing of a login.
    """
    target = str(lite(tmp_path / "crm.sqlite")) if kind == "sqlite" else "host=127.0.0.1"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    error = refused(tmp_path, Attached(kind, target, "x", "canary"))

    assert isinstance(error, SourceError)
    assert f"source.attach.x: DuckDB's extension {kind} is not installed here" in str(error)
    assert f"{tmp_path}/home/.duckdb/extensions/v{duckdb.__version__}/" in str(error)
    assert f"install_extension('{kind}')" in error.hint
    assert "to Parquet" in error.hint
    assert "canary" not in str(error)
    assert not (tmp_path / "home").exists()


def test_what_is_no_database_of_its_kind_is_said(tmp_path: Path) -> None:
    """
    SQLite would notice at the first SELECT only, and take any name for a new file.
    """
    (tmp_path / "text").write_text("query_id,doc_id\n")
    duck(tmp_path / "d.duckdb")
    lite(tmp_path / "crm.sqlite")
    for kind, name, words in [
        ("sqlite", "none", "source.attach.x: there is no"),
        ("sqlite", ".", "is a folder, not an SQLite file"),
        ("sqlite", "text", "is not an SQLite file"),
        ("sqlite", "d.duckdb", "is not an SQLite file"),
        ("duckdb", "crm.sqlite", 'attach it: source.attach = { ALIAS = { type = "sqlite"'),
        ("duckdb", "text", "source.attach.x: "),
    ]:
        error = refused(tmp_path, Attached(kind, str(tmp_path / name), "x"))  # type: ignore[arg-type] # of a list
        assert isinstance(error, SourceError)
        assert words in str(error)
    assert ["crm.sqlite", "d.duckdb", "text"] == sorted(p.name for p in tmp_path.glob("[!s]*"))


def test_a_transaction_that_has_not_ended_is_waited_for(tmp_path: Path) -> None:
    """
    Whoever reads a file with a hot journal would have to mend it first, and nobody here writes. One
    that was left empty, as some settings do, is none.
    """
    path = lite(tmp_path / "crm.sqlite")
    writer = sqlite3.connect(path, isolation_level=None)
    for sql in ("PRAGMA cache_size = 1", "BEGIN", "UPDATE pairs SET text = zeroblob(1000000)"):
        writer.execute(sql)  # more than it keeps in memory: pages of the file are others now

    error = refused(tmp_path, Attached("sqlite", str(path), "x"))
    writer.execute("ROLLBACK")
    writer.close()
    (tmp_path / "crm.sqlite-journal").write_bytes(bytes(512))
    later = refused(tmp_path, Attached("sqlite", str(path), "x"), Attached("duckdb", "none", "y"))

    assert isinstance(error, NotReady)
    assert "is being written to" in str(error)
    assert isinstance(later, SourceError)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE VIEW v AS SELECT * FROM query('SELECT 1')",
        "CREATE VIEW v AS SELECT * FROM QUERY_TABLE(['pairs'])",
        "CREATE MACRO m(p) AS TABLE SELECT * FROM query(p)",
        "CREATE MACRO m() AS (SELECT 'FROM sqlite_scan(''crm.sqlite'', ''t'')')",
        "CREATE MACRO m() AS ('Postgres_Scan_Pushdown')",
        "CREATE MACRO m() AS ('postgres_execute')",
        "CREATE MACRO m() AS ('read_postgres_binary')",
    ],
)
def test_no_view_and_no_macro_may_open_other_databases(tmp_path: Path, sql: str) -> None:
    """
    The extensions open what they are told to, whatever DuckDB's settings say, some already when a
    SELECT is looked at.
    """
    duck(tmp_path / "d.duckdb")
    with duckdb.connect(str(tmp_path / "d.duckdb")) as made:
        made.execute(sql)
        with pytest.raises(SourceError, match=r"source\.attach: d\.[vm] uses \w+\(\), which could"):
            _refuse_reaching(made)


def test_other_views_and_macros_may_be_there(tmp_path: Path) -> None:
    """
    Also with such words in their names.
    """
    duck(tmp_path / "d.duckdb")
    with duckdb.connect(str(tmp_path / "d.duckdb")) as made:
        made.execute("CREATE VIEW query AS SELECT query, query_id FROM pairs")
        made.execute("CREATE MACRO sqlite(a) AS a + 1")
        _refuse_reaching(made)


# --- what databases are known by ------------------------------------------------------------------


def test_a_log_with_something_in_it_belongs_to_the_identity(tmp_path: Path) -> None:
    """
    What was committed may be there and nowhere else; an empty one is what a reader leaves.
    """
    path = lite(tmp_path / "crm.sqlite", "PRAGMA journal_mode = WAL")
    before = identity(path, tmp_path, "sqlite")
    (tmp_path / "crm.sqlite-wal").touch()
    code = (
        f"import os, sqlite3; c = sqlite3.connect({str(path)!r}, isolation_level=None); "
        "c.execute('PRAGMA wal_autocheckpoint = 0'); c.execute('DELETE FROM pairs'); os._exit(9)"
    )

    assert before == identity(path, tmp_path, "sqlite")
    subprocess.run([sys.executable, "-c", code], check=False)
    after = identity(path, tmp_path, "sqlite")

    assert ["crm.sqlite"] == [file.path for file in before]
    assert ["crm.sqlite", "crm.sqlite-wal"] == [file.path for file in after]
    assert before == after[:1]


rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.none() | st.integers(-(2**40), 2**40),
            "text": st.none() | st.text(max_size=5),
            "score": st.none()
            | st.floats(allow_nan=False).map(lambda score: score + 0.0),  # no -0.0
            "there": st.none() | st.booleans(),
            "day": st.none() | st.dates(),
            "documents": st.none()
            | st.lists(
                st.none()
                | st.fixed_dictionaries(
                    {
                        "text": st.none() | st.text(max_size=3),
                        "tags": st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3),
                    }
                ),
                max_size=3,
            ),
        }
    ),
    max_size=6,
)
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("score", pa.float64()),
        ("there", pa.bool_()),
        ("day", pa.date32()),
        (
            "documents",
            pa.list_(pa.struct([("text", pa.string()), ("tags", pa.list_(pa.string()))])),
        ),
    ]
)


def digest(*tables: pa.Table) -> tuple[int, str]:
    """
    The digest of rows that come in several tables.
    """
    content = Content()
    for table in tables:
        content.add(table)
    return content.size_bytes, content.hex()


@law(200)
@given(one=rows_of_any_kind, other=rows_of_any_kind, cuts=st.lists(st.integers(0, 6), max_size=3))
def test_equal_rows_have_one_digest_and_others_another(
    one: list[dict[str, Any]], other: list[dict[str, Any]], cuts: list[int]
) -> None:
    """
    However they are cut, and whatever moves from one value to its neighbour.
    """
    table, second = (pa.Table.from_pylist(held, schema=SCHEMA) for held in (one, other))
    places = [0, *sorted(cuts), len(one)]
    pieces = [table.slice(a, max(0, b - a)) for a, b in pairwise(places)]
    pieces = [piece for piece in pieces if piece.num_rows]

    if one:
        assert digest(table) == digest(*pieces)
    assert (digest(table)[1] == digest(second)[1]) == (table.equals(second))


# --- DuckDB ---------------------------------------------------------------------------------------


def test_another_database_is_attached_to_read(tmp_path: Path) -> None:
    """
    Before the lock; afterwards nothing can be.
    """
    path = duck(tmp_path / "d.duckdb")
    with attached(tmp_path, Attached("duckdb", str(path), 'my "own"')) as connection:
        assert [(4,)] == rows(connection, 'SELECT count(*) FROM "my ""own""".pairs')
        with pytest.raises(duckdb.Error):
            connection.execute('DELETE FROM "my ""own""".pairs')
        with pytest.raises(duckdb.Error):
            connection.execute(f"ATTACH '{tmp_path / 'other.duckdb'}' AS other")


@pytest.mark.parametrize(
    "asked",
    [
        {"table": "crm.pairs"},
        {"table": "crm.main.pairs"},
        {"sql": "SELECT * FROM crm.pairs"},
        {
            "database": "night.duckdb",
            "sql": "SELECT c.* FROM crm.pairs c SEMI JOIN chosen USING (query_id)",
        },
    ],
    ids=["a table", "with its schema", "a SELECT", "a join with the first database"],
)
def test_what_is_attached_is_staged_like_any_other(tmp_path: Path, asked: dict[str, Any]) -> None:
    """
    And every file is in the identity.
    """
    duck(tmp_path / "crm.duckdb")
    duck(tmp_path / "night.duckdb", name="chosen")

    source = source_of(
        tmp_path, attach={"crm": {"type": "duckdb", "path": "crm.duckdb"}}, score="score", **asked
    )

    assert GROUPS == groups_of(source)
    names = ["night.duckdb", "crm.duckdb"] if "database" in asked else ["crm.duckdb"]
    assert names == [file.path for file in source.files]


# --- PostgreSQL, with a DuckDB file in its place --------------------------------------------------


@pytest.fixture
def in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """
    Attach shop.duckdb wherever a PostgreSQL would be, and note the connection strings. Neither the
    extension nor a server can be had everywhere; what a run does with an answer can be tested.
    """
    asked: list[str] = []

    def connect_there(**settings: Any) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        (shop,) = settings["attached"]
        asked.append(shop.target)
        there = Attached("duckdb", str(tmp_path / "shop.duckdb"), shop.alias)
        return connect(**{**settings, "attached": [there]})

    monkeypatch.setattr(material, "connect", connect_there)
    monkeypatch.setenv("SHOP_DSN", "host=db password=canary")
    return asked


SHOP = {"shop": {"type": "postgres", "dsn_env": "SHOP_DSN"}}


def job_of(folder: Path) -> Path:
    """
    Write a job over a PostgreSQL's table.
    """
    path = folder / "job.toml"
    path.write_text(
        '[source]\nattach.shop = { type = "postgres", dsn_env = "SHOP_DSN" }\n'
        'table = "shop.pairs"\nscore = "score"\n'
        '[provider]\nname = "lexical"\n[output]\npath = "out"\n'
    )
    return path


def footer_of(folder: Path) -> str:
    """
    What the staged file is known by.
    """
    (path,) = folder.glob("staging/*/groups.parquet")
    return file_identity(path, path.name, "parquet").footer_sha256


def test_it_is_known_by_what_it_gave(tmp_path: Path, in_its_place: list[str]) -> None:
    """
    In whatever order; another row, or another value, is another source.
    """
    duck(tmp_path / "shop.duckdb")
    (before,) = source_of(tmp_path, attach=SHOP, table="shop.pairs", score="score").files
    duck(tmp_path / "shop.duckdb", PAIRS[::-1])
    (turned,) = source_of(tmp_path, attach=SHOP, table="shop.pairs", score="score").files
    footer = footer_of(tmp_path)
    duck(tmp_path / "shop.duckdb", [PAIRS[0], *PAIRS[2:], ("a", "one", "1", "y", 0.5)])
    (other,) = source_of(tmp_path, attach=SHOP, table="shop.pairs", score="score").files

    assert before == turned
    assert ("postgres:shop", before.size_bytes) == (other.path, other.size_bytes)
    assert before.footer_sha256 != other.footer_sha256
    assert footer != footer_of(tmp_path)  # whoever reads the staged file sees that it is another
    assert ["host='db' connect_timeout='10'"] * 3 == in_its_place


def test_what_it_gave_serves_the_output_that_began_with_it(
    tmp_path: Path, in_its_place: list[str]
) -> None:
    """
    As long as it is kept: it is not asked again, whatever it holds by now.
    """
    duck(tmp_path / "shop.duckdb")
    job = job_of(tmp_path)

    assert 0 == batchrank.run(job).exit_code
    duck(tmp_path / "shop.duckdb", PAIRS[:2])

    assert 0 == batchrank.run(job).exit_code
    assert 1 == len(in_its_place)


def _forget(folder: Path) -> None:
    for path in (folder / ".batchrank").glob("*/source/*/*"):
        path.unlink()


def test_other_rows_are_never_joined_to_scores(tmp_path: Path, in_its_place: list[str]) -> None:
    """
    If it has to be asked again it has to give the same; what it gave instead is not kept for later.
    With --restart it is asked anew in any case.
    """
    duck(tmp_path / "shop.duckdb")
    job = job_of(tmp_path)
    assert 0 == batchrank.run(job).exit_code
    part = (tmp_path / "out/part-00000.parquet").read_bytes()
    _forget(tmp_path)
    duck(tmp_path / "shop.duckdb", PAIRS[:3])

    with pytest.raises(ChangedError) as raised:
        batchrank.run(job)
    duck(tmp_path / "shop.duckdb")
    same = batchrank.run(job)
    duck(tmp_path / "shop.duckdb", PAIRS[:3])
    anew = batchrank.run(job, restart=True)

    assert "postgres:shop changed: it had" in str(raised.value)
    assert "its content is another" in str(raised.value)
    assert "--accept" not in str(raised.value)
    assert 0 == same.exit_code
    assert part != (tmp_path / "out/part-00000.parquet").read_bytes()
    assert (0, 4) == (anew.exit_code, len(in_its_place))
    held = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"canary" not in held


@pytest.mark.parametrize(
    ("kind", "error"), [("IO", NotReady), ("Conversion", SourceError)], ids=["said", "quoted"]
)
def test_a_server_that_goes_away_while_it_is_read_comes_back(
    tmp_path: Path, kind: str, error: type[BatchrankError]
) -> None:
    """
    Exit 75. In the words of DuckDB 1.5.5; a text that holds the same words is a value like others.
    """
    words = "Unable to read binary COPY data from Postgres: server closed the connection"
    said = json.dumps({"exception_type": kind, "exception_message": words})
    with attached(tmp_path) as connection:
        found = _translated(duckdb.Error(said), select("SELECT 1", {}), connection)

    assert isinstance(found, error)
    assert words in str(found)


# --- SQLite ---------------------------------------------------------------------------------------

CRM = {"crm": {"type": "sqlite", "path": "crm.sqlite"}}


def test_sqlite_is_read(tmp_path: Path) -> None:
    """
    A table, and a view of it, beside what a DuckDB file holds.
    """
    installed("sqlite")
    lite(tmp_path / "crm.sqlite", "CREATE VIEW v AS SELECT * FROM pairs WHERE score > 0")

    for asked in ({"table": "crm.pairs"}, {"sql": "SELECT * FROM crm.v"}):
        source = source_of(tmp_path, attach=CRM, score="score", **asked)
        assert GROUPS == groups_of(source)
        assert ["crm.sqlite"] == [file.path for file in source.files]


def test_sqlite_is_not_written_and_leads_nowhere_else(tmp_path: Path) -> None:
    """
    Neither by its extension's functions nor by views of its own.
    """
    installed("sqlite")
    path = lite(tmp_path / "crm.sqlite")
    lite(tmp_path / "other.sqlite")
    before = path.read_bytes()
    with attached(tmp_path, Attached("sqlite", str(path), "crm")) as connection:
        for sql in (
            f"FROM sqlite_scan('{tmp_path}/other.sqlite', 'pairs')",
            "FROM sqlite_query('crm', 'DELETE FROM pairs RETURNING *')",
            f"FROM sqlite_attach('{tmp_path}/other.sqlite')",
            f"FROM '{tmp_path}/other.sqlite'",
            "WITH x AS (DELETE FROM crm.pairs RETURNING *) FROM x",
        ):
            with pytest.raises(SourceError):
                rows(connection, sql)
        for sql in ("DELETE FROM crm.pairs", "CREATE TABLE crm.t (a INT)"):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)
    assert before == path.read_bytes()
    view = f"CREATE VIEW v AS SELECT * FROM sqlite_scan('{tmp_path}/other.sqlite', 'pairs')"
    lite(tmp_path / "hostile.sqlite", view)

    error = refused(tmp_path, Attached("sqlite", str(tmp_path / "hostile.sqlite"), "crm"))

    assert "crm.v uses sqlite_scan(), which could open other databases" in str(error)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    """
    Before anything of it is read.
    """
    installed("sqlite")
    path = lite(tmp_path / "crm.sqlite")
    path.write_bytes(path.read_bytes()[:100] + bytes(4000))

    error = refused(tmp_path, Attached("sqlite", str(path), "crm"))

    assert "source.attach: what is attached cannot be looked into: " in str(error)
    assert "take a sound copy" in error.hint


def test_a_value_of_another_type_is_told(tmp_path: Path) -> None:
    """
    SQLite keeps any; DuckDB's own advice is a setting that a job has not.
    """
    installed("sqlite")
    lite(tmp_path / "crm.sqlite", "UPDATE pairs SET score = 'high'")

    with pytest.raises(SourceError, match='Invalid type in column "score"') as raised:
        source_of(tmp_path, attach=CRM, table="crm.pairs", score="score")

    assert "SQLite keeps what it is given" in raised.value.hint
    assert "sqlite_all_varchar" not in str(raised.value)


def test_what_is_written_to_meanwhile_is_not_taken(tmp_path: Path) -> None:
    """
    Nobody would know which state was staged.
    """
    installed("sqlite")
    path = lite(tmp_path / "crm.sqlite", "PRAGMA journal_mode = WAL")

    def write(_: int) -> None:
        code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        code += "c.execute('DELETE FROM pairs')"
        subprocess.run([sys.executable, "-c", code, str(path)], check=True)

    table = SourceTable.model_validate({"attach": CRM, "table": "crm.pairs"})
    with pytest.raises(NotReady, match="was written to while it was staged"):
        open_groups(table, tmp_path, tmp_path / "staging", write)

    assert [] == list(tmp_path.glob("staging/*/*"))


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """
    One server for all.
    """
    installed("postgres")
    with server() as started:
        started.do(f"CREATE TABLE pairs ({COLUMNS})")
        for row in PAIRS:
            started.do(f"INSERT INTO pairs VALUES {row}")
        started.do(
            "CREATE FUNCTION wrote() RETURNS BIGINT LANGUAGE SQL AS"
            " 'WITH x AS (DELETE FROM pairs RETURNING 1) SELECT count(*) FROM x';"
            " CREATE VIEW writing AS SELECT wrote() AS n"
        )
        yield started


def test_postgres_is_read(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    By a variable with a connection string, or by what libpq finds itself.
    """
    monkeypatch.setenv("SHOP_DSN", postgres.way())
    by_name = source_of(tmp_path, attach=SHOP, table="shop.public.pairs", score="score")
    assert GROUPS == groups_of(by_name)
    monkeypatch.delenv("SHOP_DSN")
    for name, value in (
        ("PGHOST", str(postgres.folder)),
        ("PGUSER", "me"),
        ("PGDATABASE", "postgres"),
        ("PGPASSWORD", PASSWORD),
    ):
        monkeypatch.setenv(name, value)
    by_libpq = source_of(
        tmp_path, attach={"shop": {"type": "postgres"}}, table="shop.pairs", score="score"
    )

    assert GROUPS == groups_of(by_libpq)
    assert ["postgres:shop"] == [file.path for file in by_libpq.files]
    assert by_name.files == by_libpq.files


def shop(postgres: Server, password: str = PASSWORD, more: str = "") -> Attached:
    """
    The server, as it is attached.
    """
    way = f"host='{postgres.folder}' user='me' dbname='postgres'{more}"
    return Attached("postgres", way, "shop", password)


def test_postgres_is_not_written(tmp_path: Path, postgres: Server) -> None:
    """
    Neither by SQL nor by its extension's functions (one of which could: it ends the transaction
    that is read-only), nor by a view of its own that calls a function.
    """
    with attached(tmp_path, shop(postgres)) as connection:
        for sql in (
            "FROM postgres_execute('shop', 'COMMIT; BEGIN; DELETE FROM pairs; COMMIT')",
            "FROM postgres_query('shop', 'SELECT wrote()')",
            "FROM postgres_scan('', 'public', 'pairs')",
            "FROM shop.writing",
            "WITH x AS (DELETE FROM shop.pairs RETURNING *) FROM x",
        ):
            with pytest.raises(SourceError):
                rows(connection, sql)
        for sql in ("DELETE FROM shop.pairs", "CREATE TABLE shop.t (a INT)"):
            with pytest.raises(duckdb.Error):
                connection.execute(sql)

    assert "4" == postgres.asked("SELECT count(*) FROM pairs")


def test_what_postgres_refuses_is_told_without_the_password(
    tmp_path: Path, postgres: Server
) -> None:
    """
    Away is exit 75, refused is exit 2.
    """
    wrong = refused(tmp_path, shop(postgres, "another canary"))
    nothing = refused(tmp_path, shop(postgres, more=" dbname='nowhere'"))
    away = refused(tmp_path, Attached("postgres", "host='/nowhere'", "shop", PASSWORD))

    assert 'PostgreSQL refuses: connection to server on socket "' in str(wrong)
    assert "password authentication failed" in str(wrong)
    assert 'database "nowhere" does not exist' in str(nothing)
    assert isinstance(away, NotReady)
    for error in (wrong, nothing, away):
        assert "canary" not in f"{error}{error.__context__}"
