"""
Groups in, in order: what the source has and the ledger has not.

Owns the reading of batches in a thread, one batch ahead: while one is handed out the next is read,
so that nobody waits for it with free slots. Groups that need no call get their outcome here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import msgspec

from batchrank.domain import (
    Group,
    Outcome,
    Positions,
    Rejected,
    RejectKind,
    Scored,
    Slice,
    SourceBatch,
)
from batchrank.engine.backlog import OpenGroup, Work
from batchrank.engine.waiting import Lane
from batchrank.policy.capacity import Capacity
from batchrank.policy.retry import History
from batchrank.policy.slicing import TooLargeError, assembled, requests, without_call


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
    neither throttled nor never sent. *kinds* says of what kind the models are that have scored,
    where there are several: a group goes on with the one that it was begun with.
    """

    scored: Mapping[int, Sequence[Scored]] = field(default_factory=dict)
    sends: Mapping[tuple[int, int, int], tuple[int, int]] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)


class Fed(msgspec.Struct, frozen=True):
    """
    One group, on its way: works to do, or its outcome at once.
    """

    works: Sequence[Work]
    outcome: Outcome | None


class Feed:
    """
    Hands out one group after the other, in requests of no more than *capacity* says.
    """

    def __init__(
        self,
        source: Source,
        done: Positions,
        stop: int,
        *,
        past: Past,
        capacity: Capacity,
        lane: Lane,
    ) -> None:
        self._batches = source.batches(done, stop)
        self._done = done
        self._stop = stop
        self._past = past
        self._capacity = capacity
        self._lane = lane
        # Without a buffer: the reader has one batch in its hand, and no more.
        self._ahead, self._taken = anyio.create_memory_object_stream[
            SourceBatch | Exception | None
        ]()
        self._batch: SourceBatch | None = None
        self._positions: Iterator[int] = iter(())
        self.exhausted = False

    async def read(self) -> None:
        """
        Read the source, one batch ahead of `next_batch`, to its end. What goes wrong is told there.
        """
        with self._ahead:
            while (read := await self._read_one()) is not None:
                await self._ahead.send(read)
                if isinstance(read, Exception):
                    return
            await self._ahead.send(None)

    async def _read_one(self) -> SourceBatch | Exception | None:
        try:
            return await self._lane.run(next, self._batches, None)
        # Whatever it is, what was read before it is handed out first.
        except Exception as error:  # noqa: BLE001
            return error

    async def next_batch(self) -> SourceBatch | None:
        """
        Go on to the next batch; None at the end. Whoever calls must keep its carried columns.

        Raises:
            SourceError: the source cannot be read any further.
        """
        taken = await self._taken.receive()
        if isinstance(taken, Exception):
            raise taken
        self._batch = taken
        if taken is None:
            self.exhausted = True
            return None
        end = min(taken.position + taken.rows, self._stop)
        self._positions = iter(list(self._done.missing(taken.position, end)))
        return taken

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
        try:
            asked = requests(group, self._capacity.bounds, [part.slice for part in scored])
        except TooLargeError as error:
            too_large = RejectKind.TOO_LARGE
            return Fed((), Rejected(group.position, group.query_id, too_large, str(error)))
        if not asked:
            return Fed((), assembled(group, scored))
        opened = OpenGroup(group, len(asked), scored)
        if scored and self._past.kinds:
            model = scored[0].served.model
            opened.by = self._past.kinds.get(model, model)
        works = [Work(opened, request) for request in asked]
        if self._past.sends:
            self._remember(opened, works)
        return Fed(works, None)

    def _remember(self, opened: OpenGroup, works: Sequence[Work]) -> None:
        """
        Count what earlier runs sent for these.
        """
        for work in works:
            work.attempt, sends = self._past.sends.get(_key(work.slice), (0, 0))
            work.history = History(sends=sends)
            opened.attempts += work.attempt

    def close(self) -> None:
        """
        Let go of the source's files, when `read` has ended.
        """
        self._taken.close()
        close = getattr(self._batches, "close", None)
        if close is not None:
            with suppress(OSError):  # what was read is read
                close()


def _key(part: Slice) -> tuple[int, int, int]:
    return part.position, part.start, part.stop
