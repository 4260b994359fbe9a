"""
The caps that what is left of a job may reach: its own, and those of a day and month for all jobs.

Owns the comparison of an estimate with what each cap still leaves, and its words. Holds nothing
back: that is done call by call, at the most that each can cost (`policy.budget`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchrank.examine.estimate import Foretold
from batchrank.job import Job
from batchrank.job.money import caps_of, shared_caps_of, taken_together
from batchrank.policy.amounts import COUNTED, Amount, shown
from batchrank.policy.billing import nano_usd
from batchrank.policy.budget import cap_name

WHEN = {"": "spent before", "day": "taken today by all", "month": "taken this month by all"}
"""Who has used what of a cap is used, by its period."""


@dataclass(frozen=True, slots=True)
class Cap:
    """
    A cap that is not enough, or may not be: *name* as in the job file, with the *period* ("day",
    "month"; "" is the output's own). *before* is used of it, and what is left to do *needs* more,
    low and high. All are what is *counted*: 10^-9 US dollars, requests or search units.
    """

    name: str
    period: str
    counted: str
    cap: int
    before: int
    needs: tuple[int, int]

    def __str__(self) -> str:
        low, high = (self.before + more for more in self.needs)
        verb = "is not" if low > self.cap else "may not be"
        cap, most, before = (shown(self.counted, n) for n in (self.cap, high, self.before))
        used = f", with {before} {WHEN[self.period]}" if self.before else ""
        return (
            f"{self.name} ({cap}) {verb} enough: it can take {most}{used},"
            " and the run stops where the budget ends"
        )


def caps_met(job: Job, left: Foretold, spent: Amount) -> Iterator[Cap]:
    """
    The caps that what is *left* may reach, where *spent* counts against the output's own.

    Raises:
        JobError, StorageError: the file of a budget that jobs share cannot be used.
    """
    if not job.asks_somebody:
        return
    yield from _met("", caps_of(job), spent, left)
    caps = shared_caps_of(job.config.budget)
    for period, taken in taken_together(job, job.now.date().isoformat()).items():
        yield from _met(period, getattr(caps, period), taken, left)


def _met(period: str, caps: Amount, before: Amount, left: Foretold) -> Iterator[Cap]:
    low_usd, high_usd = left.cost_usd or (0.0, 0.0)
    low = Amount(nano_usd(low_usd), left.requests[0], left.units[0])
    high = Amount(nano_usd(high_usd), left.requests[1], left.units[1])
    for counted in COUNTED:
        cap, used = getattr(caps, counted), getattr(before, counted)
        least, most = getattr(low, counted), getattr(high, counted)
        if most and used + most > cap:
            yield Cap(cap_name(counted, period), period, counted, cap, used, (least, most))
