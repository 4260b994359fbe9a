"""
Servers with a hidden limit: what they accept, what they refuse, and how they say so.

Owns the truth that an oracle compares with: the limit at each time. Limits are those of the
embedded server; latency and hints are drawn from the generator that is given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import ceil, log
from random import Random
from typing import NamedTuple

from batchrank.domain import FailureKind, RateLimit
from batchrank.rehearsal.limits import FixedWindow, Limit, SlidingWindow, TokenBucket

REFUSAL_S = (0.02, 0.08)
"""How soon a request is refused."""

ABSURD = (None, 86_400.0, 7_200.0, -5.0, float("nan"))
"""What hints may come to in a client that reads `999999999`, `86400`, `-5`, `NaN` or `soon`."""


class Hint(Enum):
    """
    How a refusal says when to come back.
    """

    SECONDS = "given"  # whole seconds, rounded up, as servers do
    ABSENT = "absent"
    ABSURD = "absurd"
    JITTERED = "jittered"  # up to a tenth more or less than that


@dataclass(frozen=True, slots=True)
class Outage:
    """
    From *start* to *stop* nothing succeeds: refused connections, or a 503 without a hint.
    """

    start: float
    stop: float
    status: int | None = None


class Answer(NamedTuple):
    """
    How an attempt ends.
    """

    kind: FailureKind | None
    status: int | None
    hint_s: float | None


ACCEPTED = Answer(None, 200, None)
UNREACHED = Answer(FailureKind.NEVER_SENT, None, None)


Rates = Sequence[tuple[float, float]]
"""(since when, limit per second), in order."""

Making = Callable[[float], Limit]
"""A fresh limit of so many per second."""

Latency = Callable[[Random], float]
"""How many seconds one call takes."""


def even(chance: Random) -> float:
    """
    From 0.1 to 0.6 s, all alike.
    """
    return 0.1 + 0.5 * chance.random()


def heavy(chance: Random) -> float:
    """
    Lognormal: 0.3 s in the middle, one in a hundred takes 5 s, one in ten thousand 26 s.
    """
    return chance.lognormvariate(log(0.3), 1.2)


def bucket(burst_s: float = 1.0) -> Making:
    """
    Token buckets that hold what flows in within *burst_s*.
    """
    return lambda per_s: TokenBucket(RateLimit(per_s, 1.0), max(1.0, per_s * burst_s))


def fixed(period_s: float) -> Making:
    """
    Fixed windows.
    """
    return lambda per_s: FixedWindow(RateLimit(per_s * period_s, period_s))


def sliding(period_s: float) -> Making:
    """
    Sliding windows.
    """
    return lambda per_s: SlidingWindow(RateLimit(per_s * period_s, period_s))


class Server:
    """
    Answers, and knows what it would have answered.
    """

    def __init__(
        self,
        making: Making,
        rates: Rates,
        chance: Random,
        *,
        hint: Hint = Hint.SECONDS,
        outage: Outage | None = None,
        latency: Latency = even,
        noise: float = 0.0,
    ) -> None:
        self.rates = rates
        self._steps = [(since, making(per_s)) for since, per_s in rates]
        self._limit = self._steps.pop(0)[1]
        self._phase = 61.0 * chance.random()  # windows do not begin when clients do
        self._chance = chance
        self._hint = hint
        self._outage = outage
        self._latency = latency
        self._noise = noise
        self._refusals = 0

    def answer(self, now: float) -> tuple[float, Answer]:
        """
        What a request that leaves *now* will get, and after how many seconds.
        """
        if self._steps and now >= self._steps[0][0]:
            self._limit = self._steps.pop(0)[1]
        if self._outage is not None and self._outage.start <= now < self._outage.stop:
            status = self._outage.status
            down = UNREACHED if status is None else Answer(FailureKind.THROTTLED, status, None)
            return self._refusal_s(), down
        at = now + self._phase
        wait_s = self._limit.wait_s(1.0, at)
        if self._noise and self._chance.random() < self._noise:
            wait_s = max(wait_s, 0.1)
        if wait_s <= 0:
            self._limit.take(1.0, at)
            return self._latency(self._chance), ACCEPTED
        after_s = self._refusal_s()
        return after_s, Answer(FailureKind.THROTTLED, 429, self._told(wait_s))

    def _refusal_s(self) -> float:
        return REFUSAL_S[0] + (REFUSAL_S[1] - REFUSAL_S[0]) * self._chance.random()

    def _told(self, wait_s: float) -> float | None:
        self._refusals += 1
        match self._hint:
            case Hint.SECONDS:
                return float(ceil(wait_s))
            case Hint.ABSENT:
                return None
            case Hint.ABSURD:
                return ABSURD[self._refusals % len(ABSURD)]
            case Hint.JITTERED:
                return ceil(wait_s) * (0.9 + 0.2 * self._chance.random())

    def limit_at(self, now: float) -> float:
        """
        The hidden limit then, per second.
        """
        return self.rates[bisect_right(self.rates, now, key=lambda step: step[0]) - 1][1]

    def allowed(self, start: float, stop: float) -> float:
        """
        How many requests the limit allows from *start* to *stop*.
        """
        ends = [since for since, _ in self.rates[1:]] + [float("inf")]
        return sum(
            per_s * max(0.0, min(stop, end) - max(start, since))
            for (since, per_s), end in zip(self.rates, ends, strict=True)
        )
