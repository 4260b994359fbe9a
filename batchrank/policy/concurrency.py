"""
How many attempts may be under way: as many as the rate needs, fewer when the server is overloaded.

Owns two answers. What a rate needs follows from Little's law: rate x latency are under way on the
average, half as much again leaves room for the slow ones. What the server bears is found by AIMD:
a tenth less for each round of overload (503, 529, timeouts), half when more than 2 % of the calls
time out, and one more for each round of successes. The rate is not its business: a server that says
"too many requests" means the rate, one that says "overloaded" means how many it has at once.
"""

from __future__ import annotations

from math import ceil, inf

SPARE = 1.5
"""How many times the mean number under way may be."""

LEAST = 4
"""Fewer never make sense: a slow call would stop all others."""

BACK_OFF = 0.9
"""What one round of overload leaves (as Netflix's concurrency-limits do it)."""

TIMEOUTS_SHARE = 0.02
TIMEOUTS_WEIGHT = 1 / 200
"""Half of them go when more than 2 % of the last 200 calls or so have timed out."""


class Concurrency:
    """
    The bound on attempts under way: *fixed* by a person, or found up to *most*.

    A fixed one stands, whatever is heard: whoever fixes it knows the server.
    """

    def __init__(self, fixed: int | None, most: int) -> None:
        self._fixed = fixed
        self._least = min(LEAST, most)
        self._most = float(most)
        self._borne = float(most)  # what the server bears, as far as we know
        self._cut_at = -inf
        self._timeouts = 0.0
        self.now = fixed if fixed is not None else most

    def needed(self, per_s: float | None, latency_s: float) -> None:
        """
        Requests leave at *per_s* (None: as fast as they can) and take *latency_s* if they are slow.
        """
        if self._fixed is not None:
            return
        room = self._borne if per_s is None else min(self._borne, SPARE * per_s * latency_s)
        self.now = max(self._least, ceil(room))

    def succeeded(self) -> None:
        """
        A call came home: one more is borne after as many as are under way.
        """
        self._timeouts -= TIMEOUTS_WEIGHT * self._timeouts
        if self._borne < self._most:
            self._borne = min(self._most, self._borne + 1 / self._borne)

    def overloaded(self, sent_at: float, now: float) -> None:
        """
        The server had too many at once; what had left before the last cut says nothing new.
        """
        if sent_at > self._cut_at:
            self._cut(BACK_OFF, now)

    def timed_out(self, sent_at: float, now: float) -> None:
        """
        No answer came in time: a sign of overload, and a strong one when there are many.
        """
        self._timeouts += TIMEOUTS_WEIGHT * (1 - self._timeouts)
        if self._timeouts > TIMEOUTS_SHARE:
            self._timeouts = 0.0
            self._cut(0.5, now)
        else:
            self.overloaded(sent_at, now)

    def _cut(self, share: float, now: float) -> None:
        self._cut_at = now
        self._borne = max(float(self._least), share * min(self._borne, float(self.now)))
        if self._fixed is None:
            self.now = max(self._least, ceil(min(self.now, self._borne)))
