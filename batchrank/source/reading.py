"""
One open Parquet file: its identity, where its batches are cut, and its pages, one at a time.

Owns the footer, the cuts (a function of the file and the mapping alone, so that every run cuts
alike), and the wording of what cannot be decoded. Never holds a row group: memory is one batch, and
one page of each leaf column that is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.domain import SourceFile
from batchrank.errors import ChangedError, SourceError, StorageError
from batchrank.places.remote import Place, Remote, StoreError, in_words, is_of_store, said
from batchrank.source.batch import Batch
from batchrank.source.carried import plainly
from batchrank.source.columns import Columns, chosen, leaves

BATCH_ROWS_MAX = 256
BATCH_BYTES_MAX = 4 * 2**20
"""Of decoded data in a batch, as far as the footer and the first rows of a row group foretell."""

_BUFFER_BYTES = 2**20
_BUFFER_BYTES_AFAR = 4 * 2**20
"""A request to a store takes longer than its bytes."""

_TAIL_BYTES = 2**16
"""Read at once, where the footer is looked for: a store is slow, and its client stumbles over an
error that is longer than the few bytes that were asked for."""

_PROBE_ROWS = 16
_UNREADABLE = (OSError, pa.ArrowException)
"""What pyarrow raises for bytes that make no sense."""

_MAGIC = (b"PAR1", b"PARE")


@dataclass(frozen=True, slots=True)
class RowGroup:
    """
    A row group of a file: its number from 0, its rows, and the position of its first group.
    """

    number: int
    start: int
    rows: int

    @property
    def stop(self) -> int:
        """
        One more than the position of its last group.
        """
        return self.start + self.rows


@contextmanager
def opened(path: Place, name: str) -> Iterator[OpenFile]:
    """
    Open a file, read its footer, and close it in the end.

    Raises:
        SourceError: it cannot be opened, or is no Parquet file.
        StorageError: the store that it lies in does not answer.
    """
    remote = path if isinstance(path, Remote) else None
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(remote.open() if remote else pa.OSFile(str(path)))
            # That of the object which is open: between two questions another may take its place.
            began_as = handle.metadata() if remote else None
            digest = _footer_sha256(handle, name)
            parquet = pq.ParquetFile(
                handle,
                buffer_size=_BUFFER_BYTES_AFAR if remote else _BUFFER_BYTES,
                pre_buffer=False,
                page_checksum_verification=True,
            )
            rows = _rows_of(parquet.metadata)
            schema = parquet.schema_arrow
            size_bytes = handle.size()
        except (*_UNREADABLE, ValueError) as error:  # ValueError: names that are not UTF-8
            if remote and is_of_store(error):
                raise unread(name, in_words(error), "be opened") from None
            raise _unopened(name, error) from error
        identity = SourceFile(name, size_bytes, digest, rows)
        yield OpenFile(identity, parquet, schema, remote.version if remote else None, began_as)


_STORE = "look whether the store answers, and run again: what was paid for is kept"


def unread(what: str, error: StoreError, cannot: str = "be read") -> SourceError | StorageError:
    """
    An outage says nothing about the source; a refusal does.
    """
    why = f"{what} cannot {cannot}: {error}"
    return StorageError(why, _STORE) if error.outage else SourceError(why, _STORE)


def _unopened(name: str, error: Exception) -> SourceError:
    """
    Say whether the disk refused the file, or what stands in it is at fault.
    """
    if isinstance(error, OSError) and error.errno:
        why = f"{name} cannot be opened: {os.strerror(error.errno)}"
        return SourceError(why, "look whether it is there and may be read")
    if isinstance(error, UnicodeEncodeError):
        shown = name.encode(errors="backslashreplace").decode()
        return SourceError(f"{shown}: its name is not UTF-8", "give the file another name")
    damaged = "its footer is damaged, or it is no Parquet file"
    cause = damaged if "thrift" in str(error).lower() else said(error)
    return SourceError(f"{name} cannot be opened as Parquet: {cause}", "write the file anew")


def _rows_of(footer: pq.FileMetaData) -> tuple[int, ...]:
    rows = tuple(footer.row_group(number).num_rows for number in range(footer.num_row_groups))
    if sum(rows) != footer.num_rows or min(rows, default=0) < 0:
        raise ValueError("its footer contradicts itself about the number of rows")
    return rows


def _footer_sha256(handle: pa.NativeFile, name: str) -> str:
    """
    The hex SHA-256 of the footer: what lies before its length and the magic bytes at the end.
    """
    size = handle.size()
    handle.seek(max(0, size - _TAIL_BYTES))
    tail = handle.read(_TAIL_BYTES)
    footer_bytes = int.from_bytes(tail[-8:-4], "little")
    if tail[-4:] not in _MAGIC or footer_bytes > size - 12:
        raise SourceError(
            f"{name} is not a Parquet file: its {size} bytes do not end in a footer",
            "it was cut off, is still being written, or is something else",
        )
    if footer_bytes > len(tail) - 8:
        handle.seek(size - 8 - footer_bytes)
        tail = handle.read(footer_bytes + 8)
    return hashlib.sha256(tail[-8 - footer_bytes : -8]).hexdigest()


class OpenFile:
    """
    A file whose footer has been read; *schema* is Arrow's view of it.
    """

    def __init__(
        self,
        identity: SourceFile,
        parquet: pq.ParquetFile,
        schema: pa.Schema,
        version: Callable[[], object] | None,
        began_as: object,
    ) -> None:
        self.identity = identity
        self.schema = schema
        self._parquet = parquet
        self._version = version
        self._began_as = began_as

    @property
    def row_group_bytes_max(self) -> int:
        """
        The size of its largest row group, uncompressed.
        """
        return max((self._group_bytes(n) for n in range(self._parquet.num_row_groups)), default=0)

    def batches(
        self,
        group: RowGroup,
        columns: Columns,
        wanted: Callable[[int, int], bool] = lambda _start, _stop: True,
    ) -> Iterator[Batch]:
        """
        Yield the batches of a row group of which anything is *wanted*, told by where they start and
        stop. The others are decoded, as pages are read in turn, and nothing is made of them.

        Raises:
            SourceError: when it comes to what cannot be decoded.
            StorageError: the store does not answer any more.
            ChangedError: the object in the store is another by now.
        """
        paths = self._leaves(columns, (*columns.score_paths, *columns.carried_paths))
        for position, piece in self._cut(group, columns, paths):
            if not wanted(position, position + piece.num_rows):
                continue
            with self._decoding(group):
                batch = Batch(position, columns, piece)
                self._check_unchanged()
            del piece  # the batch holds what it needs, and the next one is read beside it
            yield batch

    def lengths(self, group: RowGroup, columns: Columns) -> Iterator[tuple[int, pa.Array]]:
        """
        Yield how many candidates the groups of a row group have, some at a time, each time with the
        first one's position. Of the documents only the leaf with the fewest bytes is decoded.

        Raises:
            SourceError, ChangedError, StorageError: as in `batches`.
        """
        path = self._parquet.schema.column(self._lightest(group, columns)).path
        for position, piece in self._cut(group, columns, [path]):
            with self._decoding(group):
                self._check_unchanged()
                yield position, pc.list_value_length(piece.column(0))

    def _lightest(self, group: RowGroup, columns: Columns) -> int:
        places = leaves(self.schema, columns.table.documents)[columns.table.documents,]
        footer = self._parquet.metadata.row_group(group.number)
        return min(places, key=lambda leaf: footer.column(leaf).total_uncompressed_size)

    def _check_unchanged(self) -> None:
        """
        An open file stays what it is; of an object that is replaced meanwhile a store gives the new
        bytes, and ids would come to stand beside other texts.
        """
        if not self._version:
            return
        try:
            there = self._version()
        except FileNotFoundError:
            there = None
        if there != self._began_as:
            what = "changed" if there else "taken away"
            raise ChangedError(
                f"{self.identity.path} was {what} while this job was reading it",
                "run again: it will be compared with what the output began with",
            )

    # --- leaves -----------------------------------------------------------------------------------

    def _leaves(self, columns: Columns, paths: Sequence[tuple[str, ...]]) -> list[str]:
        places = leaves(self.schema, columns.table.documents)
        return [self._parquet.schema.column(number).path for number in chosen(places, paths)]

    # --- cuts -------------------------------------------------------------------------------------

    def _cut(
        self, group: RowGroup, columns: Columns, paths: Sequence[str]
    ) -> Iterator[tuple[int, pa.RecordBatch]]:
        """
        Yield the row group in pieces of a fixed number of rows, each with its first position.
        """
        with self._decoding(group):
            rows = self._batch_rows(group, columns)
        pieces = self._pieces(group, rows, paths)
        for position in range(group.start, group.stop, rows):
            yield position, self._next_piece(group, pieces, min(rows, group.stop - position))

    def _next_piece(
        self, group: RowGroup, pieces: Iterator[pa.RecordBatch], rows: int
    ) -> pa.RecordBatch:
        with self._decoding(group):
            return _joined(pieces, rows)

    def _pieces(self, group: RowGroup, rows: int, paths: Sequence[str]) -> Iterator[pa.RecordBatch]:
        pieces = self._parquet.iter_batches(
            rows, row_groups=[group.number], columns=paths, use_threads=False
        )
        return iter(pieces)

    def _batch_rows(self, group: RowGroup, columns: Columns) -> int:
        """
        How many rows a batch has: a power of two, so that a mended file is cut like the one before.

        The footer counts all columns, whichever are read, but texts that repeat as often as the
        dictionary says once: so the first rows are decoded and weighed, without carried columns.
        """
        pieces = self._pieces(group, 1, self._leaves(columns, columns.score_paths))
        weight = count = 0
        while count < min(_PROBE_ROWS, group.rows) and weight < BATCH_BYTES_MAX:
            weight += sum(plainly(column).nbytes for column in _joined(pieces, 1).columns)
            count += 1
        bytes_each = max(1.0, self._group_bytes(group.number) / group.rows, weight / count)
        rows = min(BATCH_ROWS_MAX, max(1, int(BATCH_BYTES_MAX / bytes_each)))
        return 1 << (rows.bit_length() - 1)

    def _group_bytes(self, number: int) -> int:
        return int(self._parquet.metadata.row_group(number).total_byte_size)

    @contextmanager
    def _decoding(self, group: RowGroup) -> Iterator[None]:
        """
        Say of whatever pyarrow raises where it was, and what can be done.
        """
        try:
            yield
        except (*_UNREADABLE, _ShortError) as error:
            name = self.identity.path
            where = f"{name}: row group {group.number} (counted from 0)"
            with suppress(StoreError):  # it may not even tell that
                self._check_unchanged()
            if self._version and is_of_store(error):
                raise unread(where, in_words(error)) from None
            raise SourceError(
                f"{where} cannot be decoded: {said(error)}",
                f"mend the file and run again with --accept {name}",
            ) from error


class _ShortError(Exception):
    """
    Fewer rows came than the footer promised.
    """


def _joined(pieces: Iterator[pa.RecordBatch], rows: int) -> pa.RecordBatch:
    """
    Take exactly so many rows: pyarrow cuts a batch where its own chunks end.
    """
    held: list[pa.RecordBatch] = []
    count = 0
    while count < rows:
        piece = next(pieces, None)
        if piece is None:
            raise _ShortError("it ends before its last row")
        held.append(piece)
        count += piece.num_rows
    if count > rows:
        raise _ShortError("its columns are of different lengths")
    return held[0] if len(held) == 1 else _concatenated(held)


def _concatenated(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    arrays = [
        pa.concat_arrays([plainly(piece.column(place)) for piece in pieces])
        for place in range(pieces[0].num_columns)
    ]
    return pa.RecordBatch.from_arrays(arrays, names=pieces[0].schema.names)
