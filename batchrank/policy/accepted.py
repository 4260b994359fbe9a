"""
How many requests were accepted in each of the last sixty seconds.

Owns one figure, the mean rate over a span of them: what is accepted within a window's length, while
the window throttles, is the limit. Knows no clock; it keeps sixty numbers.
"""

from __future__ import annotations

MINUTE_S = 60


class Accepted:
    """
    A count for each second of the last minute.
    """

    def __init__(self) -> None:
        self._counts = [0] * MINUTE_S
        self._second = 0
        self._began_at: float | None = None

    def took(self, now: float) -> None:
        """
        One more was accepted.
        """
        if self._began_at is None:
            self._began_at, self._second = now, int(now)
        if int(now) > self._second:
            self._pass_to(int(now))
        self._counts[self._second % MINUTE_S] += 1

    def per_s(self, now: float, span_s: int = MINUTE_S) -> float:
        """
        The mean over the last *span_s* seconds (60 at most), or since the first if that is shorter.
        """
        if self._began_at is None:
            return 0.0
        if int(now) > self._second:
            self._pass_to(int(now))
        seconds = range(self._second - span_s + 1, self._second + 1)
        count = sum(self._counts[second % MINUTE_S] for second in seconds)
        return count / min(span_s, max(1.0, now - self._began_at))

    def _pass_to(self, second: int) -> None:
        for empty in range(max(self._second, second - MINUTE_S) + 1, second + 1):
            self._counts[empty % MINUTE_S] = 0
        self._second = second
