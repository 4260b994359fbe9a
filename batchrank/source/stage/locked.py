"""
A connection to DuckDB that can read what it is told of, and can neither write nor be unlocked.

Owns the order of settings, which matters: folders before external access is shut, the lock last.
Settings alone do not make a SELECT harmless, because files may still be written inside the folders
that may be read; `statement` and `asking` see to that. Never downloads an extension.
"""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from batchrank.domain import SourceFile
from batchrank.errors import BatchrankError, NotReady, Problem, SourceError
from batchrank.source.files import relative

Kind = Literal["duckdb", "sqlite", "postgres"]

_KEY = "source.database"
_AT_OPENING: Mapping[str, bool] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "allow_persistent_secrets": False,
    "python_enable_replacements": False,
}
_BUILT_IN = ("json", "parquet", "icu")
"""Loaded before the lock, in case a build of DuckDB keeps them apart."""

_EXTENSIONS: Mapping[Kind, str] = {"sqlite": "sqlite", "postgres": "postgres"}
_VERSIONS = re.compile(r"storage version number (\d+).*?between (\d+) and (\d+)")
_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Attached:
    """
    Another database beside the first: a file, or what PostgreSQL's libpq calls a connection string.
    """

    kind: Kind
    target: str
    alias: str


@contextmanager
def connect(
    *,
    database: Path | None,
    readable: Sequence[Path],
    temp: Path,
    memory_bytes: int,
    threads: int = 2,
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
        NotReady: another process has it open for writing.
        SourceError: it cannot be opened, or something cannot be attached.
    """
    connection = _opened(database)
    try:
        for extension in _BUILT_IN:
            connection.load_extension(extension)
        for other in attached:
            attach(connection, other)
        temp.mkdir(mode=0o700, parents=True, exist_ok=True)
        folders, files = _permitted(readable)
        for name, value in (
            ("temp_directory", _text(str(temp.absolute()))),
            ("memory_limit", _text(f"{memory_bytes}B")),
            ("threads", str(threads)),
            ("preserve_insertion_order", str(keep_order)),
            ("errors_as_json", "true"),
            ("enable_progress_bar", "false"),  # python -c counts as a person who looks at it
            ("TimeZone", _text("UTC")),
            ("allowed_directories", _list(folders)),
            ("allowed_paths", _list(files)),
            ("enable_external_access", "false"),
            ("lock_configuration", "true"),
        ):
            connection.execute(f"SET {name} = {value}")
        yield connection
    finally:
        connection.close()


def attach(connection: duckdb.DuckDBPyConnection, other: Attached) -> None:
    """
    Attach another database read-only, before the lock.

    Raises:
        NotReady: another process has it open for writing.
        SourceError: its extension is not installed on this machine, or it cannot be opened.
    """
    extension = _EXTENSIONS.get(other.kind)
    if extension is not None:
        _load(connection, extension)
    kind = f", TYPE {extension}" if extension else ""
    alias = '"' + other.alias.replace('"', '""') + '"'
    try:
        connection.execute(f"ATTACH {_text(other.target)} AS {alias} (READ_ONLY{kind})")
    except duckdb.Error as error:
        if other.kind != "postgres":
            raise _not_opened(error, Path(other.target)) from error
        words = _first_line(str(error).replace(other.target, "…"))  # it may hold a password
        raise _wrong(
            f"{other.alias} cannot be attached: {words}", "look whether it is up, and the login"
        ) from error


def identity(database: Path, base: Path) -> tuple[SourceFile, ...]:
    """
    What a database is known by: its path, size and content, and that of the log beside it.

    A log (`.wal`) is what a writer left that was killed; DuckDB reads it too. Call this before
    `connect` or after it, never meanwhile: closing any handle on a file gives up the lock that
    keeps writers out of it (POSIX), DuckDB's own included.

    Raises:
        SourceError: it cannot be read.
    """
    found = []
    for path in (database, database.with_name(database.name + ".wal")):
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                found.append(SourceFile(relative(path, base), file.tell(), digest, ()))
        except FileNotFoundError:
            if path == database:
                raise _wrong(f"there is no {database}") from None
        except OSError as error:
            raise _wrong(f"{path} cannot be read: {error.strerror or error}") from error
    return tuple(found)


# --- opening --------------------------------------------------------------------------------------


def _opened(database: Path | None) -> duckdb.DuckDBPyConnection:
    if database is None:
        return duckdb.connect(":memory:", config={**_AT_OPENING})
    _look_at(database)
    try:
        return duckdb.connect(str(database), read_only=True, config={**_AT_OPENING})
    except duckdb.Error as error:
        raise _not_opened(error, database) from error


def _look_at(database: Path) -> None:
    """
    Refuse what DuckDB would take for something else, before it holds a lock.
    """
    if not database.exists():
        raise _wrong(f"there is no {database}")
    if database.is_dir():
        raise _wrong(f"{database} is a folder, not a DuckDB file")
    try:
        with database.open("rb") as file:
            start = file.read(len(_SQLITE))
    except OSError as error:
        raise _wrong(f"{database} cannot be read: {error.strerror or error}") from error
    if start == _SQLITE:
        raise _wrong(f"{database} is an SQLite file, not a DuckDB file", "attach it as sqlite")


def _not_opened(error: duckdb.Error, database: Path) -> BatchrankError:
    """
    Why DuckDB did not open a file.
    """
    words = str(error)
    if "Conflicting lock" in words or "Could not set lock" in words:
        holder = re.search(r"PID \d+", words)
        return NotReady(
            f"{database} is open for writing in another process"
            + (f" ({holder[0]})" if holder else ""),
            "try again when that has closed it (exit 75), or name a copy in source.database",
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
        )
    if "not a valid DuckDB database file" in words:
        return _wrong(f"{database} is not a DuckDB file", "look whether the path is right")
    if "different configuration" in words:
        return _wrong(f"{database} is open already in this process", "close it there first")
    if "Corrupt" in words or "Could not read enough" in words:
        return _wrong(f"{database} is damaged: {_first_line(words)}", "take a sound copy of it")
    return _wrong(f"{database} cannot be opened: {_first_line(words)}")


def _load(connection: duckdb.DuckDBPyConnection, extension: str) -> None:
    try:
        connection.load_extension(extension)
    except duckdb.Error as error:
        raise _wrong(
            f"DuckDB's extension {extension} is not installed here, and a run downloads nothing",
            "install it once for this user and version: python -c "
            f"\"import duckdb; duckdb.connect().install_extension('{extension}')\"",
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


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _list(values: Sequence[str]) -> str:
    return f"[{', '.join(map(_text, values))}]"


def _first_line(words: str) -> str:
    return words.strip().partition("\n")[0]


def _wrong(message: str, hint: str = "") -> SourceError:
    return SourceError("", hint, [Problem(0, _KEY, message)])
