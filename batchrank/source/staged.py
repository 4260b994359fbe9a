"""
A source that is staged first: its groups lie in the state folder, its identity in the inputs.

Owns the answer to whether a source has to be staged, and the source over a staged file, which for
everybody else is like any other. How it is staged is `stage`'s business.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import finalize

from batchrank.config.schema import SourceTable, StoresTable
from batchrank.domain import Group, Positions, SourceBatch
from batchrank.errors import SourceError
from batchrank.places.stores import AT_HOME
from batchrank.source.batch import Altered
from batchrank.source.files import find, relative
from batchrank.source.parquet import ParquetSource, open_source
from batchrank.source.profile import Profile, See, nothing_seen
from batchrank.source.reading import opened
from batchrank.source.stage.endings import format_of
from batchrank.source.stage.forms import NEGATIVE, POSITIVE, text_fields

if TYPE_CHECKING:
    from batchrank.source.stage.material import Brought


class StagedSource(ParquetSource):
    """
    The groups of a staged file, which nobody removes as long as this lives. *files* are the
    identities of what it was staged from, which is what outputs are compared by; none of them has a
    place of its own among the positions.
    """

    mendable = False
    staged = True

    def __init__(self, inner: ParquetSource, brought: Brought) -> None:
        finalize(self, os.close, brought.held)
        self.notes = brought.notes
        self._inner = inner
        self._flaws = brought.flaws
        self.files = brought.files
        self._folder = Path(str(brought.table.path)).parent
        self.total = inner.total
        self.row_group_bytes_max = inner.row_group_bytes_max

    def key_pairs(self) -> None:
        """
        As that of the file.
        """
        self._inner.key_pairs()

    def batches(self, done: Positions, stop: int) -> Generator[SourceBatch, None, None]:
        """
        As those of the file, but for groups that staging found a flaw in.
        """
        for batch in self._whole(self._inner.batches(done, stop)):
            here = range(batch.position, batch.position + batch.rows)
            flawed = self._flaws and any(position in self._flaws for position in here)
            yield Altered(batch, self._flawed) if flawed else batch

    def longer(self, count: int, done: Positions, stop: int) -> Iterator[int]:
        """
        As that of the file.
        """
        return self._inner.longer(count, done, stop)

    def _flawed(self, group: Group) -> Group:
        """
        The group without its texts if it has a flaw that its file does not show.
        """
        flaw = self._flaws.get(group.position)
        if flaw is None:
            return group
        nothing = (None,) * len(group.documents)
        return Group(group.position, group.query_id, "", nothing, flaw)

    def _whole(self, batches: Iterator[SourceBatch]) -> Iterator[SourceBatch]:
        """
        Say what mends a staged file that the disk has damaged: there is nothing to mend in it.
        """
        try:
            yield from batches
        except SourceError as error:
            raise SourceError(
                f"what was staged is damaged: {error.message}",
                f"remove {self._folder}; it is made again of the same inputs, in the same order",
            ) from error

    def no_rows(self) -> bytes:
        """
        As that of the file.
        """
        return self._inner.no_rows()

    def carried_batches(self, stop: int) -> Iterator[tuple[int, int, bytes]]:
        """
        As those of the file.
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
        As that of the file.
        """
        return self._inner.profile(
            seconds_max, full=full, done=done, seed=seed, clock=clock, see=see
        )


def open_groups(
    table: SourceTable,
    base: Path,
    staging_root: Path,
    progress: Callable[[int], None] = lambda _: None,
    prepare: Callable[[], object] = lambda: None,
    stores: StoresTable = AT_HOME,
    begun_with: Collection[str] = (),
) -> ParquetSource:
    """
    The groups that *table* tells of; what does not lie nested in Parquet is staged below
    *staging_root* first, or found there.

    *base* is the job file's folder. *prepare* is called before anything is written. *stores* tells
    how object stores are reached. *begun_with*: digests of what PostgreSQLs gave when the output
    was begun, which serves as long as it is kept.

    Raises:
        NotReady: upstream has not finished writing.
        AlreadyRunning: another process stages this source.
        SourceError: what is there cannot be read as *table* says.
        StorageError: there is no room to stage it.
    """
    if table.path is not None and _lies_nested(table, table.path, base, stores):
        return open_source(table, base, stores)
    # DuckDB takes a tenth of the time in which a process starts, and most need none.
    from batchrank.source.stage.material import brought_in

    brought = brought_in(table, base, staging_root, progress, prepare, stores, begun_with)
    return StagedSource(open_source(brought.table, base), brought)


def _lies_nested(table: SourceTable, path: str, base: Path, stores: StoresTable) -> bool:
    """
    Tell whether the files are Parquet with a row per group, to be read as they are.

    What fits neither shape is taken for nested: the message about it is the better one.
    """
    paths = find(path, base, require_success=table.require_success, stores=stores)
    if paths and format_of(paths[0]) not in ("parquet", None):
        return False
    if table.depth or table.group_order or table.score or table.rank:
        return False
    for each in paths:
        with opened(each, relative(each, base)) as file:
            names = set(file.schema.names)
            if not file.identity.rows:
                continue  # whoever writes an empty table seldom knows its columns
        if table.documents in names:
            return True
        rows = table.query in names and (not text_fields(table) or text_fields(table)[0] in names)
        return not rows and not {POSITIVE, NEGATIVE} <= names
    return True
