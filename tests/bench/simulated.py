"""
Ten million groups without a source or a server: the engine, a real ledger and real parts.

Owns a source that makes groups up and a scorer that answers at once; all else is what `batchrank
run` is made of, wired by the same code. `python -m tests.bench.simulated FOLDER GROUPS` is the
process that is measured. It notes its own calls and CPU in a file, so that it can be killed at any
moment, and run again to carry on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import cast

import psutil
import pyarrow as pa

from batchrank.domain import (
    Group,
    Positions,
    RerankReply,
    RerankRequest,
    Served,
    SourceFile,
    Usage,
)
from batchrank.engine.scorer import Scorer
from batchrank.engine.waiting import Turnstiles
from batchrank.job import Job, load, running, wiring
from batchrank.job.ways import Way
from batchrank.policy.digest import DIGEST_BYTES
from batchrank.source import ParquetSource
from batchrank.source.carried import NOTHING_MAPPED, Block, no_rows
from tests.bench.material import KEY, MODEL, limits, write_job

IN_FLIGHT = 64
CANDIDATES = 20
ROWS = 256
"""Groups of one batch, as those of a Parquet file are cut."""

NOTED_EACH = 5_000
"""A line in the file of notes for so many calls."""

NOTES = "notes.jsonl"
ODD, LOW = 2_654_435_769, 2**32 - 1
"""Times an odd number, modulo 2^32: different numbers stay different, and look like scores."""

DOCUMENTS = tuple(f"document {index}, of which nobody reads a word" for index in range(CANDIDATES))
SERVED = Served(MODEL, "Cohere")
USAGE = Usage(1.0, None, 0.001)


# --- groups ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MadeUp:
    """
    The groups `position <= p < position + rows`, which nobody has written down.
    """

    position: int
    rows: int

    @cached_property
    def carried(self) -> bytes:
        """
        Ids and digests of contents, packed as those of a file are.
        """
        positions = range(self.position, self.position + self.rows)
        values: tuple[list[object], ...] = (
            [_query_id(p) for p in positions],
            [CANDIDATES] * self.rows,
            [p.to_bytes(DIGEST_BYTES, "big") for p in positions],
        )
        columns = [pa.array(v, t) for v, t in zip(values, NOTHING_MAPPED.types, strict=True)]
        return Block(pa.RecordBatch.from_arrays(columns, schema=NOTHING_MAPPED), {}).packed()

    def group(self, position: int) -> Group:
        """
        Make up one group.
        """
        return Group(position, _query_id(position), "what nobody asked", DOCUMENTS)


def _query_id(position: int) -> str:
    return f"q{position:08}"


@dataclass(frozen=True, slots=True)
class MadeUpSource:
    """
    As much of `ParquetSource` as a run uses.
    """

    total: int
    notes: tuple[str, ...] = ()
    staged: bool = False

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """
        One file, of which only the name is known.
        """
        return (SourceFile("made-up", 0, "0" * 64, (self.total,)),)

    def no_rows(self) -> bytes:
        """
        The block that tells what the columns are.
        """
        return no_rows(NOTHING_MAPPED)

    def batches(self, done: Positions, stop: int) -> Iterator[MadeUp]:
        """
        Batches with something left to do.
        """
        for start in range(0, min(stop, self.total), ROWS):
            end = min(start + ROWS, self.total)
            if next(done.missing(start, min(end, stop)), None) is not None:
                yield MadeUp(start, end - start)


class MadeUpJob(Job):
    """
    A job whose source is made up.
    """

    __slots__ = ("groups",)
    groups: int

    @classmethod
    def of(cls, job: Job, groups: int) -> MadeUpJob:
        """
        *job*, but over so many groups.
        """
        made = cls(**{field.name: getattr(job, field.name) for field in fields(job)})
        object.__setattr__(made, "groups", groups)  # frozen, as all jobs are
        return made

    def open_source(self, *_: object, **__: object) -> ParquetSource:
        """
        Open nothing.
        """
        return cast("ParquetSource", MadeUpSource(self.groups))


# --- scores ---------------------------------------------------------------------------------------


class Instant:
    """
    Scores without a word to anybody, and the notes of how many and at what CPU.
    """

    def __init__(self, notes: Path) -> None:
        self._notes = notes.open("a")
        self._calls = 0

    async def score(self, request: RerankRequest, /) -> RerankReply:
        """
        Numbers of which no two are alike, so that parts are as large as they come.
        """
        if self._calls % NOTED_EACH == 0:
            self._note()
        self._calls += 1
        await asyncio.sleep(0)
        start = request.slice.position * CANDIDATES
        scores = tuple((n * ODD & LOW) / LOW for n in range(start, start + CANDIDATES))
        return RerankReply(scores, SERVED, USAGE, "gen-made-up")

    async def close(self) -> None:
        """
        Note where it ended.
        """
        self._note()

    def _note(self) -> None:
        born_s = time.time() - psutil.Process().create_time()
        line = {"calls": self._calls, "cpu_s": time.process_time(), "at_s": born_s}
        self._notes.write(json.dumps(line) + "\n")
        self._notes.flush()


def main() -> None:
    """
    Run, or carry on, a job over groups that are made up.
    """
    folder, groups = Path(sys.argv[1]), int(sys.argv[2])
    os.environ.update(KEY)
    tables = {"limits": limits(IN_FLIGHT)}
    (folder / "made-up").touch()
    job = load(write_job(folder, folder / "made-up", "http://127.0.0.1:9/api/v1", tables))
    scorer = Instant(folder / NOTES)

    def scorer_of(
        way: Way, base: Path, turnstiles: Turnstiles, closing: list[wiring.Close]
    ) -> tuple[Scorer, wiring.Ask | None]:
        closing.append(scorer.close)
        return scorer, None

    wiring._scorer = scorer_of  # the one thing that is not the job's own
    print(running.run(MadeUpJob.of(job, groups)).as_json())


if __name__ == "__main__":
    main()
