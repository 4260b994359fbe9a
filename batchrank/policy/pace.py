"""
How fast requests, documents and tokens may leave: the arithmetic of pacing.

Owns the promise that in no window of a limit's length more leaves than the limit plus
max(1, 2 %). It waits for nobody: `engine.waiting` does, with an aiolimiter of the size told here.
What the pace should be where no limit is told, `rate` finds.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchrank.domain import RateLimit

HEADROOM = 0.98
"""The share of a limit that is used: what is between our clock and the provider's costs a 429."""

SLACK = 0.02
"""How far above a limit one window may come to lie, as a share of the limit (at least 1)."""

LATE_S = 0.02
"""How much lateness of a timer is made good by sending sooner afterwards, in seconds."""


@dataclass(frozen=True, slots=True)
class Pace:
    """
    A leaky bucket: *rate* per second, and at most *burst* at once (at least 1).
    """

    rate: float
    burst: float


def pace_of(limit: RateLimit) -> Pace:
    """
    The pace that holds *limit* in every window, however the windows lie.

    A bucket lets at most `rate x period + burst` through in one period. The rate takes 98 % of the
    limit, so the burst may take the other 2 % and the slack. It needs more than 1 only to make good
    timers that fire late: 1 plus 20 ms of the rate (measured: a burst of exactly 1 loses 2.5 % at
    100/s, and 10 % at 1,000/s).
    """
    rate = HEADROOM * limit.per_s
    slack = max(1.0, SLACK * limit.count)
    return Pace(rate, min(1.0 + rate * LATE_S, (1.0 - HEADROOM) * limit.count + slack))


class Turnstile:
    """
    Let weighted amounts through at a mean rate, first come, first served (virtual scheduling).

    An amount may be larger than any burst: it passes when its turn comes, and the next one waits
    longer for it. Lateness up to `(burst - 1) / rate` seconds is made good: of single requests no
    more than the burst leave at once. *pace* may be set at any time; what is booked stays booked,
    so that another pace is no new burst. Times are seconds of any one clock.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._free_at = float("-inf")

    def admit(self, amount: float, now: float) -> float:
        """
        Book *amount* and return the time at which it may leave (*now* or later).
        """
        start = max(self._free_at, now - (self.pace.burst - 1) / self.pace.rate)
        self._free_at = start + amount / self.pace.rate
        return max(now, start)

    def opens_at(self, now: float) -> float:
        """
        When the next amount may leave, whatever it is (*now* or later); nothing is booked.
        """
        return max(now, self._free_at)

    def book(self, amount: float) -> None:
        """
        Book *amount* more (or less) for what has been admitted already.
        """
        self._free_at += amount / self.pace.rate
