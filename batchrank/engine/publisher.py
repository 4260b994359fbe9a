"""
Finished ranges become parts, while the run goes on.

Owns which parts are complete, and that a part is told as published only when the ledger says so.
How a part is rendered and placed is the business of `store`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from batchrank.domain import Outcome, Positions
from batchrank.engine.committer import Committer
from batchrank.engine.waiting import Bell, Brake, Lane, Stop
from batchrank.errors import Exit, StorageError
from batchrank.events import PartPublished, Reporter
from batchrank.store.reading import PartRow

Publish = Callable[[int, int], PartRow]
"""Render part *number* as far as position *through*, and give it its final name."""


class Ranges:
    """
    The fixed ranges of positions that parts cover.
    """

    def __init__(self, total: int, part_groups: int) -> None:
        self.total = total
        self.part_groups = part_groups
        self.count = max(1, -(-total // part_groups))

    def of(self, number: int) -> tuple[int, int]:
        """
        The positions `start <= p < stop` of part *number*.
        """
        start = number * self.part_groups
        return start, min(start + self.part_groups, self.total)

    def holding(self, position: int) -> int:
        """
        The part that *position* lies in.
        """
        return position // self.part_groups


class Publisher:
    """
    Publishes each part when the last of its positions has an outcome.
    """

    def __init__(
        self,
        publish: Publish,
        ranges: Ranges,
        done: Positions,
        published: Mapping[int, PartRow],
        *,
        lane: Lane,
        brake: Brake,
        reporter: Reporter,
    ) -> None:
        self._publish = publish
        self._ranges = ranges
        self._done = done
        self._published = dict(published)
        self._lane = lane
        self._brake = brake
        self._reporter = reporter
        self._bell = Bell()
        self._closing = False
        self.outcomes = 0
        self._missing = {n: m for n in range(ranges.count) if (m := self._count_missing(n))}
        self._queue = deque(n for n in range(ranges.count) if self._is_owed(n))

    def _count_missing(self, number: int) -> int:
        start, stop = self._ranges.of(number)
        return stop - start - self._done.count(start, stop)

    def _is_owed(self, number: int) -> bool:
        """
        Tell whether a part is complete and its file is not there, or not up to date.
        """
        part = self._published.get(number)
        current = part and not part.stale and part.through == self._ranges.of(number)[1]
        return number not in self._missing and not current

    @property
    def parts(self) -> list[PartRow]:
        """
        Every part that has its final name, in order.
        """
        return [self._published[number] for number in sorted(self._published)]

    def durable(self, outcomes: Sequence[Outcome]) -> None:
        """
        Take notice of outcomes that are on the disk.
        """
        self.outcomes += len(outcomes)
        for outcome in outcomes:
            self._done.add(outcome.position)
            number = self._ranges.holding(outcome.position)
            self._missing[number] -= 1
            if not self._missing[number]:
                del self._missing[number]
                self._queue.append(number)
                self._bell.ring()

    async def run(self, committer: Committer) -> None:
        """
        Publish what is complete, until closed and nothing is left.
        """
        while self._queue or not self._closing:
            if not self._queue:
                await self._bell.wait()
                continue
            number = self._queue.popleft()
            await self.publish(committer, number, self._ranges.of(number)[1])

    async def publish_so_far(self, committer: Committer, number: int, through: int) -> None:
        """
        Publish a part that is not complete as far as *through*, but no less of it than is there.
        """
        if number in self._missing:
            there = self._published.get(number)
            await self.publish(committer, number, max(through, there.through if there else 0))

    async def publish(self, committer: Committer, number: int, through: int) -> None:
        """
        Publish one part as far as *through*. A disk that fails stops the job by value.
        """
        if committer.failed:
            return
        try:
            part = await self._lane.run(self._publish, number, through)
        except StorageError as error:
            self._give_up(Stop(error.message, Exit.STORAGE, error=error))
            return
        # Scores are safe in the ledger, and calls under way must come home whatever this is.
        except Exception as bug:  # noqa: BLE001
            self._give_up(Stop(f"a bug: {bug!r}", Exit.BUG, error=bug))
            return
        committer.put_part(part)
        await committer.settled()
        if not committer.failed:
            again = number in self._published
            self._published[number] = part
            self._reporter.report(PartPublished(number, part.file, part.rows, again))

    def _give_up(self, stop: Stop) -> None:
        self._brake.pull(stop)
        self.drop()

    def drop(self) -> None:
        """
        Leave what is complete for the next run: there is no time, or no disk.
        """
        self._queue.clear()

    def close(self) -> None:
        """
        Let `run` end when the queue is empty.
        """
        self._closing = True
        self._bell.ring()
