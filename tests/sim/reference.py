"""
The rule of growth that ours is compared with: paced AIMD, +0.2 % a second, faster after a minute.

Owns nothing but that rule; epochs, gate, waits and their measure are the controller's. It exists
for figures only.
"""

from __future__ import annotations

from math import inf

from batchrank.policy.control import Adaptive, Known
from batchrank.policy.rate import FIRST_PER_S, FLOOR_PER_S, Mode, Rate


class ReferenceRate(Rate):
    """
    Cut by a tenth (a twentieth when the limit is found where it was), grow by 0.2 % of it a second,
    up to 25 times as fast from a minute after the last cut on.
    """

    def __init__(self, start: float, *, ceiling: float = inf, doubling: bool = True) -> None:
        super().__init__(start, ceiling=ceiling, doubling=doubling)
        self._ref = start
        self._cuts: list[float] = []

    def grow(self, paced_s: float) -> None:
        """
        Add up.
        """
        if self.mode is Mode.RAMP:
            doubles = self._doubling and self.per_s < 50
            self.per_s *= 2.0**paced_s if doubles else 1.5 ** (paced_s / 15)
            return
        self._calm += paced_s
        late = max(0.0, self._calm - 60)
        faster = min(25.0, (1 + late / 60) ** 2)
        self.per_s += 0.002 * self._ref * faster * paced_s

    def throttled(self, sent_at: float, now: float) -> None:
        """
        One cut an epoch.
        """
        if sent_at <= self._cut_at:
            return
        self._cut_at, self.met = now, True
        if self.mode is Mode.RAMP:
            self._ref = self.per_s * (0.54 if self.per_s < 50 else 0.97)  # of the last two seconds
        else:
            self._ref = self.per_s
        self.mode = Mode.HOLD
        self._cuts = [*self._cuts[-2:], self._ref]
        steady = len(self._cuts) == 3 and max(self._cuts) <= 1.1 * min(self._cuts)
        self._to((0.95 if steady else 0.9) * self._ref)

    def measured(self, per_s: float, now: float) -> None:
        """
        What the episode has accepted, less 3 %.
        """
        self._cut_at, self.met, self.mode = now, True, Mode.HOLD
        self._ref = per_s
        self._to(0.97 * per_s)

    def resumed(self, now: float) -> None:
        """
        At half the rate.
        """
        self._cut_at = now
        self._ref = self.per_s
        self._to(0.5 * self.per_s)

    def _to(self, per_s: float) -> None:
        self.per_s, self._calm = max(FLOOR_PER_S, per_s), 0.0


def reference(known: Known) -> Adaptive:
    """
    Our controller with the reference's rule of growth.
    """
    controller = Adaptive(known)
    start = 0.7 * known.learned_per_s if known.learned_per_s else FIRST_PER_S
    controller._rate = ReferenceRate(start, doubling=known.learned_per_s is None)
    return controller
