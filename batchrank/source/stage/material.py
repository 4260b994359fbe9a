"""
What a source is staged from, and the way from `[source]` to the staged file.

Owns the choice of inputs and of the statement over them, and the order of steps: inputs are known,
the folder is ours, DuckDB is asked, what it sorted is written. Never reads what was staged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from batchrank.config.schema import SourceTable, StoresTable
from batchrank.domain import SourceFile
from batchrank.errors import Problem, SourceError
from batchrank.places.uri import is_uri
from batchrank.source.stage import staging
from batchrank.source.stage.asking import types_of
from batchrank.source.stage.forms import (
    Relation,
    Staged,
    of_one,
    of_three,
    quoted,
    text_fields,
)
from batchrank.source.stage.inputs import Input, fetched, input_of, relation_of
from batchrank.source.stage.locked import connect, identity
from batchrank.source.stage.statement import Statement, ours, select


@dataclass(frozen=True, slots=True)
class Brought:
    """
    A staged source: the *table* by which it is read, the inputs' identities, why groups of it
    cannot be asked about (by position), and words for a person.
    """

    table: SourceTable
    files: tuple[SourceFile, ...]
    flaws: Mapping[int, str]
    notes: tuple[str, ...]


def brought_in(
    table: SourceTable,
    base: Path,
    root: Path,
    progress: staging.Progress,
    prepare: Callable[[], object],
    stores: StoresTable,
) -> Brought:
    """
    Stage below *root* what *table* tells of, unless it is there already.

    Raises:
        NotReady, AlreadyRunning, SourceError, StorageError: as `staged.open_groups` says.
    """
    made_of = _material(table, base, stores)
    prepare()
    text = made_of.select.text if made_of.select else ""
    key = staging.key_of(table, made_of.files, text)
    folder = root / key[:16]
    with staging.alone(root):
        held = staging.kept(folder, key)
        if held is None:
            staging.forget_others(root, key)
            held = _staged(made_of, table, root, key, progress)
    read_as = SourceTable.model_validate({**held.table, "path": str(folder / staging.GROUPS)})
    return Brought(read_as, made_of.files, staging.flaws_in(folder), made_of.notes)


def _staged(
    made_of: _Material, table: SourceTable, root: Path, key: str, progress: staging.Progress
) -> staging.Kept:
    with ExitStack() as stack:
        made_of = made_of.fetched(stack.enter_context(staging.spilling(root, staging.COPIES)))
        connection = stack.enter_context(
            connect(
                database=made_of.database,
                readable=made_of.readable,
                temp=stack.enter_context(staging.spilling(root)),
                memory_bytes=staging.memory_bytes(table),
                keep_order=True,
            )
        )
        with made_of.naming_places():
            staged, statement = made_of.staged(connection, table)
            folder = root / key[:16]
            return staging.stage(
                connection, staged, statement, folder=folder, key=key, progress=progress
            )


@dataclass(frozen=True, slots=True)
class _Material:
    """
    The inputs of a staging; *reads* are what the SELECT may read beside the database.
    """

    files: tuple[SourceFile, ...]
    inputs: tuple[Input, ...] = ()
    reads: tuple[Input, ...] = ()
    database: Path | None = None
    select: Statement | None = None

    @property
    def readable(self) -> tuple[Path, ...]:
        """
        The files that DuckDB may open.
        """
        return tuple(path for given in (*self.inputs, *self.reads) for path in given.paths)

    def fetched(self, folder: Path) -> _Material:
        """
        With copies below *folder* of what lies in a store.
        """
        return replace(self, inputs=tuple(fetched(given, folder) for given in self.inputs))

    @contextmanager
    def naming_places(self) -> Iterator[None]:
        """
        Have messages speak of the places that files were copied from.
        """
        try:
            yield
        except SourceError as error:
            pairs = [
                (str(path), str(place))
                for given in self.inputs
                for path, place in zip(given.paths, given.places, strict=True)
                if path != place
            ]
            if not pairs:
                raise
            told = [replace(each, message=_named(each.message, pairs)) for each in error.problems]
            raise SourceError(_named(error.head, pairs), error.hint, told) from error

    @property
    def notes(self) -> tuple[str, ...]:
        """
        What a person should know of the SELECT.
        """
        if self.select is None:
            return ()
        key = self.select.key
        unused = [f"{key} does not use ${name}" for name in self.select.unused]
        unstable = [
            f"{key} uses {name}: staged again, it would give other groups"
            for name in self.select.unstable
        ]
        return (*unused, *unstable)

    def staged(
        self, connection: duckdb.DuckDBPyConnection, table: SourceTable
    ) -> tuple[Staged, Statement]:
        """
        What DuckDB is asked for.
        """
        if len(self.inputs) == 3:
            run, queries, corpus = (
                relation_of(connection, given, _texts(table)) for given in self.inputs
            )
            return _ours(of_three(table, run, queries, corpus), "source.run")
        if self.inputs:
            relation = relation_of(connection, self.inputs[0], _texts(table))
            return _ours(of_one(table, relation), "source.path")
        if self.select is None:
            assert table.table is not None
            sql = ".".join(quoted(part) for part in table.table.split("."))
            types = types_of(connection, ours(f"SELECT * FROM {sql}", "source.table"))
            return _ours(
                of_one(table, Relation(f"the table {table.table}", sql, types)), "source.table"
            )
        types = types_of(connection, self.select)
        staged = of_one(table, Relation("the SELECT", f"({_SELECT})", types))
        return staged, self.select.within(*staged.sql.split(_SELECT))


def _named(text: str, pairs: Sequence[tuple[str, str]]) -> str:
    for path, place in pairs:
        text = text.replace(path, place)
    return text


_SELECT = "\0"
"""Stands for the user's SELECT in a statement around it."""


def _ours(staged: Staged, key: str) -> tuple[Staged, Statement]:
    return staged, ours(staged.sql, key)


def _texts(table: SourceTable) -> set[str]:
    """
    Columns whose values are text whatever they look like.
    """
    ids = {table.query_id or "query_id", table.doc_id or "doc_id", "_id"}
    return {*ids, table.query, *text_fields(table)}


def _material(table: SourceTable, base: Path, stores: StoresTable) -> _Material:
    named = [("run", table.run), ("queries", table.queries), ("corpus", table.corpus)]
    if table.path is not None:
        named = [("path", table.path)]
    inputs = tuple(
        input_of(key, path, base, require_success=table.require_success, stores=stores)
        for key, path in named
        if path is not None
    )
    if inputs:
        return _Material(tuple(file for given in inputs for file in given.files), inputs)
    _refuse_stores(table)
    database = _absolute(base, table.database) if table.database else None
    read = tuple(input_of("reads", each, base) for each in table.reads)
    files = tuple(file for given in read for file in given.files)
    held = identity(database, base) if database else ()
    return _Material((*held, *files), (), read, database, _selected(table, base))


def _refuse_stores(table: SourceTable) -> None:
    """
    A SELECT reads what lies on this machine: DuckDB is not let near any network.
    """
    named = {"database": table.database, "sql_file": table.sql_file}
    named |= {"reads": next(filter(is_uri, table.reads), None)}
    problems = [
        Problem(
            0,
            f"source.{key}",
            f"{path} is not on this machine",
            "copy it here; from a store, files are read by path, or run with queries and corpus",
        )
        for key, path in named.items()
        if path and is_uri(path)
    ]
    if problems:
        raise SourceError("", "", problems)


def _selected(table: SourceTable, base: Path) -> Statement | None:
    if table.sql:
        return select(table.sql, table.parameters, base=base)
    if table.sql_file:
        text = _read(_absolute(base, table.sql_file))
        return select(text, table.parameters, key="source.sql_file", base=base)
    return None


def _absolute(base: Path, path: str) -> Path:
    return base / Path(path).expanduser()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        problem = Problem(0, "source.sql_file", f"{path} cannot be read: {why}")
        raise SourceError("", "", [problem]) from error
