"""
Which groups a sample asks about, and what their bills teach about all the others.

Owns the choice: groups at random places of the whole source, in an order that is always the same,
so that a larger sample has a smaller one in it and asking twice for one costs nothing. Sends
nothing: a run that is given a sample asks about these groups as about any other, and their outcomes
are the job's like any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from batchrank.domain import Document, Positions
from batchrank.engine.feed import Source
from batchrank.engine.following import Equals
from batchrank.job.knowing import KnowingSource
from batchrank.policy.foreseen import Billed, Taught, middle_of, taught
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import sendable
from batchrank.store.reading import LedgerReader

SEED = 1
TOGETHER = 500
"""So many groups are looked up in the calls at once."""

Measure = Callable[[str, Sequence[Document]], tuple[float, float]]
"""What a group that sends these documents costs at least and at most, in 10^-9 US dollars."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    What asking about some groups came to: how many were *asked*, what that cost, how many of them
    were billed in a way that tells (*told*), and what these have *taught*. *middle* is what they
    were estimated at on the average, and how far that may be from the average of all, in 10^-9 USD.
    """

    asked: int
    cost_nano_usd: int
    told: int
    taught: Taught
    middle: tuple[float, float]


def chosen(ledger: LedgerReader, done: Positions, followers: Positions, count: int) -> list[int]:
    """
    The first *count* groups, in the order of chance, that somebody has to be asked about or was.

    Those in *followers* take another's outcome; what is in *done* without a call needs none.
    """
    found: list[int] = []
    order = _order(done.total)
    while len(found) < count and (page := list(islice(order, TOGETHER))):
        called = ledger.called(page)
        found += (p for p in page if p in called or (p not in done and p not in followers))
    return found[:count]


def _order(total: int) -> Iterator[int]:
    """
    Every position once, by chance, in memory for those that were taken.
    """
    chance = random.Random(SEED)  # noqa: S311 - a fair sample, not a secret
    taken: set[int] = set()
    while len(taken) < total // 2:
        if (position := chance.randrange(total)) not in taken:
            taken.add(position)
            yield position
    rest = [position for position in range(total) if position not in taken]
    chance.shuffle(rest)
    yield from rest


def left_for_later(
    ledger: LedgerReader, done: Positions, equals: Equals | None, count: int
) -> Positions:
    """
    All groups but those of a sample: a run that asks about the sample leaves them for another.
    """
    followers = equals.followers if equals else Positions(done.total)
    return Positions(done.total, chosen(ledger, done, followers, count)).others()


def learned(ledger: LedgerReader, source: ParquetSource, count: int, measure: Measure) -> Sample:
    """
    What the calls for a sample of *count* groups have taught, as far as they were made.

    Their texts are read anew, and what lies between them is skipped where Parquet lets one.

    Raises:
        SourceError, ChangedError: the source cannot be read.
        StorageError: the ledger cannot.
    """
    done = ledger.done(source.total)
    followers = Positions(source.total, (position for position, _ in ledger.equals(source.total)))
    billed = ledger.billed(chosen(ledger, done, followers, count))
    exact = {position: cost for position, (cost, known) in billed.items() if known}
    groups = KnowingSource(source, ledger)
    calls = [*_paid(groups, Positions(source.total, exact), exact, measure)]
    cost = sum(cost for cost, _ in billed.values())
    return Sample(len(billed), cost, len(calls), taught(calls), middle_of(calls))


def _paid(
    source: Source, positions: Positions, costs: Mapping[int, int], measure: Measure
) -> Iterator[Billed]:
    others = positions.others()
    for batch in source.batches(others, others.total):
        for position in others.missing(batch.position, batch.position + batch.rows):
            group = batch.group(position)
            if documents := sendable(group):
                yield Billed(*measure(group.query, documents), costs[position])
