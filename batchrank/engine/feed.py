"""
Groups in, in order: what the source has and the ledger has not.

Owns the reading of batches in a thread, ahead of nobody: a batch is read when the one before it is
used up. Groups that need no call get their outcome here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batchrank.domain import Group, Outcome, Positions, Scored, Slice, SourceBatch
from batchrank.engine.backlog import OpenGroup, Work
from batchrank.engine.waiting import Lane
from batchrank.policy.retry import History
from batchrank.policy.slicing import assembled, requests, without_call


class Source(Protocol):
    """
    Where groups come from, in position order.
    """

    def batches(self, done: Positions, stop: int) -> Iterator[SourceBatch]:
        """
        Batches with at least one position below *stop* that is not in *done*.

        Raises:
            SourceError: when it comes to what cannot be read; all before it has been yielded.
        """


@dataclass(frozen=True, slots=True)
class Past:
    """
    What earlier runs did for groups that have no outcome yet.

    *scored* are slices that have their scores; *sends* attempts by slice: all, and those that were
    neither throttled nor never sent.
    """

    scored: Mapping[int, Sequence[Scored]] = field(default_factory=dict)
    sends: Mapping[tuple[int, int, int], tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fed:
    """
    One group, on its way: works to do, or its outcome at once.
    """

    works: Sequence[Work]
    outcome: Outcome | None


class Feed:
    """
    Hands out one group after the other.
    """

    def __init__(
        self,
        source: Source,
        done: Positions,
        stop: int,
        *,
        past: Past,
        documents_max: int | None,
        lane: Lane,
    ) -> None:
        self._batches = source.batches(done, stop)
        self._done = done
        self._stop = stop
        self._past = past
        self._documents_max = documents_max
        self._lane = lane
        self._batch: SourceBatch | None = None
        self._positions: Iterator[int] = iter(())
        self.exhausted = False

    async def next_batch(self) -> SourceBatch | None:
        """
        Read on; None at the end. Whoever calls must keep the batch's carried columns.

        Raises:
            SourceError: the source cannot be read any further.
        """
        self._batch = await self._lane.run(next, self._batches, None)
        if self._batch is None:
            self.exhausted = True
            return None
        end = min(self._batch.position + self._batch.rows, self._stop)
        self._positions = iter(list(self._done.missing(self._batch.position, end)))
        return self._batch

    def next_group(self) -> Fed | None:
        """
        The next group of the batch that was read last; None if it is used up.
        """
        position = next(self._positions, None)
        if position is None or self._batch is None:
            return None
        return self._fed(self._batch.group(position))

    def _fed(self, group: Group) -> Fed:
        if outcome := without_call(group):
            return Fed((), outcome)
        scored = list(self._past.scored.get(group.position, ()))
        asked = requests(group, self._documents_max, [part.slice for part in scored])
        if not asked:
            return Fed((), assembled(group, scored))
        opened = OpenGroup(group, len(asked), scored)
        works = [Work(opened, request) for request in asked]
        for work in works:
            work.attempt, sends = self._past.sends.get(_key(work.slice), (0, 0))
            work.history = History(sends=sends)
            opened.attempts += work.attempt
        return Fed(works, None)

    def close(self) -> None:
        """
        Let go of the source's files.
        """
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def _key(part: Slice) -> tuple[int, int, int]:
    return part.position, part.start, part.stop
