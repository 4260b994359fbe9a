"""
A user's SELECT on a connection: which columns it has, its rows as a stream, what went wrong.

Owns the second look at it, at its plan, which shows what views and macros of the database hide, and
the translation of DuckDB's errors into places of the SQL that the user wrote. Never runs what it
has not looked at, and never holds more rows than a batch and what DuckDB's memory allows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import duckdb
import pyarrow as pa

from batchrank.errors import BatchrankError, NotReady, StorageError
from batchrank.interruptible import interruptible
from batchrank.source.stage.postgres import is_away
from batchrank.source.stage.statement import MAKERS, READERS, Statement, refusal

_PLANNED = {name.upper() for name in READERS | MAKERS} | {
    "POSTGRES_SCAN",
    "POSTGRES_SCAN_PUSHDOWN",
    "SQLITE_SCAN",
}
"""Functions that a plan may hold; those of attached databases stand for their tables."""

_WRITING = re.compile(r"ATTACH|COPY|CREATE|DELETE|EXECUTE|EXPLAIN|EXPORT|INSERT|MERGE_INTO|UPDATE")
_FULL = re.compile(r"No space left|max_temp_directory_size|could not write", re.IGNORECASE)
_HINTS = {
    "Binder": "look at the names of columns, and at their types",
    "Catalog": "look at how it is spelt, and whether source.database is the right file; what is in"
    " an attached one is ALIAS.table",
    "Conversion": "mend the value, or take TRY_CAST, which makes NULL of what does not fit",
    "IO": "look whether the file is there and can be read",
    "Out of Memory": "set source.memory higher, or select fewer columns",
    "Parser": "mend the SQL",
    "Permission": "name the file or its folder in source.reads; links are followed to where they"
    " lead, and ~ and s3:// are not looked up",
}


class Interrupted(Exception):
    """
    Somebody called `interrupt` on the connection; whoever did knows why.
    """


def schema_of(connection: duckdb.DuckDBPyConnection, statement: Statement) -> pa.Schema:
    """
    The columns of a SELECT, as `stream` gives them; it is planned, not run.

    Raises:
        SourceError: it cannot be run here.
    """
    look(connection, statement)
    none = statement.within("SELECT * FROM (", ") AS none LIMIT 0")
    with _told(none, connection):
        schema: pa.Schema = interruptible(
            connection,
            lambda: connection.sql(none.sql, params=_values(none)).to_arrow_table().schema,
        )
        return schema


def types_of(connection: duckdb.DuckDBPyConnection, statement: Statement) -> dict[str, str]:
    """
    The columns of a SELECT with DuckDB's names of their types; it is planned, not run.

    Raises:
        SourceError: it cannot be run here.
    """
    look(connection, statement)
    described = statement.within("DESCRIBE ", "")
    rows = rows_of(connection, described)
    return {str(name): str(kind) for name, kind, *_ in rows}


def rows_of(connection: duckdb.DuckDBPyConnection, statement: Statement) -> list[tuple[Any, ...]]:
    """
    The rows of a SELECT that has few.

    Raises:
        SourceError: it cannot be run here.
    """
    with _told(statement, connection):
        return interruptible(
            connection,
            lambda: connection.execute(statement.sql, _values(statement)).fetchall(),
        )


class Rows(Iterator[pa.RecordBatch]):
    """
    The rows of a SELECT, in batches, as they come; made by `stream`.

    Close it (or leave its `with` block) before the connection does anything else: it can do one
    thing at a time.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, statement: Statement, rows_per_batch: int
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._reader: pa.RecordBatchReader | None = None
        try:
            with _told(statement, connection):
                self._reader = interruptible(connection, lambda: self._run(rows_per_batch))
                self.schema: pa.Schema = self._reader.schema
        except BaseException:  # a signal's, too: the connection has to be free
            self.close()
            raise

    def _run(self, rows_per_batch: int) -> pa.RecordBatchReader:
        relation = self._connection.sql(self._statement.sql, params=_values(self._statement))
        return relation.to_arrow_reader(rows_per_batch)

    def __next__(self) -> pa.RecordBatch:
        reader = self._reader
        if reader is None:
            raise StopIteration
        try:
            with _told(self._statement, self._connection):
                batch: pa.RecordBatch | None = interruptible(
                    self._connection, lambda: next(reader, None)
                )
        except BaseException:  # a signal's, too: the connection has to be free
            self.close()
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """
        Let go of the connection, whether all rows were read or not.
        """
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def stream(
    connection: duckdb.DuckDBPyConnection, statement: Statement, rows_per_batch: int
) -> Rows:
    """
    Run a SELECT and hand out its rows as they come; sorting is over when this returns.

    DuckDB works in another thread, so that signals are handled while it does; an exception that
    they raise interrupts it.

    Raises:
        SourceError: it cannot be run here; also from the rows, at one that cannot be made.
        StorageError: there is no room for what does not fit into memory.
        Interrupted: the connection was interrupted.
    """
    look(connection, statement)
    return Rows(connection, statement, rows_per_batch)


# --- the second look ------------------------------------------------------------------------------


def look(connection: duckdb.DuckDBPyConnection, statement: Statement) -> None:
    """
    Plan a SELECT, and refuse it if the plan holds what may do more than read.

    Raises:
        SourceError: that, or it cannot be planned.
    """
    planned = statement.within("EXPLAIN (FORMAT JSON) ", "")
    rows = rows_of(connection, planned)
    left: list[dict[str, Any]] = json.loads(rows[0][1])
    while left:
        node = left.pop()
        left += node.get("children", [])
        name = str(node["name"]).strip()
        function = str(node.get("extra_info", {}).get("Function", "")).strip()
        if _WRITING.search(name) or (function and function not in _PLANNED):
            what = (
                f"a view or a macro in it uses {(function or name).lower()}, which is not allowed"
            )
            raise refusal(statement.key, statement.text, None, what, "name the tables themselves")


def _values(statement: Statement) -> dict[str, object] | None:
    return dict(statement.parameters) or None


# --- errors ---------------------------------------------------------------------------------------


@contextmanager
def _told(statement: Statement, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """
    Turn what DuckDB and Arrow raise into errors of ours.
    """
    try:
        yield
    except BatchrankError:
        raise
    except (duckdb.Error, OSError, pa.ArrowException, RuntimeError) as error:
        raise _translated(error, statement, connection) from error


def _translated(
    error: Exception, statement: Statement, connection: duckdb.DuckDBPyConnection
) -> Exception:
    """
    What an error means: whose fault it is, where in the SQL, and what to do.
    """
    said = _said(error)
    kind, words = said["exception_type"], said["exception_message"]
    if "interrupted" in words.lower() or kind == "INTERRUPT":
        return Interrupted(words)
    if _FULL.search(words):
        return StorageError(
            f"there is no room for what does not fit into memory: {_told_of_files(words)}",
            "make room where the state folder is, or set source.memory higher",
            out_of_space=True,
        )
    if kind == "IO" and is_away(words):
        return NotReady(f"PostgreSQL went away: {words}", "try again when it is up (exit 75)")
    place = _place(said, statement, connection)
    hint = next((hint for sign, hint in _OF_FILES.items() if sign in words), _HINTS.get(kind, ""))
    return refusal(statement.key, statement.text, place, _told_of_files(words), hint)


_ADVICE = re.compile(
    r";?\s*(?:Possible (?:fixes|[Ss]olution)|Potential Fixes|Try (?:setting|auto-detecting)"
    r"|If you are trying|\* SET )"
)
"""What DuckDB proposes from here on are options of its own, which a job has not."""

_OF_FILES = {
    "byte order mark": "save the file without a byte order mark, as UTF-8",
    "not utf-8 encoded": "save the file as UTF-8",
    "invalid UTF-8": "save the file as UTF-8",
    "surrogate": "it is half a character: write it whole, or leave it out",
    "Malformed JSON": "each line has to be one JSON object, complete",
    "JSON transform error": "write that line as the others are",
    "Maximum line size": "leave that line out, or write Parquet",
    "unterminated quote": "close that quote; one that belongs to the text is written twice",
    "invalid state": "end all lines alike, and double the quotes that belong to a text",
    "Columns: 6": "mend that line, or leave it out; in a TREC run a single blank or a single tab"
    " stands between two of its six fields",
    "Invalid type in column": "mend the value; SQLite keeps what it is given, whatever is declared",
    "CSV Error": "mend that line, or leave it out",
    "GZIP": "it was cut off or is damaged: write it anew",
    "mismatch": "all files of a source need the same columns, of the same types",
}
"""What mends a file, by what DuckDB says of it."""

_LINE = re.compile(r"CSV Error on Line: (\d+)\n(?:Original Line: ?)?(.*)", re.DOTALL)
_IN_CSV = re.compile(r"^\s*file = (.*?)$", re.MULTILINE)
_IN_JSON = re.compile(r"(Malformed JSON in file .*?, at byte \d+ in line )(\d+)(?=:)")
_SHOWN_CHARS = 80


def _told_of_files(words: str) -> str:
    """
    What DuckDB says of a file, in the order of file, line and what is wrong with it.

    Of CSV it names the file among its options, and shows all of a line however long it is. Of JSON
    that is malformed it counts one line too many (2.0).
    """
    file = _IN_CSV.search(words)
    words = _ADVICE.split(words)[0]
    words = _IN_JSON.sub(lambda found: f"{found[1]}{int(found[2]) - 1}", words)
    if line := _LINE.match(words):
        text, _, what = line[2].split("\n\nColumn ")[0].rstrip().rpartition("\n")
        shown = f" ({text[:_SHOWN_CHARS]!r})" if text.strip() else ""
        words = f"line {line[1]}: {what}{shown}"
    elif file:
        words = words.partition("\n")[0]
    return (f"{file[1]}: " if file else "") + "; ".join(filter(None, words.split("\n")))


def _said(error: Exception) -> dict[str, str]:
    """
    An error's kind, words and what else DuckDB tells of it.
    """
    text = str(error)
    start = text.find("{")
    try:
        said = json.loads(text[start:]) if start >= 0 else {}
    except ValueError:
        said = {}
    if "exception_message" not in said:
        said = {"exception_type": "", "exception_message": text.partition("\n\n")[0]}
    return said


def _place(
    said: dict[str, str], statement: Statement, connection: duckdb.DuckDBPyConnection
) -> int | None:
    """
    Where in the user's SQL it is, if that is sure.

    Places in a view are counted in the view's own SQL, and nothing says so. With views or macros a
    place is told only if what the error names stands there.
    """
    place = statement.place(int(said["position"])) if "position" in said else None
    if place is None:
        return None
    name = said.get("name", "")
    here = statement.text.encode()[place:].decode(errors="replace").lower()
    named = bool(name) and here.lstrip('"').startswith(name.lower())
    return place if named or not _views_in(statement, connection) else None


def _views_in(statement: Statement, connection: duckdb.DuckDBPyConnection) -> bool:
    """
    Tell whether the SQL may name a view or macro; it does if nobody can say.
    """
    try:
        rows = connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal"
            " UNION ALL SELECT function_name FROM duckdb_functions() WHERE NOT internal"
        ).fetchall()
    except duckdb.Error:
        return True
    names = "|".join(re.escape(str(name)) for (name,) in rows)
    return bool(names) and bool(
        re.search(rf"(?<!\w)({names})(?!\w)", statement.text, re.IGNORECASE)
    )
