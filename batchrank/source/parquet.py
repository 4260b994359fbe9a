"""
A source of Parquet files: which groups there are, in which order, and what is left of them.

Owns positions: they run over the files in the order of their paths. Opens one file at a time, and
only files and row groups in which something is missing. Never looks into a row: `reading` decodes.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from batchrank.config.schema import SourceTable, StoresTable
from batchrank.domain import Positions, SourceBatch, SourceFile
from batchrank.errors import ChangedError, SourceError
from batchrank.places.remote import placed
from batchrank.places.stores import AT_HOME
from batchrank.source.carried import NOTHING_MAPPED, no_rows, schema_of
from batchrank.source.columns import Columns
from batchrank.source.files import find, relative
from batchrank.source.fitting import disagreement, fit
from batchrank.source.profile import Profile, See, Tally, nothing_seen
from batchrank.source.reading import OpenFile, RowGroup, opened


def open_source(table: SourceTable, base: Path, stores: StoresTable = AT_HOME) -> ParquetSource:
    """
    Find the files, read every footer and check every mapped column; nothing else is read.

    *base* is the job file's folder, *stores* tells how object stores are reached. A file without
    rows may have any columns: whoever writes an empty table seldom knows their types.

    Raises:
        NotReady: upstream has not finished writing.
        SourceError: what is there cannot be read as *table* says.
    """
    files: list[SourceFile] = []
    first: tuple[Columns, str] | None = None
    largest_bytes = 0
    assert table.path is not None, "whatever has no path is staged"
    for path in find(table.path, base, require_success=table.require_success, stores=stores):
        name = relative(path, base)
        with opened(path, name) as file:
            files.append(file.identity)
            largest_bytes = max(largest_bytes, file.row_group_bytes_max)
            if file.identity.rows == 0:
                continue
            columns = fit(file.schema, table, name)
        first = first or (columns, name)
        if sentence := disagreement(*first, columns, name):
            raise SourceError(sentence, "all files of a source need the same types")
    return ParquetSource(base, tuple(files), first and first[0], largest_bytes, stores)


class ParquetSource:
    """
    The groups of some Parquet files.

    *files* are their identities, *total* counts the groups, *row_group_bytes_max* is the largest
    row group, uncompressed. *mendable*: a file of it may be mended without moving any position.
    *staged*: it was brought into this form. *notes* are words for a person.
    """

    mendable = True
    staged = False
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        base: Path,
        files: tuple[SourceFile, ...],
        columns: Columns | None,
        row_group_bytes_max: int,
        stores: StoresTable = AT_HOME,
    ) -> None:
        self.files = files
        self.total = sum(file.rows for file in files)
        self.row_group_bytes_max = row_group_bytes_max
        self._base = base
        self._stores = stores
        self._columns = columns

    def key_pairs(self) -> None:
        """
        Have each pair keyed, too, in all blocks from here on.
        """
        self._columns = self._columns and replace(self._columns, pairs=True)

    def batches(self, done: Positions, stop: int) -> Generator[SourceBatch, None, None]:
        """
        Yield the batches with at least one position below *stop* that is not in *done*.

        Row groups without one are not opened. Close the iterator to close its file.

        Raises:
            SourceError: when it comes to what cannot be decoded; all before it has been yielded.
            ChangedError: a file is no longer the one that was opened first.
        """

        def wanted(start: int, end: int) -> bool:
            return _some_missing(done, start, min(end, stop))

        for file, columns, group in self._in_turn(done, stop):
            for batch in file.batches(group, columns, wanted):
                yield batch
                end = batch.position + batch.rows
                if not wanted(end, group.stop):
                    break

    def longer(self, count: int, done: Positions, stop: int) -> Iterator[int]:
        """
        Yield the positions below *stop*, and not in *done*, of groups with more than *count*
        candidates. No text is read where something else tells how many there are.

        Raises:
            SourceError, ChangedError, StorageError: as in `batches`.
        """
        for file, columns, group in self._in_turn(done, stop):
            for position, lengths in file.lengths(group, columns):
                if (pc.max(lengths).as_py() or 0) > count:
                    long = pc.indices_nonzero(pc.greater(lengths, count)).to_pylist()
                    there = (position + row for row in long if position + row < stop)
                    yield from (place for place in there if place not in done)

    def no_rows(self) -> bytes:
        """
        A carried block without groups: its columns are those of all the others.
        """
        return no_rows(schema_of(self._columns) if self._columns else NOTHING_MAPPED)

    def carried_batches(self, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """
        Yield position, rows and carried block of every batch below *stop*, cut as `batches` does.

        Raises:
            SourceError, ChangedError: as in `batches`.
        """
        for batch in self.batches(Positions(self.total), stop):
            yield batch.position, batch.rows, batch.carried

    def profile(
        self,
        seconds_max: float,
        *,
        full: bool = False,
        done: Positions | None = None,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
        see: See = nothing_seen,
    ) -> Profile:
        """
        Look at groups all over the source for so long, or at every group; those in *done* are as
        if they were not there. *see* is shown what each of the others would send.

        Of each row group, in random order, the beginning is read: at least one batch with anything
        to look at, and as much as its share of the time allows.

        Raises:
            SourceError, ChangedError: as in `batches`.
        """
        tally = Tally(seed, see)
        end = math.inf if full else clock() + seconds_max
        done = Positions(self.total) if done is None else done
        places = [
            (file, group)
            for file, groups in self._row_groups()
            for group in groups
            if _some_missing(done, group.start, group.stop)
        ]
        if not full:
            random.Random(seed).shuffle(places)  # noqa: S311 - which to look at, not a secret
        for place, (file, group) in enumerate(places):
            now = clock()
            if place and now >= end:
                break
            until = now + (end - now) / (len(places) - place)
            with self._reopened(file) as (reading, columns):
                for batch in reading.batches(group, columns):
                    left = list(done.missing(batch.position, batch.position + batch.rows))
                    tally.add_batch(map(batch.group, left))
                    if left and clock() >= until:
                        break
        return tally.profile(self.total - len(done), self.row_group_bytes_max)

    # --- places -----------------------------------------------------------------------------------

    def _in_turn(self, done: Positions, stop: int) -> Iterator[tuple[OpenFile, Columns, RowGroup]]:
        """
        Yield the row groups in which something is missing, each file open while it is its turn.
        """
        for file, groups in self._row_groups():
            wanted = [
                group for group in groups if _some_missing(done, group.start, min(group.stop, stop))
            ]
            if wanted:
                with self._reopened(file) as (reading, columns):
                    for group in wanted:
                        yield reading, columns, group

    def _row_groups(self) -> Iterator[tuple[SourceFile, list[RowGroup]]]:
        start = 0
        for file in self.files:
            groups = []
            for number, rows in enumerate(file.row_groups):
                if rows:
                    groups.append(RowGroup(number, start, rows))
                start += rows
            yield file, groups

    @contextmanager
    def _reopened(self, file: SourceFile) -> Iterator[tuple[OpenFile, Columns]]:
        """
        Open a file again, sure that it is the same one.
        """
        assert self._columns is not None, "a file that has groups has columns"
        with opened(placed(self._base, file.path, self._stores), file.path) as reading:
            if reading.identity != file:
                raise ChangedError(
                    f"{file.path} was changed while this job was reading it",
                    "run again: it will be compared with what the output began with",
                )
            yield reading, self._columns


def _some_missing(done: Positions, start: int, stop: int) -> bool:
    return start < stop and next(done.missing(start, stop), None) is not None
