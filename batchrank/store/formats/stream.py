"""
Rows on their way into DuckDB.

Owns that an error of ours, raised while DuckDB fetches rows, comes out as it went in: DuckDB tells
it in words of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from batchrank.errors import BatchrankError


@contextmanager
def streamed(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatchReader]:
    """
    *batches* in the form that DuckDB reads, once.

    Raises:
        BatchrankError: whatever *batches* raised.
    """
    raised: list[BatchrankError] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BatchrankError as error:
            raised.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, watched())
    except duckdb.Error as error:
        if raised:
            raise raised[0] from error
        raise
