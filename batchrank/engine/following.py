"""
Equal groups take the outcome of the one that was asked about, as soon as that is durable.

Owns who is handed what, and when; every outcome goes to the committer like any other. Those that
follow are never read, sent or waited for: they fill no slot and no place in what is read ahead, so
that nothing can get stuck behind them. What a run that was ended has not handed on, the next one
does before its first call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import anyio

from batchrank.domain import Outcome, Positions
from batchrank.engine.committer import Committer
from batchrank.engine.waiting import Bell, Brake, Lane, Stop
from batchrank.errors import Exit, StorageError
from batchrank.store.equals import copies
from batchrank.store.reading import LedgerReader


@dataclass(frozen=True, slots=True)
class Equals:
    """
    Groups without an outcome that take another's: *followers*, and whose it is: *leaders*.
    """

    followers: Positions
    leaders: Positions


class Following:
    """
    Hands on what leaders have come to. `run` ends after `finish`.

    *ledger* is read in *lane*, which is the writer's: between two commits, that is.
    """

    def __init__(self, ledger: LedgerReader, equals: Equals, *, lane: Lane, brake: Brake) -> None:
        self._ledger = ledger
        self._equals = equals
        self._lane = lane
        self._brake = brake
        self._bell = Bell()
        self._durable: list[int] = []
        self._dropped = False
        self._closing = False
        self._over = anyio.Event()

    def durable(self, outcomes: Sequence[Outcome]) -> None:
        """
        Take notice of outcomes that are on the disk.
        """
        if not self._equals.leaders or self._dropped:
            return
        led = [o.position for o in outcomes if o.position in self._equals.leaders]
        if led:
            self._durable += led
            self._bell.ring()

    async def run(self, committer: Committer) -> None:
        """
        Hand on, until closed and nothing is left.
        """
        try:
            while self._durable or not self._closing:
                if not self._durable:
                    await self._bell.wait()
                    continue
                leaders, self._durable = self._durable, []
                await self._hand_on(committer, leaders)
        finally:
            self._over.set()

    async def _hand_on(self, committer: Committer, leaders: Sequence[int]) -> None:
        pages = copies(self._ledger, leaders, self._equals.followers)
        while not (self._dropped or committer.failed) and (page := await self._next(pages)):
            for outcome in page:
                committer.put_copy(outcome)
            await committer.room()

    async def _next(self, pages: Iterator[list[Outcome]]) -> list[Outcome] | None:
        """
        The next outcomes. A disk that fails stops the job by value.
        """
        try:
            return await self._lane.run(next, pages, None)
        except StorageError as error:
            self._give_up(Stop(error.message, Exit.STORAGE, error=error))
        # Raised here it would cancel the paid calls that are under way.
        except Exception as bug:  # noqa: BLE001
            self._give_up(Stop(f"a bug: {bug!r}", Exit.BUG, error=bug))
        return None

    def _give_up(self, stop: Stop) -> None:
        self._brake.pull(stop)
        self.drop()

    def drop(self) -> None:
        """
        Leave what is not handed on for the next run: there is no time, or no disk.
        """
        self._dropped = True
        self._durable.clear()

    def close(self) -> None:
        """
        Let `run` end when nothing is left.
        """
        self._closing = True
        self._bell.ring()

    async def finish(self) -> None:
        """
        Close, and return when all is with the committer that will be.
        """
        self.close()
        await self._over.wait()
