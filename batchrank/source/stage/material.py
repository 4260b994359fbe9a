"""
What a source is staged from, and the way from `[source]` to the staged file.

Owns the choice of inputs and of the statement over them, and the order of steps: inputs are known,
the folder is ours, DuckDB is asked, what it sorted is written. Never reads what was staged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import has_magic
from pathlib import Path

import duckdb

from batchrank.config.schema import SourceTable, StoresTable
from batchrank.domain import SourceFile
from batchrank.errors import NotReady, Problem, SourceError
from batchrank.places.uri import is_uri
from batchrank.source.stage import staging
from batchrank.source.stage.asking import types_of
from batchrank.source.stage.content import Content
from batchrank.source.stage.forms import (
    DOC_IDS,
    NEGATIVE,
    POSITIVE,
    QUERIES,
    QUERY_IDS,
    RUN_IDS,
    Staged,
    of_one,
    of_three,
    text_fields,
)
from batchrank.source.stage.inputs import Input, fetched, input_of, look_through
from batchrank.source.stage.locked import Attached, connect, identity
from batchrank.source.stage.looking import Relation
from batchrank.source.stage.postgres import way_to
from batchrank.source.stage.scans import Roles, relation_of
from batchrank.source.stage.sql import quoted
from batchrank.source.stage.statement import Statement, ours, select


@dataclass(frozen=True, slots=True)
class Brought:
    """
    A staged source: the *table* by which it is read, the inputs' identities, why groups of it
    cannot be asked about (by position), and words for a person. As long as the descriptor *held*
    is open nobody removes it.
    """

    table: SourceTable
    held: int
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
    begun_with: Collection[str],
) -> Brought:
    """
    Stage below *root* what *table* tells of, unless it is there already. Nobody can see from
    outside whether a PostgreSQL would give the same again: what is there serves if it is what the
    output was *begun_with* (digests of contents), else it is asked again.

    Raises:
        NotReady, AlreadyRunning, SourceError, StorageError: as `staged.open_groups` says.
    """
    made_of = _material(table, base, stores)
    prepare()
    text = made_of.select.text if made_of.select else ""
    key = staging.key_of(table, made_of.files, text)
    folder = root / key[:16]
    with staging.alone(root):
        staging.forget_spilled(root)
        kept = staging.kept(folder, key)
        if kept is None or (made_of.asked and _digest(kept) not in begun_with):
            staging.forget_others(root, key)
            kept = _stage(made_of, table, folder, key, progress)
            _refuse_written_to(made_of, base, folder)
        held = staging.hold(folder)
    files = made_of.files
    if made_of.asked:
        size_bytes = kept.content[0] if kept.content else 0
        name = f"postgres:{','.join(made_of.asked)}"
        files = (*files, SourceFile(name, size_bytes, _digest(kept), ()))
    return Brought(kept.table(folder), held, files, staging.flaws_in(folder), made_of.notes)


def _digest(kept: staging.Kept) -> str:
    return kept.content[1] if kept.content else ""


def _stage(
    made_of: _Material, table: SourceTable, folder: Path, key: str, progress: staging.Progress
) -> staging.Kept:
    with (
        staging.spilling(folder.parent, staging.COPIES) as copies,
        staging.spilling(folder.parent) as temp,
        made_of.fetched(copies) as made_of,
        connect(
            database=made_of.database,
            readable=(*made_of.readable, folder / staging.GROUPS),
            temp=temp,
            memory_bytes=staging.memory_bytes(table),
            keep_order=True,
            attached=made_of.attached,
        ) as connection,
    ):
        for given in (*made_of.inputs, *made_of.reads):
            look_through(given, roles_of(table).all)
        staged, statement = made_of.staged(connection, table)
        return staging.stage(
            connection,
            staged,
            statement,
            folder=folder,
            key=key,
            progress=progress,
            content=Content() if made_of.asked else None,
        )


def _refuse_written_to(made_of: _Material, base: Path, folder: Path) -> None:
    """
    SQLite lets others write while it is read: then nobody knows which state was staged.
    """
    for other in made_of.attached:
        if other.kind == "sqlite" and not set(_known_by(other, base)) <= set(made_of.files):
            staging.forget(folder)
            raise NotReady(
                f"{other.target} was written to while it was staged",
                "try again when nobody writes (exit 75), or attach a copy (VACUUM INTO)",
            )


@dataclass(frozen=True, slots=True)
class _Material:
    """
    The inputs of a staging; *reads* are what the SELECT may read beside the database, *globs* what
    it may call several of them.
    """

    files: tuple[SourceFile, ...]
    inputs: tuple[Input, ...] = ()
    reads: tuple[Input, ...] = ()
    globs: tuple[Path, ...] = ()
    database: Path | None = None
    select: Statement | None = None
    attached: tuple[Attached, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """
        The names of those that have no files here.
        """
        return tuple(other.alias for other in self.attached if other.kind == "postgres")

    @property
    def readable(self) -> tuple[Path, ...]:
        """
        What DuckDB may open.
        """
        files = (path for given in (*self.inputs, *self.reads) for path in given.paths)
        return (*files, *self.globs)

    @contextmanager
    def fetched(self, folder: Path) -> Iterator[_Material]:
        """
        The same with copies below *folder* of what lies in a store; messages speak of where that
        lies.
        """
        inputs = tuple(fetched(given, folder) for given in self.inputs)
        copies = [
            (str(path), str(place))
            for given in inputs
            for path, place in zip(given.paths, given.places, strict=True)
            if path != place
        ]
        try:
            yield replace(self, inputs=inputs)
        except SourceError as error:
            if not copies:
                raise
            told = [replace(each, message=_named(each.message, copies)) for each in error.problems]
            raise SourceError(_named(error.head, copies), error.hint, told) from error

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
                relation_of(connection, given, roles_of(table)) for given in self.inputs
            )
            return _ours(of_three(table, run, queries, corpus), "source.run")
        if self.inputs:
            relation = relation_of(connection, self.inputs[0], roles_of(table))
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


def _named(text: str, copies: Sequence[tuple[str, str]]) -> str:
    for path, place in copies:
        text = text.replace(path, place)
    return text


_SELECT = "\0"
"""Stands for the user's SELECT in a statement around it."""


def _ours(staged: Staged, key: str) -> tuple[Staged, Statement]:
    return staged, ours(staged.sql, key)


def roles_of(table: SourceTable) -> Roles:
    """
    What the columns are that the job names, or that are called as usual.
    """
    usual = (*QUERY_IDS, *DOC_IDS, *RUN_IDS[0], *RUN_IDS[1])
    mark = f"{table.documents}."
    return Roles(
        ids=frozenset(filter(None, (*usual, table.query_id, table.doc_id))),
        texts=frozenset((*QUERIES, table.query, table.documents, *text_fields(table))),
        numbers=frozenset(filter(None, (table.score, table.rank))),
        more=frozenset(
            (*table.group_order, *(name.removeprefix(mark) for name in table.carry),
             POSITIVE, NEGATIVE)
        ),
    )  # fmt: skip


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
    globs = tuple(_absolute(base, each) for each in table.reads if has_magic(each))
    attached = tuple(_attached(table, base))
    held = [*(identity(database, base) if database else ())]
    held += [file for other in attached for file in _known_by(other, base)]
    unique = tuple(dict.fromkeys((*held, *files)))
    selected = _selected(table, base)
    return _Material(unique, (), read, globs, database, selected, attached)


def _attached(table: SourceTable, base: Path) -> Iterator[Attached]:
    for alias, other in table.attach.items():
        if other.type == "postgres":
            target, password = way_to(alias, other.dsn_env, os.environ)
            yield Attached(other.type, target, alias, password)
        else:
            yield Attached(other.type, str(_absolute(base, other.path or "")), alias)


def _known_by(other: Attached, base: Path) -> tuple[SourceFile, ...]:
    if other.kind == "postgres":
        return ()
    return identity(Path(other.target), base, other.kind, f"{other.key}.path")


def _refuse_stores(table: SourceTable) -> None:
    """
    A SELECT reads what lies on this machine: DuckDB is not let near any network.
    """
    named = {"database": table.database, "sql_file": table.sql_file}
    named |= {"reads": next(filter(is_uri, table.reads), None)}
    named |= {f"attach.{alias}.path": other.path for alias, other in table.attach.items()}
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
