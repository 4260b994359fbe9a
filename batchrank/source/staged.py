"""
A source that is staged first: its groups lie in the state folder, its identity in the inputs.

Owns the way from `[source]` to a staged file (whether one is needed, which inputs it is made of)
and the source over it, which for everybody else is like any other. Reads inputs only to stage them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchrank.config.schema import SourceTable
from batchrank.domain import Group, Positions, SourceBatch, SourceFile
from batchrank.errors import Problem, SourceError
from batchrank.source.files import find
from batchrank.source.parquet import ParquetSource, open_source
from batchrank.source.profile import Profile
from batchrank.source.reading import opened
from batchrank.source.stage import staging
from batchrank.source.stage.asking import types_of
from batchrank.source.stage.forms import (
    NEGATIVE,
    POSITIVE,
    Relation,
    Staged,
    of_one,
    of_three,
    quoted,
    text_fields,
)
from batchrank.source.stage.inputs import Input, format_of, input_of, relation_of
from batchrank.source.stage.locked import connect, identity
from batchrank.source.stage.statement import Statement, ours, select

if TYPE_CHECKING:
    import duckdb


class StagedSource(ParquetSource):
    """
    The groups of a staged file. *files* are the identities of what it was staged from, which is
    what outputs are compared by; none of them has a place of its own among the positions.
    """

    mendable = False

    def __init__(
        self,
        inner: ParquetSource,
        files: tuple[SourceFile, ...],
        flaws: Mapping[int, str],
        notes: tuple[str, ...] = (),
    ) -> None:
        self.notes = notes
        self._inner = inner
        self._flaws = flaws
        self.files = files
        self.total = inner.total
        self.row_group_bytes_max = inner.row_group_bytes_max

    def batches(self, done: Positions, stop: int) -> Generator[SourceBatch, None, None]:
        """
        As those of the file, but for groups that staging found a flaw in.
        """
        for batch in self._inner.batches(done, stop):
            here = range(batch.position, batch.position + batch.rows)
            flawed = self._flaws and any(position in self._flaws for position in here)
            yield FlawedBatch(batch, self._flaws) if flawed else batch

    def no_rows(self) -> bytes:
        """
        As that of the file.
        """
        return self._inner.no_rows()

    def carried_batches(self, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """
        As those of the file.
        """
        return self._inner.carried_batches(stop)

    def profile(
        self,
        seconds_max: float,
        *,
        full: bool = False,
        done: Positions | None = None,
        seed: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> Profile:
        """
        As that of the file.
        """
        more = {} if clock is None else {"clock": clock}
        return self._inner.profile(seconds_max, full=full, done=done, seed=seed, **more)


class FlawedBatch:
    """
    A batch with groups that cannot be asked about, for reasons that its file does not show.
    """

    def __init__(self, inner: SourceBatch, flaws: Mapping[int, str]) -> None:
        self._inner = inner
        self._flaws = flaws
        self.position = inner.position
        self.rows = inner.rows

    @property
    def carried(self) -> bytes:
        """
        As that of the batch.
        """
        return self._inner.carried

    def group(self, position: int) -> Group:
        """
        As that of the batch, without its texts if it has a flaw.
        """
        group = self._inner.group(position)
        flaw = self._flaws.get(position)
        if flaw is None:
            return group
        return Group(position, group.query_id, "", (None,) * len(group.documents), flaw)


def open_groups(
    table: SourceTable,
    base: Path,
    staging_root: Path,
    progress: staging.Progress = lambda _: None,
    prepare: Callable[[], object] = lambda: None,
) -> ParquetSource:
    """
    The groups that *table* tells of; what does not lie nested in Parquet is staged below
    *staging_root* first, or found there.

    *base* is the job file's folder. *prepare* is called before anything is written.

    Raises:
        NotReady: upstream has not finished writing.
        AlreadyRunning: another process stages this source.
        SourceError: what is there cannot be read as *table* says.
        StorageError: there is no room to stage it.
    """
    if table.path is not None and _lies_nested(table, table.path, base):
        return open_source(table, base)
    made_of = _material(table, base)
    prepare()
    text = made_of.select.text if made_of.select else ""
    key = staging.key_of(table, made_of.files, text)
    folder = staging_root / key[:16]
    with ExitStack() as stack:
        stack.enter_context(staging.alone(staging_root))
        connection = stack.enter_context(
            connect(
                database=made_of.database,
                readable=made_of.readable,
                temp=stack.enter_context(staging.spilling(staging_root)),
                memory_bytes=staging.memory_bytes(table),
                keep_order=True,
            )
        )
        staged, statement = made_of.staged(connection, table)
        if staging.kept(folder, key) is None:
            staging.forget_others(staging_root, key)
            staging.stage(
                connection,
                staged,
                statement,
                folder=folder,
                key=key,
                progress=progress,
            )
    read_as = staged.table.model_copy(update={"path": str(folder / staging.GROUPS)})
    return StagedSource(
        open_source(read_as, base), made_of.files, staging.flaws_in(folder), made_of.notes
    )


def _lies_nested(table: SourceTable, path: str, base: Path) -> bool:
    """
    Tell whether the files are Parquet with a row per group, to be read as they are.

    What fits neither shape is taken for nested: the message about it is the better one.
    """
    paths = find(path, base, require_success=table.require_success)
    if paths and format_of(paths[0]) not in ("parquet", None):
        return False
    if table.depth or table.group_order or table.score or table.rank:
        return False
    for each in paths:
        with opened(each, each.name) as file:
            names = set(file.schema.names)
            if not names:
                continue
        if table.documents in names:
            return True
        rows = table.query in names and (not text_fields(table) or text_fields(table)[0] in names)
        return not rows and not {POSITIVE, NEGATIVE} <= names
    return True


# --- what it is made of ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Material:
    """
    The inputs of a staging. *readable* are the files that DuckDB may open.
    """

    files: tuple[SourceFile, ...]
    readable: tuple[Path, ...]
    inputs: tuple[Input, ...] = ()
    database: Path | None = None
    select: Statement | None = None

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


def _material(table: SourceTable, base: Path) -> _Material:
    named = [("run", table.run), ("queries", table.queries), ("corpus", table.corpus)]
    if table.path is not None:
        named = [("path", table.path)]
    inputs = tuple(
        input_of(key, path, base, require_success=table.require_success)
        for key, path in named
        if path is not None
    )
    if inputs:
        paths = tuple(path for given in inputs for path in given.paths)
        return _Material(tuple(file for given in inputs for file in given.files), paths, inputs)
    database = _absolute(base, table.database) if table.database else None
    read = tuple(input_of("reads", each, base) for each in table.reads)
    files = tuple(file for given in read for file in given.files)
    paths = tuple(path for given in read for path in given.paths)
    held = identity(database, base) if database else ()
    return _Material((*held, *files), paths, (), database, _selected(table, base))


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
