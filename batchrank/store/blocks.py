"""
Blocks: ids and carried columns of some consecutive groups, as the source packed them.

Owns how a block is opened and cut. What stands in it is the source's business (`source.carried`),
and where it is kept is the ledger's.
"""

from __future__ import annotations

import pyarrow as pa

from batchrank.errors import StorageError

_ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")


def opened(block: bytes) -> pa.RecordBatch:
    """
    The columns of *block*, a row for each group.

    Raises:
        StorageError: it is damaged.
    """
    try:
        with pa.ipc.open_stream(block) as stream:
            return stream.read_next_batch()
    except (OSError, StopIteration, pa.ArrowException) as error:
        raise StorageError(
            f"the ledger's ids and carried columns cannot be read: {error}",
            "it is damaged: restore it from a copy, or begin anew with --restart",
        ) from error


def contents(block: bytes) -> list[bytes | None]:
    """
    The content key of each group of *block*; None where nobody has to be asked.
    """
    return list(opened(block).column("content").to_pylist())


def pairs(block: bytes) -> list[list[bytes | None]] | None:
    """
    The content key of each pair of each group of *block*; None if pairs have none here.
    """
    columns = opened(block)
    return columns.column("pairs").to_pylist() if "pairs" in columns.schema.names else None


def cut(block: bytes, start: int, stop: int) -> bytes:
    """
    The rows `start <= row < stop` of *block*, as a block.
    """
    rows = opened(block).slice(start, stop - start)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=_ZSTD) as stream:
        stream.write_batch(rows)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types
