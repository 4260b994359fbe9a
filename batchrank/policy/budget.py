"""
The caps on money and calls: what may be sent without ever owing, or asking, more.

Owns the promise that spent + reserved never exceeds the cap, across kills: before anything is sent,
the ledger durably holds an amount (`authorised`) that covers all that is spent and reserved. It is
raised in blocks, given back at an orderly end, and counted as spent after a kill. Amounts are
integers of 10^-9 US dollars. Writes nothing itself: the committer does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf


class Refusal(Enum):
    """
    Why nothing may be sent now.
    """

    WAIT = "wait"  # what is in flight may turn out cheaper
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Authorise:
    """
    Make *nano_usd* durable as the authorised total, then ask again.
    """

    nano_usd: int


@dataclass(slots=True)
class Allowance:
    """
    Calls that may still be made, by all runs that share it; infinity is as many as it takes.
    """

    calls_left: float = inf


@dataclass(slots=True)
class Budget:
    """
    The money of one output. *cap* None is no cap: then nothing is ever refused or written.

    Attributes:
        spent: booked for calls that ended, over all runs.
        reserved: the most that calls in flight can cost.
        authorised: what the ledger durably covers; *block_sends* calls' worth at a time.
    """

    cap: int | None
    spent: int = 0
    authorised: int = 0
    block_sends: int = 16
    reserved: int = 0

    def reserve(self, most: int) -> Authorise | Refusal | None:
        """
        Set *most* aside for one call; None means done, anything else that nothing was set aside.
        """
        needed = self.spent + self.reserved + most
        if self.cap is not None and needed > self.cap:
            return Refusal.WAIT if self.reserved else Refusal.EXHAUSTED
        if self.cap is not None and needed > self.authorised:
            return Authorise(min(self.cap, needed + most * (self.block_sends - 1)))
        self.reserved += most
        return None

    def settle(self, most: int, booked: int) -> None:
        """
        A call that had *most* set aside ended and is booked at *booked*.
        """
        self.reserved -= most
        self.spent += booked
