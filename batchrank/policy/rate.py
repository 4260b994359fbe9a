"""
How fast requests may leave under a limit that nobody told: the search for it.

Owns the rule of growth and of cuts. A rate that is not known is doubled and doubled (RAMP) until
the server throttles. From then on (HOLD) a rate that is borne is kept for a while, the calm; then
it is tried how far above it one may go, by steps that double, until the server throttles again.
What comes next is the best rate that was borne, or a little less than what was refused.

AIMD with 0.2 % a second, faster after a minute, needs 125 to 152 s to follow a limit that doubles;
this needs the rest of the calm and 24 s (measured: 13 to 76 s), with as few throttles; see
`tests/sim`.

Knows no clock and no gate. Time that counts here is time in which the pacer held requests back:
while something else does, a higher rate would say nothing.
"""

from __future__ import annotations

from enum import Enum
from math import inf, log2

FIRST_PER_S = 10.0
"""Where an unknown limit is begun with."""

LEARNED_SHARE = 0.7
"""Where one is begun with that was met in an earlier run."""

FLOOR_PER_S = 0.2
"""Never slower: one request in five seconds is how we learn that there is room again."""

EASY_PER_S = 100.0
"""
Where a limit that is told is begun with, if it is higher, and doubled every second from there: each
call of the first ones needs a connection, and calls whose TLS handshakes wait for each other arrive
together, above the limit (measured: 1,266 in a second at a limit of 1,200).
"""

DOUBLED_TO_PER_S = 50.0
RAMP_FAST_S = 1.0
RAMP_SLOW, RAMP_SLOW_S = 1.5, 10.0
"""x2 a second up to 50/s, then x1.5 in 10 s: some servers throttle whoever speeds up too fast."""

RAMP_FAST_KEPT, RAMP_SLOW_KEPT = 0.7, 0.9
"""What is kept of the rate at which the ramp ends: of one that came of doubling, and of others."""

NEAR_DOUBLED = 1.1
"""So little above DOUBLED_TO_PER_S a rate came of doubling."""

LATE_IN_A_ROW = 2
"""The throttle that ends the ramp counts like the second in a row; one right after is the third."""

CALM_S = 60.0
"""A rate that is borne is kept for so long: the longest window that is usual."""

THROTTLES_SHARE = 0.006
"""The calm lasts until the throttles before it are so small a share of what was sent."""

CALM_S_MAX = 180.0
"""But no longer than this."""

STEP = 0.0075
DOUBLED_S = 3.0
STRIDE = 0.1
STRIDE_AT_S = DOUBLED_S * log2(STRIDE / STEP)
"""
Above the rate that is borne: 0.75 %, twice as much every 3 s; from 10 % on as in the ramp. Of a
limit that has doubled nine tenths are met in 24 s.
"""

CUTS = (0.01, 0.06, 0.12, 0.2)
"""What the first, second, ... throttle in a row takes off; the last one repeats."""

EPISODE_SHARE = 0.98
"""Of what a long window has accepted on the average so much is kept."""

IN_A_ROW_S = 10.0
"""Throttles with less than this between them are in a row."""

NEAR = 0.03
OVERSHOT = 0.15
"""
Of what was tried beyond 3 % above what is borne 15 % more are taken off: the farther above, the
faster it grew, and the more lies between limit and 429.
"""

MOVED = 1.1
"""What was refused is remembered until more than a tenth above it is reached."""

CLOSE = 1.007
"""
Where what was refused is so little above what is borne there is nothing to find: each try costs a
throttle, and what it asks to wait.
"""

CUT_SHOWS_S = 0.25
"""So long after a cut throttles are still the old rate's."""

NARROW = 0.025
"""A cut of no more than this leaves nothing to look for: the calm is long."""

DEEP = 0.9
CLIMB_PER_S = 0.01
"""
A row that ends below nine tenths of where it began may have met what a long window remembers of a
burst: then the rate climbs back by 1 % a second, until it is throttled again.
"""

WINDOWED = 0.25
WINDOWS = 3
"""
A limit that is counted over a minute answers late: after the gate was shut for long one goes above
what is borne four times as slowly, until that many rows of throttles have passed without it.
"""

RECOVERY_S = 10.0
"""After an outage half the rate is taken up at once and the rest over so long."""


class Mode(Enum):
    """
    What the search does; BLOCKED is told by the controller while its gate is shut.
    """

    RAMP = "ramp"
    HOLD = "hold"
    BLOCKED = "blocked"


class Rate:
    """
    The search, from *start* up to *ceiling* (requests per second). *doubling*: nothing is known of
    where the limit lies; otherwise it is near the start.
    """

    def __init__(self, start: float, *, ceiling: float = inf, doubling: bool = True) -> None:
        self._ceiling = ceiling
        self._doubling = doubling
        self.mode = Mode.HOLD if start >= ceiling else Mode.RAMP
        self.met = False
        self.per_s = min(start, ceiling)
        self._borne = self.per_s  # what is kept during the calm
        self._proven = 0.0  # a rate that was borne through a whole calm
        self._refused = inf  # a rate that was not, since
        self._low = self.per_s  # where the calm begins
        self._climbs_at = self._climbed_at = 0.0  # when in the calm it goes from low to borne
        self._calm = 0.0  # so much of the calm is over, in seconds
        self._calm_s = CALM_S  # so long it is
        self._in_a_row = 0
        self._windows = 0  # so many rows of throttles a long window is still reckoned with
        self._throttles = 0  # since a rate was proven
        self._tried = False  # the last row came of trying how far one may go
        self._cut_at = -inf

    # --- growth -----------------------------------------------------------------------------------

    @property
    def known_per_s(self) -> float:
        """
        The best guess of the limit.
        """
        return min(self._borne, self._ceiling)

    def grow(self, paced_s: float) -> None:
        """
        For *paced_s* seconds the pacer has held requests back, and nobody was throttled.
        """
        if self.mode is Mode.RAMP:
            self.per_s = min(self._ceiling, self.per_s * self._ramped(paced_s))
            self._borne = self.per_s
            if self.per_s >= self._ceiling:
                self.mode = Mode.HOLD
            return
        self._calm += paced_s
        self.per_s = min(self._ceiling, self._after(self._calm))

    def _ramped(self, paced_s: float) -> float:
        if self._ceiling < inf or (self._doubling and self.per_s < DOUBLED_TO_PER_S):
            return _power(2.0, paced_s / RAMP_FAST_S)
        return _power(RAMP_SLOW, paced_s / RAMP_SLOW_S)

    def _after(self, calm: float) -> float:
        beyond = (calm - self._calm_s) * (WINDOWED if self._windows else 1.0)
        if beyond > STRIDE_AT_S:
            stride = min(100.0, (beyond - STRIDE_AT_S) / RAMP_SLOW_S)
            return self._borne * (1 + STRIDE) * _power(RAMP_SLOW, stride)
        if beyond > 0:
            return self._borne * (1 + STEP * _power(2.0, beyond / DOUBLED_S))
        if calm >= self._climbed_at:
            return self._borne
        if calm <= self._climbs_at:
            return self._low
        climbed = (calm - self._climbs_at) / (self._climbed_at - self._climbs_at)
        return self._low + (self._borne - self._low) * climbed

    # --- cuts -------------------------------------------------------------------------------------

    def throttled(self, sent_at: float, now: float) -> None:
        """
        A request that left at *sent_at* was one too many.

        What had left before the last cut says nothing about the rate since.
        """
        self._throttles += 1
        if sent_at <= self._cut_at or now < self._cut_at + CUT_SHOWS_S:
            return
        self._cut_at = now
        self.met = True
        if self.mode is Mode.RAMP:
            self._leave_ramp()
            return
        self._place()
        kept = self._cut()
        row_began_at, self._in_a_row = self._borne, self._in_a_row + 1
        deep = self._in_a_row > 1 and kept < DEEP * row_began_at
        self._keep(kept, row_began_at if deep else kept)

    def _place(self) -> None:
        """
        See what the throttle came of: of trying, of a rate that is borne no more, or in a row.
        """
        in_a_row = self._calm <= IN_A_ROW_S
        if self._calm > self._calm_s:
            self._proven, self._throttles, self._tried = self._borne, 1, True
        else:
            self._tried = self._tried and in_a_row
            if self.per_s <= self._proven:
                self._proven, self._refused = 0.0, inf
        if not in_a_row:
            self._in_a_row = 0
            self._windows = max(0, self._windows - 1)

    def _cut(self) -> float:
        """
        What is kept of the rate: a little less at first, then half way to what was proven.
        """
        kept = (1 - CUTS[min(self._in_a_row, len(CUTS) - 1)]) * self.per_s
        if self._proven:
            kept = self._between(kept)
        if kept > self._proven:
            return kept
        self._in_a_row = 0
        return self._proven

    def _between(self, kept: float) -> float:
        """
        Where to try next between the rate that was borne and one that was refused: *kept* at most.
        """
        above = self.per_s - self._proven
        if self._in_a_row:
            self._refused = self.per_s
            half_way = self.per_s - above / 2
            return half_way if self._in_a_row == 1 else min(kept, half_way)
        kept -= OVERSHOT * max(0.0, above - NEAR * self._proven)
        if self.per_s > MOVED * self._refused:
            self._refused = inf
        if self._refused < CLOSE * self._proven:
            return self._proven
        return min(kept, (self._proven + self._refused) / 2)

    def _leave_ramp(self) -> None:
        """
        The last step is how far the limit may lie behind.
        """
        self.mode = Mode.HOLD
        self._in_a_row = LATE_IN_A_ROW
        doubled = self._doubling and self.per_s < NEAR_DOUBLED * DOUBLED_TO_PER_S
        kept = self.per_s * (RAMP_FAST_KEPT if doubled else RAMP_SLOW_KEPT)
        self._keep(kept, kept)

    def _keep(self, per_s: float, borne: float) -> None:
        """
        Begin a calm at *per_s*, and climb to *borne* first if that is more. The larger the cut, the
        less is known, the shorter the calm.
        """
        cut = 1 - per_s / self.per_s
        self.per_s = self._low = max(FLOOR_PER_S, min(per_s, self._ceiling))
        self._borne = max(self._low, min(borne, self._ceiling))
        self._calm = 0.0
        self._climbs(IN_A_ROW_S, (1 - self._low / self._borne) / CLIMB_PER_S)
        worth = self._throttles / THROTTLES_SHARE / self._borne if self._tried else 0.0
        calm_s = CALM_S * min(1.0, NARROW / cut) if cut > 0 else CALM_S
        self._calm_s = self._climbed_at + min(CALM_S_MAX, max(calm_s, worth))

    def _climbs(self, after_s: float, climb_s: float) -> None:
        if self._low >= self._borne:
            after_s = climb_s = 0.0
        self._climbs_at, self._climbed_at = after_s, after_s + climb_s

    # --- after the gate was shut ------------------------------------------------------------------

    def measured(self, per_s: float, now: float) -> None:
        """
        Throttled for long, the server has accepted *per_s* since the time before: its windows'.
        """
        proven = self._proven if self.met else 0.0
        self.mode, self.met = Mode.HOLD, True
        self._cut_at = now
        self._in_a_row = 0
        self._windows = WINDOWS
        self.per_s = max(FLOOR_PER_S, proven, EPISODE_SHARE * per_s)
        self._keep(self.per_s, self.per_s)

    def resumed(self, now: float) -> None:
        """
        The server is back from an outage: it is not met at full rate at once.
        """
        self._cut_at = now
        if self.mode is Mode.RAMP:
            return
        self._calm = 0.0
        self.per_s = self._low = max(FLOOR_PER_S, self._borne / 2)
        self._climbs(0.0, RECOVERY_S)
        self._calm_s = self._climbed_at + CALM_S


def _power(base: float, exponent: float) -> float:
    # `**` is typed as if the base could be negative and the result complex.
    return float(base**exponent)
