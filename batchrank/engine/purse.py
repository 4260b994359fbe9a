"""
What a call may cost is set aside before it leaves: waited for, made durable, or refused.

Owns the way from a budget's answer to what has to be written first: in the ledger, and in the file
of the budget that jobs share. Decides nothing: `policy.budget` does. Wraps no paid call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import anyio

from batchrank.domain import Price
from batchrank.engine.backlog import Work
from batchrank.engine.committer import Committer
from batchrank.engine.waiting import Bell, Lane, Stop
from batchrank.errors import Exit, StorageError
from batchrank.policy.amounts import NOTHING, Amount, shown
from batchrank.policy.billing import most, units_most
from batchrank.policy.budget import (
    Authorise,
    Borrow,
    Budget,
    Exhausted,
    Full,
    Refusal,
    cap_name,
    day_of,
    next_period,
)


class Till(Protocol):
    """
    The budget that jobs share. *where* is its file, for a person.
    """

    @property
    def where(self) -> str:
        """
        Its file.
        """

    def borrow(self, asked: Borrow, /) -> Amount | Full:
        """
        Hold durably what is asked for, or less but enough; returns how much, or why not.

        Raises:
            StorageError: nobody knows how much is held.
        """


class Purse:
    """
    Sets aside what calls may cost, one after the other: one task may use it.
    """

    def __init__(
        self,
        budget: Budget,
        till: Till | None,
        *,
        lane: Lane,
        committer: Committer,
        bell: Bell,
        wall: Callable[[], float],
    ) -> None:
        self._budget = budget
        self._till = till
        self._lane = lane
        self._committer = committer
        self._bell = bell
        self._wall = wall

    async def set_aside(self, work: Work, price: Price | None) -> Stop | None:
        """
        Return when the most that the call can cost at this *price* is set aside, or why that will
        never be.
        """
        if not self._budget.is_capped:
            return None
        work.most = Amount(most(work.sizes, price), 1, units_most(work.sizes))
        while True:
            work.day = self._today()
            match self._budget.reserve(work.most, work.day):
                case None:
                    return None
                case Authorise(total):
                    await self._authorise(total)
                case Borrow() as asked:
                    if stop := await self._borrow(asked):
                        return stop
                case Refusal.WAIT:
                    await self._bell.wait()
                case Exhausted(counted):
                    return _spent(counted)

    def is_late(self, work: Work) -> bool:
        """
        Tell whether the day has passed that it was set aside on: it would be sent on another.
        """
        return self._till is not None and work.day != self._today()

    def give_back(self, work: Work) -> None:
        """
        The call is not made now.
        """
        self._budget.settle(work.most, NOTHING, work.day)
        work.most = NOTHING

    def _today(self) -> str:
        return day_of(self._wall()) if self._till else ""

    async def _authorise(self, total: Amount) -> None:
        await self._committer.authorise(total)
        if self._committer.failed:
            await anyio.sleep_forever()  # the brake is pulled
        self._budget.authorised = total

    async def _borrow(self, asked: Borrow) -> Stop | None:
        assert self._till is not None, "who shares a budget has a till"
        try:
            answer = await self._lane.run(self._till.borrow, asked)
        except StorageError as error:
            return Stop(error.message, Exit.STORAGE, error=error)
        full = self._budget.lent(asked, answer)
        return _full(asked, full, self._till.where) if full else None


def _spent(counted: str) -> Stop:
    name = cap_name(counted)
    hint = f"raise {name} and run again: it carries on"
    return Stop(f"{name} does not cover another call", Exit.PERSON, hint=hint)


def _full(asked: Borrow, full: Full, where: str) -> Stop:
    """
    A cap that jobs share is reached: which, how far others have used it up, and how to go on.
    """
    name = cap_name(full.counted, full.period)
    whose = "other outputs" if full.period == "day" else "other outputs and days"
    others = f": {shown(full.counted, full.others)} of it went to {whose}" if full.others else ""
    until = next_period(asked.day, full.period)
    return Stop(
        f"{name} does not cover another call{others}",
        Exit.PERSON,
        hint=f"wait until {until} 00:00 UTC, raise {name}, or name another file than {where} with"
        " budget.shared, and run again: it carries on",
    )
