"""
A table in a DuckDB file: the rows of the output with their types, in the job's own layout.

Owns that the table is there whole or not at all. A new file is written beside and renamed; in a
file that is there the table comes in one transaction, and nothing else in it is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from batchrank.errors import OutputError, StorageError
from batchrank.interruptible import interruptible
from batchrank.store.disk import replacing, sync_file, sync_folder
from batchrank.store.formats.published import Published
from batchrank.store.formats.stream import streamed
from batchrank.store.formats.terms import How, Tally

MEMORY = "512MB"

_SETTINGS: dict[str, str | bool] = {
    "memory_limit": MEMORY,
    # Or a file of SQLite's would have DuckDB fetch an extension for it, and write there.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}

ROWS = "__rows_of_batchrank"
"""What the rows are called while they are copied; no table of anybody's has this name."""

_WHAT_IS_THERE = """
SELECT table_type FROM information_schema.tables
WHERE table_catalog = current_database() AND table_schema = current_schema()
  AND lower(table_name) = lower(?)
"""


def write_database(published: Published, path: Path, how: How) -> Tally:
    """
    Write the rows as a table into the database *path*, which is made if it is not there.

    Raises:
        OutputError: the table is there, or the file is no database, or somebody has it open.
        StorageError: the disk.
    """
    if path.exists():
        tally = _written(published, path, path, how)
        _sync(path)
    else:
        with replacing(path) as aside:
            for left in (aside, Path(f"{aside}.wal")):  # by somebody who was killed
                left.unlink(missing_ok=True)
            tally = _written(published, aside, path, how)
            _sync(aside)
    sync_folder(path.parent)
    return tally


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        sync_file(file.fileno())


def _written(published: Published, file: Path, path: Path, how: How) -> Tally:
    """
    Write the table into *file*, which people know as *path*.
    """
    tally = Tally()
    name = '"' + how.table.replace('"', '""') + '"'
    with _connected(file, path, how) as connection:
        _check_free(connection, path, how)
        try:
            with streamed(published.schema, _counted(published, tally)) as rows:
                interruptible(connection, lambda: _copied(connection, rows, name))
        except duckdb.Error as error:
            raise StorageError(f"cannot write {path}: {_first_line(error)}") from error
    return tally


def _copied(connection: duckdb.DuckDBPyConnection, rows: pa.RecordBatchReader, name: str) -> None:
    connection.register(ROWS, rows)
    connection.execute("BEGIN")
    connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM {ROWS}")
    connection.execute("COMMIT")


@contextmanager
def _connected(file: Path, path: Path, how: How) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        settings: dict[str, Any] = {**_SETTINGS, "temp_directory": str(how.spill)}
        connection = duckdb.connect(str(file), config=settings)
    except duckdb.Error as error:
        raise OutputError(
            f"{path} cannot be opened as a DuckDB database: {_first_line(error)}",
            "close it where it is open, or name another file",
        ) from error
    with connection:
        yield connection


def _check_free(connection: duckdb.DuckDBPyConnection, path: Path, how: How) -> None:
    found = connection.execute(_WHAT_IS_THERE, [how.table]).fetchall()
    if not found:
        return
    if found[0][0] != "BASE TABLE":
        raise OutputError(f"{path} has a view {how.table}", "name another table with --table")
    if not how.force:
        raise OutputError(
            f"{path} has a table {how.table} already",
            "name another with --table, or replace it with --force",
        )


def _counted(published: Published, tally: Tally) -> Iterator[pa.RecordBatch]:
    for batch in published.rows():
        tally.rows += batch.num_rows
        yield batch


def _first_line(error: duckdb.Error) -> str:
    return str(error).splitlines()[0]
