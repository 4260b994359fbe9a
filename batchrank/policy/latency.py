"""
How long calls take, in two numbers: the mean, and how far single calls lie from it.

Owns the estimate of the slow calls (about one in twenty is slower) from which the concurrency
follows. Keeps no list and sorts nothing: it is told of every reply.
"""

from __future__ import annotations

WEIGHT = 1 / 32
"""What one reply counts: the last hundred or so make the estimate."""

DEVIATIONS = 2.0
"""
Mean + 2 mean deviations is the 95th percentile of a normal and of a uniform distribution, nearly:
as TCP estimates its retransmission timeout (RFC 6298, which takes 4 for the worst case).
"""

ASSUMED_S = 2.0
"""Before the first reply: too many slots are idle, too few would hide how fast it could go."""


class Latency:
    """
    A running estimate, in seconds.
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def took(self, latency_s: float) -> None:
        """
        One more reply has come, so long after its request left.
        """
        if self._mean is None:
            self._mean, self._deviation = latency_s, latency_s / 2
            return
        off = latency_s - self._mean
        self._mean += WEIGHT * off
        self._deviation += WEIGHT * (abs(off) - self._deviation)

    @property
    def slow_s(self) -> float:
        """
        What about 95 in 100 calls do not exceed.
        """
        if self._mean is None:
            return ASSUMED_S
        return self._mean + DEVIATIONS * self._deviation
