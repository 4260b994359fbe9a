"""
The sketch: the path of a job and nothing else, so that one can tell what all the rest costs.

Parquet to JSON, over a carrier, replies whose echoes are compared, scores that SQLite has on the
disk before their slot is free, Parquet. No records of attempts, limits, budget, retries, digests or
ids, and no look at what was written: nobody should rerank with it.

`python -m tests.bench.sketch CARRIER BASE_URL SOURCE FOLDER COUNT IN_FLIGHT` prints as JSON what
`clients` prints; its clock begins before the source is opened and ends with the last file.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import uvloop
from typing_extensions import Buffer

from batchrank.wire.transport import HttpCarrier
from tests.bench.clients import (
    HEADERS,
    TIMEOUT_S,
    Measured,
    Send,
    bare_aiohttp,
    bare_pyreqwest,
)
from tests.bench.material import MODEL

ROWS = 256
PART_GROUPS = 10_000
LEDGER = "CREATE TABLE ranked (position INTEGER PRIMARY KEY, scores BLOB NOT NULL)"

Row = tuple[int, bytes]
"""A position, and its scores as float64."""


@asynccontextmanager
async def our_carrier(url: str, in_flight: int) -> AsyncIterator[Send]:
    """
    What `batchrank` sends with.
    """
    carrier = HttpCarrier(
        connections_max=in_flight, connect_timeout_s=TIMEOUT_S, timeout_s=TIMEOUT_S
    )
    headers = tuple((name.lower(), value) for name, value in HEADERS.items())

    async def send(body: bytes) -> bytes:
        return (await carrier.carry("POST", url, headers, body)).body

    yield send
    await carrier.aclose()


CARRIERS: Mapping[str, Callable[[str, int], AbstractAsyncContextManager[Send]]] = {
    "ours": our_carrier,
    "aiohttp": bare_aiohttp,
    "pyreqwest": bare_pyreqwest,
}


# --- one group ------------------------------------------------------------------------------------


class _Echo(msgspec.Struct, gc=False):
    text: str


class _Result(msgspec.Struct, gc=False):
    index: int
    relevance_score: float
    document: _Echo


class _Reply(msgspec.Struct):
    results: list[_Result]


_decode = msgspec.json.Decoder(_Reply).decode
_encode = msgspec.json.Encoder().encode


def groups(source: Path, count: int) -> Iterator[tuple[int, str, list[str]]]:
    """
    Position, query and documents of the first *count* groups.
    """
    position = 0
    for path in sorted(source.glob("*.parquet")):
        file = pq.ParquetFile(path, pre_buffer=False)
        for read in file.iter_batches(ROWS, columns=["query", "documents"], use_threads=False):
            batch = read.slice(0, count - position)
            documents = batch.column("documents")
            texts, ends = documents.flatten().to_pylist(), documents.offsets.to_pylist()
            for row, query in enumerate(batch.column("query").to_pylist()):
                yield position, query, texts[ends[row] - ends[0] : ends[row + 1] - ends[0]]
                position += 1


def scores_of(reply: Buffer, documents: list[str]) -> bytes:
    """
    The scores in the order of *documents*; asserts that each is echoed.
    """
    scores = array("d", bytes(8 * len(documents)))
    results = _decode(reply).results
    for result in results:
        assert result.document.text == documents[result.index]
        scores[result.index] = result.relevance_score
    assert len(results) == len(documents)
    return scores.tobytes()


# --- what is kept ---------------------------------------------------------------------------------


class Ledger:
    """
    Scores on the disk: whatever is ready, in one transaction.
    """

    def __init__(self, path: Path) -> None:
        self._run = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._run.execute("PRAGMA journal_mode = WAL")
        self._run.execute("PRAGMA synchronous = FULL")
        self._run.execute(LEDGER)
        self._ready: list[Row] = []
        self._wanted, self._durable = asyncio.Event(), asyncio.Event()

    async def keep(self, row: Row) -> None:
        """
        Return when *row* is durable.
        """
        self._ready.append(row)
        durable = self._durable
        self._wanted.set()
        await durable.wait()

    async def write(self) -> None:
        """
        Commit, until cancelled.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            rows, self._ready = self._ready, []
            durable, self._durable = self._durable, asyncio.Event()
            await asyncio.to_thread(self._commit, rows)
            durable.set()

    def _commit(self, rows: list[Row]) -> None:
        self._run.execute("BEGIN")
        self._run.executemany("INSERT INTO ranked VALUES (?, ?)", rows)
        self._run.execute("COMMIT")

    def parts(self, folder: Path, count: int) -> None:
        """
        Write all scores to Parquet.
        """
        where = "SELECT position, scores FROM ranked WHERE position BETWEEN ? AND ? ORDER BY 1"
        for start in range(0, count, PART_GROUPS):
            rows = self._run.execute(where, (start, start + PART_GROUPS - 1)).fetchall()
            scores = pa.array([[*array("d", held)] for _, held in rows], pa.list_(pa.float64()))
            table = pa.table({"position": [position for position, _ in rows], "scores": scores})
            pq.write_table(table, folder / f"{start}.parquet", compression="zstd")


async def measure(
    carrier: str, url: str, source: Path, folder: Path, count: int, slots: int
) -> Measured:
    """
    Score *count* groups with *slots* workers.
    """
    began, began_cpu = time.perf_counter(), time.process_time()
    ledger, left = Ledger(folder / "ledger.sqlite"), groups(source, count)
    writing = asyncio.create_task(ledger.write())
    async with CARRIERS[carrier](url, slots) as send:

        async def worker() -> None:
            for position, query, documents in left:
                body = _encode({"model": MODEL, "query": query, "documents": documents})
                await ledger.keep((position, scores_of(await send(body), documents)))

        await asyncio.gather(*(worker() for _ in range(slots)))
    writing.cancel()
    ledger.parts(folder, count)
    return Measured(count, time.perf_counter() - began, time.process_time() - began_cpu)


def main() -> None:
    """
    Measure what the command line says.
    """
    carrier, base_url, source, folder, count, slots = sys.argv[1:]
    url = f"{base_url}/rerank"
    found = measure(carrier, url, Path(source), Path(folder), int(count), int(slots))
    print(json.dumps(asdict(uvloop.run(found))))


if __name__ == "__main__":
    main()
