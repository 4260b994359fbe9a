"""
Rows of candidates in random order, staged within a limit of memory, beside DuckDB's own sort.

Owns the rows that are made up, and the comparison: both sides alternate, each in a process of its
own, with the same limit of memory. What was staged is read back and every group is counted.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.children import run

GROUP = 20
"""Candidates of each group."""

MEMORY = "1GB"
ROWS = (6_000_000, 30_000_000)
QUICK = (40_000,)
ROUNDS = {6_000_000: 3}
"""How often each size is measured; once where nothing is said."""

_MADE_UP = """
COPY (
    SELECT
        'q' || lpad((i // $group)::VARCHAR, 8, '0') AS query_id,
        'what is the meaning of ' || md5((i // $group)::VARCHAR) AS query,
        'd' || i::VARCHAR AS doc_id,
        (hash(i) % 100000) / 1000.0 AS score,
        list_reduce([md5((i + n)::VARCHAR) for n in range(6)], lambda a, b: a || ' ' || b) AS text
    FROM range($rows) made(i) ORDER BY hash(i + 13)
) TO '{path}' (FORMAT parquet)
"""

_SORTED = """
COPY (SELECT * FROM '{path}' ORDER BY query_id, score DESC, doc_id)
TO '{to}' (FORMAT parquet, COMPRESSION zstd)
"""


def staging(folder: Path, sizes: Sequence[int], say: Callable[[str], None]) -> Any:
    """
    For each number of rows: seconds, CPU and peak memory of both sides, medians of the rounds.
    """
    found = []
    for rows in sizes:
        place = folder / "staging"
        place.mkdir()
        _child("make", place, rows)
        ours, theirs = [], []
        for _ in range(ROUNDS.get(rows, 1)):
            ours.append(_child("stage", place, rows))
            theirs.append(_child("sort", place, rows))
        source_mb = (place / "pairs.parquet").stat().st_size / 1e6
        shutil.rmtree(place)
        found.append(
            {
                "rows": rows,
                "groups": rows // GROUP,
                "source_mb": round(source_mb),
                "memory": MEMORY,
                "rounds": len(ours),
                "staged": _median(ours),
                "sorted": _median(theirs),
            }
        )
        say(f"staging {rows:,} rows: {found[-1]['staged']} beside {found[-1]['sorted']}")
    return found


def _child(what: str, place: Path, rows: int) -> dict[str, float]:
    ran = run([sys.executable, "-m", "tests.bench.staging", what, str(place), str(rows)], {})
    return {**(ran.said or {}), "peak_mb": round(ran.peak_mb)}


def _median(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sorted(run[name] for run in runs)[len(runs) // 2] for name in runs[0]}


# --- in processes of their own --------------------------------------------------------------------


def make(place: Path, rows: int) -> None:
    """
    Write the rows.
    """
    import duckdb

    with duckdb.connect(config={"preserve_insertion_order": False}) as connection:
        connection.execute(f"SET temp_directory = '{place / 'spill'}'")
        sql = _MADE_UP.format(path=place / "pairs.parquet")
        connection.execute(sql, {"group": GROUP, "rows": rows})


def stage(place: Path, rows: int) -> None:
    """
    Stage them as a job does, then count what came of them.
    """
    from batchrank.config.schema import SourceTable
    from batchrank.domain import Positions
    from batchrank.source.staged import open_groups

    table = SourceTable(path="pairs.parquet", score="score", memory=MEMORY)
    began = time.perf_counter()
    source = open_groups(table, place, place / "staged")
    _say(time.perf_counter() - began)
    count, last = 0, ""
    for batch in source.batches(Positions(source.total), source.total):
        for position in range(batch.position, batch.position + batch.rows):
            group = batch.group(position)
            assert group.flaw is None
            assert len(group.documents) == GROUP
            assert isinstance(group.query_id, str)
            assert group.query_id > last, "groups come in the order of their ids, each once"
            count, last = count + 1, group.query_id
    assert rows // GROUP == source.total == count
    shutil.rmtree(place / "staged")


def sort(place: Path, _rows: int) -> None:
    """
    Have DuckDB sort them by itself, into Parquet.
    """
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY,
        "threads": 2,
        "temp_directory": str(place / "spill"),
    }
    to = place / "sorted.parquet"
    began = time.perf_counter()
    with duckdb.connect(config=settings) as connection:
        connection.execute(_SORTED.format(path=place / "pairs.parquet", to=to))
    _say(time.perf_counter() - began)
    to.unlink()


def _say(elapsed_s: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = used.ru_utime + used.ru_stime
    print(json.dumps({"elapsed_s": round(elapsed_s, 1), "cpu_s": round(cpu_s, 1)}), flush=True)


if __name__ == "__main__":
    {"make": make, "stage": stage, "sort": sort}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
