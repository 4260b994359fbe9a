"""
Rate limits as servers hold them: token bucket, fixed window, sliding window.

Each is a small class that is told the time (seconds of any one clock that does not go back) and an
amount (requests, documents). Owns the promise of its kind: over which spans of time never more than
the limit is admitted.

Nothing here knows a clock, and nobody waits here: whoever is refused learns how long it would take.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from math import floor, inf

from batchrank.domain import RateLimit


class LimitKind(StrEnum):
    """
    How a limit is counted.
    """

    SLIDING = "sliding"
    FIXED = "fixed"
    BUCKET = "bucket"


@dataclass(frozen=True, slots=True)
class LimitDial:
    """
    A limit as it is asked for. *burst* is a bucket's size; None is the limit's count.
    """

    rate: RateLimit
    kind: LimitKind = LimitKind.SLIDING
    burst: float | None = None


class Limit(ABC):
    """
    A limit that is being held.

    Ask `wait_s` before `take`, at one time: so that several limits admit together or not at all.
    """

    @abstractmethod
    def wait_s(self, amount: float, now: float) -> float:
        """
        How long until *amount* would be admitted; 0 is now, infinity is never.
        """

    @abstractmethod
    def take(self, amount: float, now: float) -> None:
        """
        Count *amount* as admitted at *now*.
        """


class SlidingWindow(Limit):
    """
    At most the limit in every span of the period's length, wherever it begins.
    """

    def __init__(self, rate: RateLimit) -> None:
        self._rate = rate
        self._taken: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        """
        Until enough of what was taken is a whole period ago.
        """
        if amount > self._rate.count:
            return inf
        self._forget(now)
        excess = self._total + amount - self._rate.count
        if excess <= 0:
            return 0.0
        for at, taken in self._taken:
            excess -= taken
            if excess <= 0:
                return at + self._rate.period_s - now
        raise AssertionError("everything that was taken is less than the limit")

    def take(self, amount: float, now: float) -> None:
        """
        Remember when.
        """
        self._taken.append((now, amount))
        self._total += amount

    def _forget(self, now: float) -> None:
        # The same sum as in `wait_s`: rounded otherwise, a wait of 0 could pass the limit by one.
        while self._taken and self._taken[0][0] + self._rate.period_s <= now:
            self._total -= self._taken.popleft()[1]


class FixedWindow(Limit):
    """
    At most the limit in each of the periods that follow one another; twice as much across a border.
    """

    def __init__(self, rate: RateLimit) -> None:
        self._rate = rate
        self._window = -1
        self._total = 0.0

    def wait_s(self, amount: float, now: float) -> float:
        """
        Until the next window begins.
        """
        if amount > self._rate.count:
            return inf
        window = self._at(now)
        if window != self._window or self._total + amount <= self._rate.count:
            return 0.0
        return (window + 1) * self._rate.period_s - now

    def take(self, amount: float, now: float) -> None:
        """
        Count within the window of *now*.
        """
        window = self._at(now)
        if window != self._window:
            self._window, self._total = window, 0.0
        self._total += amount

    def _at(self, now: float) -> int:
        period_s = self._rate.period_s
        window = floor(now / period_s)
        # Rounded, the quotient may lie a window beside the product from which `wait_s` is told.
        return window - (window * period_s > now) + ((window + 1) * period_s <= now)


class TokenBucket(Limit):
    """
    At most the bucket, and what flows into it meanwhile at the limit's mean rate.
    """

    def __init__(self, rate: RateLimit, burst: float | None = None) -> None:
        self._rate = rate
        self._size = rate.count if burst is None else burst
        self._level = self._size
        self._at = -inf

    def wait_s(self, amount: float, now: float) -> float:
        """
        Until enough has flowed in.
        """
        if amount > self._size:
            return inf
        return max(0.0, (amount - self._filled(now)) / self._rate.per_s)

    def take(self, amount: float, now: float) -> None:
        """
        Draw from the bucket.
        """
        self._level = self._filled(now) - amount
        self._at = now

    def _filled(self, now: float) -> float:
        return min(self._size, self._level + (now - self._at) * self._rate.per_s)


def limit_of(dial: LimitDial) -> Limit:
    """
    A fresh limit, as *dial* asks for it.
    """
    match dial.kind:
        case LimitKind.SLIDING:
            return SlidingWindow(dial.rate)
        case LimitKind.FIXED:
            return FixedWindow(dial.rate)
        case LimitKind.BUCKET:
            return TokenBucket(dial.rate, dial.burst)
