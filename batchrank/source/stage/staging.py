"""
The staging itself: what DuckDB sorts is written as nested Parquet, once for each fingerprint.

Owns a folder in an output's state, and in it one for each source as it was, with `groups.parquet`
and, written last, `staged.json`. What lies there without it was interrupted and is made anew; what
somebody reads is not removed. Never touches the inputs, and asks nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.config.schema import SourceTable, size_bytes
from batchrank.domain import SourceFile
from batchrank.errors import AlreadyRunning, SourceError, StorageError
from batchrank.source.stage.asking import stream
from batchrank.source.stage.checking import check_ids, check_types, check_whole, places_of
from batchrank.source.stage.content import Content
from batchrank.source.stage.folding import NoGroup, folded
from batchrank.source.stage.forms import FLAW, Staged
from batchrank.source.stage.statement import Statement

GROUPS, FLAWS, DONE = "groups.parquet", "flaws.json", "staged.json"
SPILL, LOCK, COPIES = "spill", "lock", "copies"
VERSION = 2
"""Of the form that is staged; another one is staged anew."""

ROWS_AT_ONCE = 2_048
ROW_GROUP_BYTES = 16 * 2**20
ROW_GROUP_ROWS = 4_096
"""A row group ends with whichever comes first, so that reading holds little."""

Progress = Callable[[int], None]
"""Hears how many rows have been sorted and written so far."""


@dataclass(frozen=True, slots=True)
class Kept:
    """
    What `staged.json` says; *read_as* is the `[source]` by which the groups are read, *content*
    the size of all rows and their digest, if that is what the source is known by.
    """

    key: str
    groups: int
    rows: int
    read_as: Mapping[str, Any]
    content: tuple[int, str] | None

    def table(self, folder: Path) -> SourceTable:
        """
        The same with the file, which lies in *folder*.
        """
        return SourceTable.model_validate({**self.read_as, "path": str(folder / GROUPS)})


def key_of(table: SourceTable, files: Sequence[SourceFile], select: str) -> str:
    """
    What a staged source is known by: everything that decides which rows it has, and their order.
    """
    free = {"memory", "require_success", "keep_staged", "dedupe"}
    settings = table.model_dump(mode="json", exclude=free)
    held = {
        "version": VERSION,
        "duckdb": duckdb.__version__,
        "pyarrow": pa.__version__,
        "settings": settings,
        "select": select,
        "files": [[file.path, file.size_bytes, file.footer_sha256] for file in files],
    }
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def kept(folder: Path, key: str) -> Kept | None:
    """
    What was staged before, if all of it is there.
    """
    try:
        said = json.loads((folder / DONE).read_text())
        content = tuple(said.pop("content")) if said["content"] else said.pop("content")
        held = Kept(**said, content=content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return held if held.key == key and (folder / GROUPS).is_file() else None


def stage(
    connection: duckdb.DuckDBPyConnection,
    staged: Staged,
    statement: Statement,
    *,
    folder: Path,
    key: str,
    progress: Progress,
    content: Content | None,
) -> Kept:
    """
    Sort, fold and write; what an interrupted one left behind is overwritten. *content* takes the
    digest of what is written.

    Raises:
        SourceError: the rows are no groups, or DuckDB cannot read them.
        StorageError: the state folder cannot hold them.
    """
    check_ids(connection, staged)
    check_types(connection, staged, statement)
    try:
        with stream(connection, statement, ROWS_AT_ONCE) as batches:
            done = _written(batches, staged, folder, key, progress, content)
        check_whole(connection, staged, folder / GROUPS)
        _settle((folder / GROUPS, folder / FLAWS), folder / DONE, asdict(done))
    except NoGroup as error:
        where = places_of(connection, staged, error.query_id)
        raise SourceError(f"{staged.name}: {error.what}{where}", error.remedy) from error
    except OSError as error:
        raise StorageError(
            f"the source cannot be staged in {folder}: {error.strerror or error}",
            "make room, or set output.state to a folder elsewhere",
            out_of_space=True,
        ) from error
    return done


def _written(
    batches: Iterable[pa.RecordBatch],
    staged: Staged,
    folder: Path,
    key: str,
    progress: Progress,
    content: Content | None,
) -> Kept:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counted = _Counted(batches, progress)
    groups = iter(counted) if staged.nested else folded(counted, staged.table.depth)
    total, writer = 0, None
    path = folder / GROUPS
    flaws: dict[int, str] = {}
    try:
        for rows in _row_groups(groups):
            if content is not None:
                content.add(rows)
            if FLAW in rows.column_names:
                found = enumerate(rows[FLAW].to_pylist(), total)
                flaws |= {position: flaw for position, flaw in found if flaw}
                rows = rows.drop_columns([FLAW])
            writer = writer or pq.ParquetWriter(
                path, rows.schema, compression="zstd", write_page_checksum=True
            )
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))
            total += rows.num_rows
        if writer is not None and content is not None:  # so that its footer tells others apart
            writer.add_key_value_metadata({"batchrank.content": content.hex()})
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        pq.write_table(_NOTHING, path, write_page_checksum=True)
    (folder / FLAWS).write_text(json.dumps(flaws))
    read_as = staged.table.model_dump(mode="json", exclude_defaults=True)
    known_by = (content.size_bytes, content.hex()) if content is not None else None
    return Kept(key, total, counted.rows, read_as, known_by)


_NOTHING = pa.table({"query_id": pa.array([], pa.string())})
"""A source of no groups may have any columns."""


class _Counted:
    """
    Batches, counted as they pass.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], progress: Progress) -> None:
        self._batches = batches
        self._progress = progress
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            yield batch
            self.rows += batch.num_rows
            self._progress(self.rows)


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """
    Put batches together to row groups.
    """
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held)


def flaws_in(folder: Path) -> dict[int, str]:
    """
    Why groups of a staged source cannot be asked about, by position.
    """
    return {int(key): flaw for key, flaw in json.loads((folder / FLAWS).read_text()).items()}


def _settle(data: Sequence[Path], done: Path, said: Mapping[str, Any]) -> None:
    """
    Make the data durable, then say that it is complete.
    """
    aside = done.with_suffix(".tmp")
    aside.write_text(json.dumps(said))
    for path in (*data, aside):
        with path.open("rb") as held:
            os.fsync(held.fileno())
    aside.replace(done)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """
    Keep others from staging into *root* at the same time.

    Raises:
        AlreadyRunning: somebody does.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / LOCK).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another process stages this source in {root}", "try again when it is done"
            ) from error
        yield


@contextmanager
def spilling(root: Path, name: str = SPILL) -> Iterator[Path]:
    """
    A folder for what does not fit into memory, or is needed for as long.
    """
    folder = root / name
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        forget_spilled(root)


def forget_spilled(root: Path) -> None:
    """
    Remove what did not fit into memory, and copies, of a staging that was killed, too.
    """
    for name in (SPILL, COPIES):
        shutil.rmtree(root / name, ignore_errors=True)


def forget(folder: Path) -> None:
    """
    Remove what was staged there.
    """
    shutil.rmtree(folder, ignore_errors=True)


def forget_others(root: Path, key: str) -> None:
    """
    Remove what was staged for another fingerprint, unless somebody reads it.
    """
    for folder in root.iterdir():
        if folder.name in (key[:16], LOCK):
            continue
        with suppress(OSError):
            os.close(hold(folder, fcntl.LOCK_EX))
            shutil.rmtree(folder, ignore_errors=True)


def hold(folder: Path, how: int = fcntl.LOCK_SH) -> int:
    """
    Keep others from removing what was staged, until the descriptor that this returns is closed.

    Raises:
        OSError: somebody else holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def memory_bytes(table: SourceTable) -> int:
    """
    What DuckDB is told that it may use: it takes a tenth more (measured), and we need some.
    """
    return int(0.9 * size_bytes(table.memory))
