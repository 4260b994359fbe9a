"""
Ledgers made by hand, and packed columns for their parts.
"""

from __future__ import annotations

import math
import sqlite3
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from batchrank.domain import (
    Call,
    CostSource,
    Failure,
    FailureKind,
    Outcome,
    Ranked,
    Served,
    Share,
    Slice,
    SourceFile,
    Usage,
)
from batchrank.policy.digest import digest_of
from batchrank.store.ledger import Ledger, Records

BY = Served("v/m", "Acme")
FILES = [SourceFile("a.parquet", 1000, "ab" * 32, (5, 3)), SourceFile("b.parquet", 7, "", (16,))]


def for_now(path: Path | None = None) -> Ledger:
    """
    A ledger that closes its file when nobody holds it any more; None is one in memory.
    """
    ledger = Ledger.create_or_open(path)
    weakref.finalize(ledger, ledger.connection.close)
    return ledger


def begun(path: Path | None, part_groups: int = 8) -> Ledger:
    """
    A ledger in which a run has begun.
    """
    ledger = for_now(path)
    ledger.begin({"part_groups": part_groups, "fingerprint": "f", "words": "Straße"}, FILES)
    ledger.start_run(1.0, 42, "host", done_before=0, target=24)
    return ledger


def call(
    position: int,
    failure: FailureKind | None = None,
    *,
    attempt: int = 1,
    start: int = 0,
    stop: int = 1,
    sent_at: float = 100.0,
    cost: int = 5,
    source: CostSource = CostSource.REPORTED,
    usage: Usage = Usage(1.0, 7, 0.5),  # noqa: B008 - frozen
    served: Served | None = BY,
    route: str = "first",
) -> Call:
    """
    One attempt at a slice.
    """
    failed = Failure(failure, "it failed", 500, "code") if failure else None
    part = Slice(position, start, stop)
    told = (failed, served, usage, "id", cost, source)
    return Call(part, attempt, sent_at, 0.25, *told, route=route)


def ranked(position: int, scores: Sequence[float], *shares: tuple[int, Served]) -> Ranked:
    """
    A group's scores; by one provider unless *shares* say otherwise.
    """
    who = shares or ((len(scores), BY),)
    return Ranked(position, tuple(scores), tuple(Share(*share) for share in who))


def pages(ledger: Ledger) -> int:
    """
    How many pages the database has.
    """
    return int(ledger.connection.execute("PRAGMA page_count").fetchone()[0])


def limit_pages(ledger: Ledger, count: int) -> None:
    """
    Let the database be no larger than so many pages: the disk is full then.
    """
    ledger.connection.execute(f"PRAGMA max_page_count = {count}")


def readonly(connection: sqlite3.Connection, sql: str) -> bool:
    """
    Tell whether a statement is refused because the connection cannot write.
    """
    try:
        connection.execute(sql)
    except sqlite3.OperationalError as error:
        return "readonly" in str(error)
    return False


Row = dict[str, object]

# --- packed columns -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """
    The groups of a source, as its blocks hold them: ids and carried columns.

    *counts* are the candidates of each group; the values follow from places.
    """

    counts: Sequence[int]
    integers: bool = False
    doc_ids: bool = True
    carried: bool = True

    def block(self, start: int, stop: int) -> pa.RecordBatch:
        """
        The groups `start <= position < stop`.
        """
        counts = self.counts[start:stop]
        ends = [0]
        for count in counts:
            ends.append(ends[-1] + count)
        places = [(start + n, i) for n, count in enumerate(counts) for i in range(count)]
        offsets = pa.array(ends, pa.int32())
        columns = {
            "query_id": pa.array([self.query_id(start + n) for n in range(len(counts))]),
            "documents": pa.array(counts, pa.int32()),
        }
        if not counts:
            columns["query_id"] = pa.array([], pa.int64() if self.integers else pa.string())
        if self.doc_ids:
            kind = pa.int64() if self.integers else pa.string()
            ids = pa.array([self.doc_id(*place) for place in places], kind)
            columns["doc_id"] = pa.ListArray.from_arrays(offsets, ids)
        if self.carried:
            markets = [self.market(start + n) for n in range(len(counts))]
            columns["g:market"] = pa.array(markets, pa.string())
            prices = pa.array([self.price(*place) for place in places], pa.float64())
            columns["c:price"] = pa.ListArray.from_arrays(offsets, prices)
        keys = [self.content(start + n) for n in range(len(counts))]
        columns["content"] = pa.array(keys, pa.binary(16))
        return pa.RecordBatch.from_pydict(columns)

    def packed(self, start: int, stop: int) -> tuple[int, int, bytes]:
        """
        The same as the ledger carries it: position, rows, body.
        """
        block, sink = self.block(start, stop), pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, block.schema) as stream:
            stream.write_batch(block)
        return start, stop - start, sink.getvalue().to_pybytes()

    def query_id(self, position: int) -> str | int:
        """
        The id of a group.
        """
        return 1000 + position if self.integers else f"q{position}"

    def content(self, position: int) -> bytes | None:
        """
        The content key of a group; every fifth needs no call.
        """
        return None if position % 5 == 3 else b"%016d" % position

    def doc_id(self, position: int, index: int) -> str | int:
        """
        The id of a candidate.
        """
        return position * 100 + index if self.integers else f"d{position}.{index}"

    def market(self, position: int) -> str | None:
        """
        A carried column; every third is null.
        """
        return None if position % 3 == 2 else f"m{position % 2}"

    def price(self, position: int, index: int) -> float | None:
        """
        A carried field of the candidates; some are null.
        """
        return None if (position + index) % 5 == 4 else position + index / 8

    def expected(
        self, outcomes: Iterable[Outcome], top_n: int | None = None
    ) -> list[dict[str, object]]:
        """
        The rows of a part in the layout of candidates, computed the plain way.
        """
        rows: list[Row] = []
        for outcome in sorted(outcomes, key=lambda outcome: outcome.position):
            if isinstance(outcome, Ranked):
                rows += self._of_group(outcome, top_n)
        return rows

    def _of_group(self, outcome: Ranked, top_n: int | None) -> list[Row]:
        p, scores = outcome.position, outcome.scores
        best = sorted(
            (i for i in range(len(scores)) if not math.isnan(scores[i])),
            key=lambda i: (-scores[i], i),
        )
        rest = [i for i in range(len(scores)) if math.isnan(scores[i])]
        kept = best[:top_n] if top_n else best + rest
        content, rows = self.content(p), []
        for index in kept:
            who = next((s.served for s in outcome.shares if index < s.stop), None)
            row: Row = {
                "query_id": self.query_id(p),
                "doc_id": self.doc_id(p, index) if self.doc_ids else None,
                "index": index,
                "rank": None if index in rest else best.index(index) + 1,
                "relevance_score": None if index in rest else scores[index],
                "model": who.model if who else None,
                "provider": who.provider if who else None,
                "digest": content and digest_of(b"", content),
            }
            if self.carried:
                row |= {"market": self.market(p), "price": self.price(p, index)}
            rows.append(row)
        return rows


def filled(ledger: Ledger, held: Held, outcomes: Iterable[Outcome], rows: int = 4) -> None:
    """
    Commit outcomes, and the blocks of all groups, so many rows each.
    """
    total = len(held.counts)
    blocks = [held.packed(at, min(at + rows, total)) for at in range(0, total, rows)]
    ledger.commit(Records(outcomes=list(outcomes), carried=blocks))
