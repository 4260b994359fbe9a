"""
The caps on money, requests and search units: what may be sent without ever owing, or asking, more.

Owns the promise that spent + reserved never exceeds a cap, across kills: before anything is sent,
an amount that covers all that is spent and reserved is durable. For the caps of one output it lies
in its ledger (`authorised`); for those of a UTC day and month in a file that jobs share (`held`).
It is raised in blocks, given back at an orderly end, and counted as spent after a kill. Writes
nothing itself and knows no clock: the day is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from math import inf

from batchrank.policy.amounts import NOTHING, WITHOUT_END, Amount

SHARES = 4
"""
A block is never more than the fourth part of what a day or month has left: near its end jobs take
little at a time, so that none of them keeps from the others what it will not need.
"""


class Refusal(Enum):
    """
    Why nothing may be sent now.
    """

    WAIT = "wait"  # what is in flight may turn out cheaper


@dataclass(frozen=True, slots=True)
class Exhausted:
    """
    Nothing is in flight, and a cap of the output does not cover another call: *counted* is what it
    is about, one of `amounts.COUNTED`.
    """

    counted: str


@dataclass(frozen=True, slots=True)
class Authorise:
    """
    Make *total* durable as what is authorised for the output, then ask again.
    """

    total: Amount


@dataclass(frozen=True, slots=True)
class Borrow:
    """
    Have the shared file hold for this output, on *day*, at least *least* and rather *wish* in all,
    then ask again. *others* is what its other days come to, exactly. *alone*: nothing was under way
    when this was asked, so that it will never be less.
    """

    day: str
    least: Amount
    wish: Amount
    others: Mapping[str, Amount]
    alone: bool = True


@dataclass(frozen=True, slots=True)
class Full:
    """
    A cap of the day or month does not cover it. *room* is what it would cover for this output on
    that day; *period* ("day" or "month") and *counted* say which cap it is; *others* is what was
    spent of that, or is held, by all but this output on this day.
    """

    room: Amount
    period: str
    counted: str
    others: int


@dataclass(slots=True)
class Allowance:
    """
    Calls that may still be made, by all runs that share it; infinity is as many as it takes.
    """

    calls_left: float = inf


@dataclass(slots=True)
class Day:
    """
    What one output has done with the shared budget on one UTC day. *held* is durable in the shared
    file; *room* is what the file last said could be had in all, None if it never refused.
    """

    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    held: Amount = NOTHING
    room: Amount | None = None


@dataclass(slots=True)
class Budget:
    """
    What one output may spend. Without any cap nothing is ever refused or written.

    Attributes:
        cap: over all runs.
        spent: booked for calls that ended, over all runs.
        reserved: the most that calls in flight can come to.
        authorised: what the ledger durably covers; *block_sends* calls' worth at a time.
        days: by UTC day what was taken of the budget that jobs share; None if there is none.
    """

    cap: Amount = WITHOUT_END
    spent: Amount = NOTHING
    authorised: Amount = NOTHING
    block_sends: int = 16
    reserved: Amount = NOTHING
    days: dict[str, Day] | None = None

    @property
    def is_capped(self) -> bool:
        """
        Tell whether there is any cap at all.
        """
        return self.days is not None or self.cap != WITHOUT_END

    def reserve(self, most: Amount, day: str) -> Authorise | Borrow | Refusal | Exhausted | None:
        """
        Set *most* aside for one call on *day* ("" where none is shared); None means done, anything
        else that nothing was set aside.
        """
        needed = self.spent + self.reserved + most
        if counted := needed.beyond(self.cap):
            return Refusal.WAIT if self._under_way else Exhausted(counted)
        if not needed.within(self.authorised):
            block = needed + most.times(self.block_sends - 1)
            return Authorise(self.authorised.most(block).least(self.cap))
        if self.days is not None:
            if (step := self._of_day(self.days, most, day)) is not None:
                return step
            self.days[day].reserved += most
        self.reserved += most
        return None

    @property
    def _under_way(self) -> bool:
        return self.reserved != NOTHING

    def _of_day(self, days: dict[str, Day], most: Amount, day: str) -> Borrow | Refusal | None:
        """
        What has to come before *day* covers *most* more.
        """
        account = days.setdefault(day, Day())
        needed = account.spent + account.reserved + most
        if needed.within(account.held):
            return None
        if self._under_way and account.room is not None and not needed.within(account.room):
            return Refusal.WAIT
        # A fraction of a second's worth: each asking costs two fsyncs.
        wish = needed + most.times(4 * self.block_sends - 1)
        others = {name: it.spent + it.reserved for name, it in days.items() if name != day}
        return Borrow(day, needed, account.held.most(wish), others, alone=not self._under_way)

    def lent(self, asked: Borrow, answer: Amount | Full) -> Full | None:
        """
        Take in what the shared file said; returns why nothing will ever be sent on that day again,
        if so: what was in flight might still turn out cheaper, or has while the file was asked.
        """
        assert self.days is not None, "only who shares a budget borrows"
        account = self.days[asked.day]
        if isinstance(answer, Full):
            account.room = answer.room
            return answer if asked.alone else None
        account.held, account.room = answer, None
        for name, exactly in asked.others.items():
            self.days[name].held = exactly
        return None

    def settle(self, most: Amount, booked: Amount, day: str) -> None:
        """
        A call that had *most* set aside on *day* ended and is booked at *booked*.
        """
        self.reserved -= most
        self.spent += booked
        if day and self.days is not None:
            account = self.days[day]
            account.reserved -= most
            account.spent += booked


# --- what jobs share ------------------------------------------------------------------------------


def cap_name(counted: str, period: str = "") -> str:
    """
    What the job file calls a cap on what is *counted*: that of a "day" or "month", or the output's.
    """
    names = [period, "usd" if counted == "nano_usd" else counted, "max"]
    if counted == "nano_usd" and not period:
        names[0] = "cost"
    return f"budget.{'_'.join(filter(None, names))}"


@dataclass(frozen=True, slots=True)
class SharedCaps:
    """
    What all outputs together may spend in a UTC day and in a month.
    """

    day: Amount = WITHOUT_END
    month: Amount = WITHOUT_END


def granted(asked: Borrow, caps: SharedCaps, day: Amount, month: Amount) -> Amount | Full:
    """
    What the shared file is to hold for an output on the day that it asks for. *day* is what other
    outputs hold on that day, *month* what they and its own other days come to in that month.
    """
    day_room, month_room = caps.day - day, caps.month - month
    room = day_room.least(month_room)
    if asked.least.within(room):
        return asked.least.most(asked.wish.least(_block(asked.least, room)))
    if counted := asked.least.beyond(day_room):
        return Full(room, "day", counted, getattr(day, counted))
    counted = asked.least.beyond(month_room)
    return Full(room, "month", counted, getattr(month, counted))


def _block(least: Amount, room: Amount) -> Amount:
    return least + (room - least).share(SHARES)


def day_of(wall: float) -> str:
    """
    The UTC day (ISO) in which *wall* lies, seconds since the epoch.
    """
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def month_of(day: str) -> str:
    """
    The month of a *day* (ISO): the beginning of each of its days' names.
    """
    return day[:7]


def next_period(day: str, period: str) -> str:
    """
    The first day (ISO) after the "day" or "month" that *day* lies in.
    """
    today = date.fromisoformat(day)
    ends = today if period == "day" else today.replace(day=28) + timedelta(days=4)
    return (ends + timedelta(days=1) if period == "day" else ends.replace(day=1)).isoformat()


# --- what a kill leaves behind --------------------------------------------------------------------


def lost(authorised: Amount, accounted: Amount) -> Amount:
    """
    What a killed run may have spent that nobody knows of: authorised, and never *accounted* for.
    """
    return (authorised - accounted).most(NOTHING)


def lost_of_day(lost: Amount, held: Amount, accounted: Amount) -> Amount:
    """
    How much of what was *lost* may have been spent on a day for which the shared file *held* so
    much, and of which the ledger has *accounted* for so much: no more than either allows.
    """
    return lost.least((held - accounted).most(NOTHING))
