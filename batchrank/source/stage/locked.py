"""
A connection to DuckDB that can read what it is told of, and can neither write nor be unlocked.

Owns the order of settings, which matters: folders before external access is shut, the lock last.
Settings alone do not make a SELECT harmless, because files may still be written inside the folders
that may be read; `statement` and `asking` see to that. Nor do they bind the extensions for SQLite
and PostgreSQL, whose functions open what they are told to (measured with DuckDB 1.5.5's, after the
lock): no view or macro may call them. Never downloads an extension.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb

from batchrank.domain import SourceFile
from batchrank.errors import BatchrankError, NotReady, Problem, SourceError
from batchrank.source.files import relative
from batchrank.source.stage.postgres import refusal
from batchrank.source.stage.sql import literal, literals, quoted

Kind = Literal["duckdb", "sqlite", "postgres"]

_KEY = "source.database"
_AT_OPENING: Mapping[str, bool] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
}
_THREADS = 2
_BUILT_IN = ("json", "parquet", "icu")
"""Loaded before the lock, in case a build of DuckDB keeps them apart."""

_EXTENSIONS: Mapping[Kind, str] = {"sqlite": "sqlite", "postgres": "postgres"}
_VERSIONS = re.compile(r"storage version number (\d+).*?between (\d+) and (\d+)")
_SQLITE = b"SQLite format 3\0"
_HOT = bytes.fromhex("d9d505f920a163d7")
"""How a rollback journal begins whose transaction has not ended (SQLite's file format, 3)."""

_LOGS: Mapping[Kind, str] = {"duckdb": ".wal", "sqlite": "-wal"}
"""What is behind a file's name in the name of its log."""

_REACHING = re.compile(
    r"\b((?:sqlite|postgres)_(?:scan\w*|query|execute|attach)|read_postgres_binary)\b"
    r"|\b(query|query_table|json_execute_serialized_sql)\b\"?\s*\(",
    re.IGNORECASE,
)
"""What opens other databases, or may hide that in a text."""


@dataclass(frozen=True, slots=True)
class Attached:
    """
    Another database beside the first: a file, or what PostgreSQL's libpq calls a connection string,
    with its *password* apart.
    """

    kind: Kind
    target: str
    alias: str
    password: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """
        The setting that holds it, for messages.
        """
        return f"source.attach.{self.alias}"


@contextmanager
def connect(
    *,
    database: Path | None,
    readable: Sequence[Path],
    temp: Path,
    memory_bytes: int,
    keep_order: bool = False,
    attached: Sequence[Attached] = (),
) -> Iterator[duckdb.DuckDBPyConnection]:
    """
    Open *database* (or none) read-only, and lock it.

    *readable* are files, folders and globs; of a glob the files that match it now. *temp* is a
    folder of its own, made if need be: what lies in it can be read too. *memory_bytes* is DuckDB's
    own limit; the process takes up to about 150 MB more. Without *keep_order* rows come in any
    order that the SQL does not fix. Times are UTC. In one process a database can be open once.

    Raises:
        NotReady: another process has it open for writing, or a PostgreSQL is not up.
        SourceError: it cannot be opened, or something cannot be attached.
    """
    connection = _opened(database)
    try:
        for extension in _BUILT_IN:
            connection.load_extension(extension)
        _attach_all(connection, attached)
        temp.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders, files = _permitted(readable)
        for name, value in (
            ("temp_directory", literal(str(temp.absolute()))),
            ("memory_limit", literal(f"{memory_bytes}B")),
            ("threads", str(_THREADS)),
            ("preserve_insertion_order", str(keep_order)),
            ("errors_as_json", "true"),
            ("enable_progress_bar", "false"),  # python -c counts as a person who looks at it
            ("TimeZone", literal("UTC")),
            ("allowed_directories", literals(folders)),
            ("allowed_paths", literals(files)),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            connection.execute(f"SET {name} = {value}")
        yield connection
    finally:
        connection.close()


def _attach_all(connection: duckdb.DuckDBPyConnection, attached: Sequence[Attached]) -> None:
    """
    Files first: PostgreSQL's functions would connect as soon as a view of a file is looked at.
    """
    for other in (other for other in attached if other.kind != "postgres"):
        _attach(connection, other)
    if any(other.kind in _EXTENSIONS for other in attached):
        _refuse_reaching(connection)
    for other in (other for other in attached if other.kind == "postgres"):
        _attach(connection, other)


def _attach(connection: duckdb.DuckDBPyConnection, other: Attached) -> None:
    """
    Attach another database read-only, before the lock.

    Raises:
        NotReady: another process is writing to it, or it is not up.
        SourceError: its extension is not installed on this machine, or it cannot be opened.
    """
    options = ["READ_ONLY"]
    if other.kind != "postgres":
        _look_at(Path(other.target), other.kind, other.key)
    if other.kind in _EXTENSIONS:
        _load(connection, _EXTENSIONS[other.kind], other)
        options.append(f"TYPE {other.kind}")
    try:
        if other.kind == "postgres":
            options.append(f"SECRET {_secret(connection, other)}")
        connection.execute(
            f"ATTACH {literal(other.target)} AS {quoted(other.alias)} ({', '.join(options)})"
        )
    except duckdb.Error as error:
        if other.kind == "postgres":
            raise refusal(other.alias, str(error)) from None
        raise _not_opened(error, Path(other.target), other.key) from error


def _secret(connection: duckdb.DuckDBPyConnection, other: Attached) -> str:
    """
    Make a secret of this connection's and return its name. Where none is named DuckDB looks for one
    among those that are kept on disk, which are shut.
    """
    name = quoted(f"of {other.alias}")
    password = f", PASSWORD {literal(other.password)}" if other.password else ""
    connection.execute(f"CREATE TEMPORARY SECRET {name} (TYPE postgres{password})")
    return name


def _refuse_reaching(connection: duckdb.DuckDBPyConnection) -> None:
    """
    Refuse databases whose views or macros may open what the job does not name.
    """
    try:
        rows = connection.execute(
            "SELECT database_name, view_name, sql FROM duckdb_views() WHERE NOT internal UNION ALL"
            " SELECT database_name, function_name, macro_definition FROM duckdb_functions()"
            " WHERE NOT internal AND macro_definition IS NOT NULL"
        ).fetchall()
    except duckdb.Error as error:
        raise _wrong(
            f"what is attached cannot be looked into: {_first_line(str(error))}",
            "take a sound copy without views that DuckDB cannot read, or export the tables to"
            " Parquet; SQLite's WAL mode needs a folder that may be written",
            "source.attach",
        ) from error
    for database, name, sql in rows:
        if found := _REACHING.search(sql):
            raise _wrong(
                f"{database}.{name} uses {found[1] or found[2]}(), which could open other databases"
                " than the job names",
                "drop it there, or attach a copy without it",
                "source.attach",
            )


def identity(
    database: Path, base: Path, kind: Kind = "duckdb", key: str = _KEY
) -> tuple[SourceFile, ...]:
    """
    What a database is known by: its path, size and content, and that of the log beside it.

    A log is what a writer left that was killed, or that is still there (SQLite's -wal); it is read,
    too. Call this before `connect` or after it, never meanwhile: closing any handle on a file gives
    up the lock that keeps writers out of it (POSIX), DuckDB's own included.

    Raises:
        SourceError: it cannot be read.
    """
    found = []
    for path in (database, database.with_name(database.name + _LOGS[kind])):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                if kind == "sqlite" and path != database and not file.tell():
                    continue  # an empty log is what a reader leaves
                found.append(SourceFile(relative(path, base), file.tell(), digest, ()))
        except FileNotFoundError:
            if path == database:
                raise _wrong(f"there is no {database}", key=key) from None
        except OSError as error:
            raise _wrong(f"{path} cannot be read: {error.strerror or error}", key=key) from error
    return tuple(found)


# --- opening --------------------------------------------------------------------------------------


def _opened(database: Path | None) -> duckdb.DuckDBPyConnection:
    if database is None:
        return duckdb.connect(":memory:", config={**_AT_OPENING})
    _look_at(database, "duckdb", _KEY)
    try:
        return duckdb.connect(str(database), read_only=True, config={**_AT_OPENING})
    except duckdb.Error as error:
        raise _not_opened(error, database, _KEY) from error


def _look_at(database: Path, kind: Kind, key: str) -> None:
    """
    Refuse what DuckDB would take for something else, before it holds a lock.
    """
    called = {"duckdb": "a DuckDB", "sqlite": "an SQLite"}[kind]
    if not database.exists():
        raise _wrong(f"there is no {database}", key=key)
    if database.is_dir():
        raise _wrong(f"{database} is a folder, not {called} file", key=key)
    is_lite = _start(database, key) == _SQLITE
    if kind == "duckdb" and is_lite:
        remedy = 'attach it: source.attach = { ALIAS = { type = "sqlite", path = … } }'
        raise _wrong(f"{database} is an SQLite file, not a DuckDB file", remedy, key)
    if kind == "sqlite":
        if not is_lite:
            raise _wrong(f"{database} is not an SQLite file", "look whether the path is right", key)
        journal = database.with_name(database.name + "-journal")
        if journal.exists() and _start(journal, key).startswith(_HOT):
            raise NotReady(
                f"{database} is being written to, or its writer was killed: {journal.name} exists",
                "try again when that is gone (exit 75); after a crash sqlite3 mends it on opening",
            )


def _start(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(_SQLITE))
    except OSError as error:
        raise _wrong(f"{path} cannot be read: {error.strerror or error}", key=key) from error


def _not_opened(error: duckdb.Error, database: Path, key: str) -> BatchrankError:
    """
    Why DuckDB did not open a file.
    """
    words = str(error)
    if "Conflicting lock" in words or "Could not set lock" in words:
        holder = re.search(r"PID \d+", words)
        return NotReady(
            f"{database} is open for writing in another process"
            + (f" ({holder[0]})" if holder else ""),
            f"try again when that has closed it (exit 75), or name a copy in {key}",
        )
    if found := _VERSIONS.search(words):
        made, low, high = found.groups()
        older = int(made) < int(low)
        return _wrong(
            f"{database} was written by {'an older' if older else 'a newer'} DuckDB: its storage"
            f" version is {made}, and DuckDB {duckdb.__version__} reads {low} to {high}",
            "write it anew (EXPORT DATABASE there, IMPORT DATABASE here)"
            if older
            else "install a newer duckdb, or write it with an older STORAGE_VERSION",
            key,
        )
    if "not a valid DuckDB database file" in words:
        return _wrong(f"{database} is not a DuckDB file", "look whether the path is right", key)
    if "different configuration" in words:
        return _wrong(f"{database} is open already in this process", "close it there first", key)
    if "Corrupt" in words or "Could not read enough" in words:
        return _wrong(
            f"{database} is damaged: {_first_line(words)}", "take a sound copy of it", key
        )
    return _wrong(f"{database} cannot be opened: {_first_line(words)}", key=key)


def _load(connection: duckdb.DuckDBPyConnection, extension: str, other: Attached) -> None:
    try:
        connection.load_extension(extension)
    except duckdb.Error as error:
        words = _first_line(str(error))
        looked = re.search(r'"([^"]+)\.duckdb_extension" not found', words)
        what = (
            f"is not installed here ({looked[1]}.duckdb_extension), and a run downloads nothing"
            if looked
            else f"cannot be loaded: {words}"
        )
        raise _wrong(
            f"DuckDB's extension {extension} {what}",
            "install it once for this user and version of DuckDB: python -c "
            f"\"import duckdb; duckdb.connect().install_extension('{extension}')\""
            "; or export what is needed to Parquet",
            other.key,
        ) from error


def _permitted(readable: Sequence[Path]) -> tuple[list[str], list[str]]:
    """
    The folders, and the files with the globs that name them, as DuckDB wants to hear of them.
    """
    folders, files = [], []
    for path in readable:
        name = str(path.absolute())
        if path.is_dir():
            folders.append(name)
            continue
        files.append(name)
        if glob.has_magic(name) and not path.exists():
            files += glob.glob(name, recursive=True)  # noqa: PTH207 - keeps the pattern's spelling
    return folders, files


def _first_line(words: str) -> str:
    return words.strip().partition("\n")[0]


def _wrong(message: str, hint: str = "", key: str = _KEY) -> SourceError:
    return SourceError("", hint, [Problem(0, key, message)])
