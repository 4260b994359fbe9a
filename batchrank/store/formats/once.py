"""
Which query ids stand for more than one group.

A job tells its groups apart by their positions, and does not mind; a run knows nothing but the id.
Owns that this is found out before anything is written, within bounded memory: DuckDB counts, and
what does not fit goes to a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from batchrank.errors import OutputError, StorageError
from batchrank.interruptible import interruptible
from batchrank.store.formats.published import Published
from batchrank.store.formats.stream import streamed

MEMORY = "256MB"

SHOWN = 3

_REPEATED = f"""
SELECT query_id, count(*) AS groups FROM firsts
GROUP BY query_id HAVING groups > 1 ORDER BY query_id LIMIT {SHOWN}
"""


def check_once(published: Published, spill: Path) -> None:
    """
    Refuse parts in which a query id has scores of more than one group.

    Raises:
        OutputError: naming some of them.
        StorageError: a part cannot be read, or there is no room to count.
    """
    schema = pa.schema([("query_id", published.columns()["query_id"])])
    try:
        with (
            streamed(schema, _firsts(published)) as firsts,
            duckdb.connect(
                config={"memory_limit": MEMORY, "temp_directory": str(spill)}
            ) as connection,
        ):
            repeated = interruptible(connection, lambda: _repeated(connection, firsts))
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise StorageError(f"query ids cannot be counted: {why}") from error
    if repeated:
        told = ", ".join(f"{query_id!r} ({groups} groups)" for query_id, groups in repeated)
        raise OutputError(
            f"query ids that stand for more than one group: {told}; a run would mix them",
            "export as csv, jsonl or duckdb, which keep every row",
        )


def _repeated(
    connection: duckdb.DuckDBPyConnection, firsts: pa.RecordBatchReader
) -> list[tuple[str, int]]:
    connection.register("firsts", firsts)
    return connection.execute(_REPEATED).fetchall()


def _firsts(published: Published) -> Iterator[pa.RecordBatch]:
    """
    The query id of each group that has a score, once.
    """
    for batch in published.candidates(["query_id", "rank"]):
        yield batch.filter(pc.equal(batch.column("rank"), 1)).select(["query_id"])
