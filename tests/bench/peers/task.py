"""
What every peer is given, and what it prints: so many groups of a source, a server, calls at once.

`python -m tests.bench.peers.NAME BASE_URL SOURCE OUTPUT COUNT IN_FLIGHT`, in that peer's own
environment. Owns the clock and the CPU of the whole family of processes. Knows no peer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

MODEL = "cohere/rerank-v3.5"
KEY = "bench-key-0123456789"
TIMEOUT_S = 120

Ask = Callable[[str, list[str]], Awaitable[list[float]]]
"""From a query and its documents to the scores, in the documents' order."""


@dataclass(frozen=True, slots=True)
class Task:
    """
    The work of one side. *source* is a folder of Parquet files that holds *count* groups or more.
    """

    base_url: str
    source: Path
    output: Path
    count: int
    in_flight: int

    @classmethod
    def given(cls) -> Task:
        """
        As the command line says.
        """
        base_url, source, output, count, in_flight = sys.argv[1:]
        return cls(base_url, Path(source), Path(output), int(count), int(in_flight))

    @property
    def url(self) -> str:
        """
        Where rerank is.
        """
        return f"{self.base_url}/rerank"

    def groups(self) -> list[tuple[str, list[str]]]:
        """
        Query and documents of each group, in memory.
        """
        table = pq.read_table(self.source, columns=["query", "documents"])[: self.count]
        columns = [table[name].to_pylist() for name in ("query", "documents")]
        return list(zip(*columns, strict=True))

    def first_groups(self, folder: Path) -> Path:
        """
        A source of these groups only, for a side that reads whole files.
        """
        folder.mkdir(parents=True, exist_ok=True)
        table: pa.Table = pq.read_table(self.source)[: self.count]
        pq.write_table(table, folder / "groups.parquet", row_group_size=2_000, compression="zstd")
        return folder


@contextmanager
def clocked(task: Task) -> Iterator[None]:
    """
    Print how long the body took, and the CPU seconds of this process and all below it.
    """
    began, began_cpu = time.perf_counter(), _cpu_s()
    yield
    elapsed_s, cpu_s = time.perf_counter() - began, _cpu_s() - began_cpu
    print(json.dumps({"requests": task.count, "elapsed_s": elapsed_s, "cpu_s": cpu_s}))


def _cpu_s() -> float:
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:  # gone in between
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


async def under_a_semaphore(task: Task, ask: Ask) -> None:
    """
    Ask about every group, so many at a time, and keep the scores in memory; then look at them.
    """
    groups = task.groups()
    semaphore = asyncio.Semaphore(task.in_flight)

    async def one(query: str, documents: list[str]) -> list[float]:
        async with semaphore:
            return await ask(query, documents)

    with clocked(task):
        scores = await asyncio.gather(*(one(*group) for group in groups))
    for (_, documents), found in zip(groups, scores, strict=True):
        if found != [crc32(text.encode()) / 2**32 for text in documents]:
            raise SystemExit("scores that nobody gave")


def in_order(results: Sequence[tuple[int, float]]) -> list[float]:
    """
    Scores by the index of their documents.
    """
    return [score for _, score in sorted(results)]
