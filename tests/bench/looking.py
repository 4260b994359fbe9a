"""
Look at an output without asking its maker: every score against the bytes of its document.

The bench server scores a document by the CRC-32 of its text, so source and output alone tell
whether each score stands where it belongs. Imports nothing of batchrank.

`python -m tests.bench.looking SOURCE OUTPUT` looks at an output of one row a candidate, with COUNT
behind it at one of a row a group, of the first so many groups.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.bench.server import score_of

ROWS = 2**15


class Wrong(Exception):
    """
    An output that is not what the server said.
    """


def expected(source: Path) -> Iterator[tuple[str, list[float]]]:
    """
    Id and scores of each group, in order, from the source alone.
    """
    for path in sorted(source.glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(256, columns=["query_id", "documents"]):
            for row in batch.to_pylist():
                yield row["query_id"], [score_of(text) for text in row["documents"]]


def look_at_rows(source: Path, output: Path) -> int:
    """
    Compare an output of one row a candidate, in the order of the source; returns its rows.

    Raises:
        Wrong: a score is missing, or is another document's.
    """
    rows = _rows(output)
    seen = 0
    for query_id, scores in expected(source):
        found = [next(rows, ("", -1, 0.0)) for _ in scores]
        if {who for who, _, _ in found} != {query_id}:
            raise Wrong(f"{query_id}: its rows are not where they belong")
        if [score for _, _, score in sorted(found)] != scores:
            raise Wrong(f"{query_id}: scores that nobody gave")
        seen += len(scores)
    if next(rows, None) is not None:
        raise Wrong("more rows than candidates")
    return seen


def _rows(output: Path) -> Iterator[tuple[str, int, float]]:
    columns = ["query_id", "index", "relevance_score"]
    for path in sorted(output.glob("part-*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(ROWS, columns=columns):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def look_at_groups(source: Path, output: Path, count: int) -> int:
    """
    Compare an output of one row a group, in any order; returns its rows.

    Raises:
        Wrong: a group is missing, or has other scores.
    """
    table = pq.read_table(output, columns=["query_id", "scores"])
    found: dict[str, Any] = dict(
        zip(table["query_id"].to_pylist(), table["scores"].to_pylist(), strict=True)
    )
    for _, (query_id, scores) in zip(range(count), expected(source), strict=False):
        if found.pop(query_id, None) != scores:
            raise Wrong(f"{query_id}: scores that nobody gave")
    if found or table.num_rows != count:
        raise Wrong(f"{table.num_rows} rows where {count} groups were asked about")
    return count


def main() -> None:
    """
    Look, and say how many rows there are.
    """
    source, output, *count = sys.argv[1:]
    places = Path(source), Path(output)
    try:
        rows = look_at_groups(*places, int(count[0])) if count else look_at_rows(*places)
    except Wrong as wrong:
        raise SystemExit(str(wrong)) from wrong
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
