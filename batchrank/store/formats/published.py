"""
Published parts, read back: their rows as they are, or one row per candidate in either layout.

Owns that both layouts read alike, in source order and in little memory: page by page, with the
pages' checksums looked at. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchrank.errors import StorageError
from batchrank.places.remote import Place, readable, said

BUFFER_BYTES = 1024 * 1024

ROWS = {"candidates": 8_192, "groups": 128}
"""So many rows are held at once."""

RESULTS = "results"


@dataclass(frozen=True, slots=True)
class Published:
    """
    The files of some parts, in the order of their numbers; at least one.

    *unchanged* is called behind the last row, and raises if the files are not those that they were.
    """

    files: Sequence[Place]
    unchanged: Callable[[], None]

    @property
    def schema(self) -> pa.Schema:
        """
        The schema that all of them have.
        """
        try:
            return pq.read_schema(readable(self.files[0])).remove_metadata()
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(self.files[0], error) from None

    @property
    def is_nested(self) -> bool:
        """
        Tell whether a row is a group.
        """
        return RESULTS in self.schema.names

    def columns(self) -> dict[str, pa.DataType]:
        """
        What is known of a candidate, by name: the results of a group first.
        """
        schema = self.schema
        if RESULTS not in schema.names:
            return {field.name: field.type for field in schema}
        results = {field.name: field.type for field in schema.field(RESULTS).type.value_type}
        own = {field.name: field.type for field in schema if field.name != RESULTS}
        return {"query_id": own["query_id"], **results, **own}

    def rows(self) -> Iterator[pa.RecordBatch]:
        """
        All rows as they are.

        Raises:
            StorageError: a part cannot be read.
        """
        yield from self._read(None)

    def candidates(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """
        One row per candidate, of these *columns*.

        Raises:
            StorageError: a part cannot be read.
        """
        wanted = list(columns or self.columns())
        if not self.is_nested:
            yield from (batch.select(wanted) for batch in self._read(wanted))
            return
        top = frozenset(self.schema.names)
        leaves = [name if name in top else f"{RESULTS}.list.element.{name}" for name in wanted]
        yield from (_flat(batch).select(wanted) for batch in self._read(leaves))

    def _read(self, leaves: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        rows = ROWS["groups" if self.is_nested else "candidates"]
        for path in self.files:
            yield from _batches(path, rows, leaves)
        self.unchanged()


def _batches(path: Place, rows: int, leaves: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(
            readable(path),
            buffer_size=BUFFER_BYTES,
            pre_buffer=False,
            page_checksum_verification=True,
        ) as file:
            yield from file.iter_batches(rows, columns=leaves, use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Place, error: Exception) -> StorageError:
    return StorageError(
        f"{path} cannot be read: {said(error)}",
        "`batchrank verify` tells what is wrong, and the remedy",
    )


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """
    The results of groups as rows, each with the columns of its group.
    """
    results = batch.column(RESULTS)
    parents = pc.list_parent_indices(results)
    inner = pc.list_flatten(results)
    names = [field.name for field in inner.type]
    own = [name for name in batch.schema.names if name != RESULTS]
    columns = {name: batch.column(name).take(parents) for name in own}
    return pa.RecordBatch.from_pydict({**columns, **dict(zip(names, inner.flatten(), strict=True))})
