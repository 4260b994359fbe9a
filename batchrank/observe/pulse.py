"""
A run in numbers, from its events: how far, how fast, what it costs, what is in the way.

Owns the estimates: time left and final cost come from this run's own speed, never from groups that
were done before. Draws and writes nothing: `panel` and `logs` do.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from batchrank.domain import CostSource, Empty, Ranked, Rejected
from batchrank.events import (
    Committed,
    Event,
    GateOpened,
    GateShut,
    JobStarted,
    RouteNow,
    SourceStaging,
    Stopping,
    Tick,
)
from batchrank.policy.billing import in_usd
from batchrank.policy.course import Course

SPEED_S = 60.0
"""Speed is that of the last minute."""


class Pulse:
    """
    Adds events up. *clock* is any clock in seconds that does not go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._steps: deque[tuple[float, int]] = deque()
        self.started: JobStarted | None = None
        self.outcomes: Counter[str] = Counter()
        self.calls = 0
        self.repeated = 0
        self.failures: Counter[str] = Counter()
        self.cost_usd = 0.0
        self._cost_unknown = 0
        self.reserved_usd = 0.0
        self.in_flight = 0
        self.waiting = 0
        self.pace_per_s: float | None = None
        self.mode = ""
        self.stopping: str | None = None
        self.staged_rows = 0
        self.routes: tuple[RouteNow, ...] = ()
        self.calls_by_route: Counter[str] = Counter()
        self._paused: dict[str, tuple[str, float]] = {}
        self._taken: dict[type[Event], Callable[[Any], None]] = {
            JobStarted: self._started,
            Committed: self._committed,
            Tick: self._ticked,
            GateShut: self._shut,
            GateOpened: self._opened,
            Stopping: self._stops,
            SourceStaging: self._staging,
        }

    def report(self, event: Event, /) -> None:
        """
        Take in *event*.
        """
        if type(event) in self._taken:
            self._taken[type(event)](event)

    def _started(self, event: JobStarted) -> None:
        self.started = event
        self._began = self._clock()

    def _ticked(self, event: Tick) -> None:
        self.reserved_usd = event.reserved_usd
        self.in_flight, self.waiting = event.in_flight, event.waiting
        self.pace_per_s, self.mode = event.pace_per_s, event.mode
        self.routes = event.routes

    def _shut(self, event: GateShut) -> None:
        self._paused[event.route] = event.reason, self._clock() + event.until_s

    def _opened(self, event: GateOpened) -> None:
        self._paused.pop(event.route, None)

    def _staging(self, event: SourceStaging) -> None:
        self.staged_rows = event.rows

    def _stops(self, event: Stopping) -> None:
        self.stopping = event.reason

    def _committed(self, event: Committed) -> None:
        for outcome in event.outcomes:
            self.outcomes[_NAMES[type(outcome)]] += 1
        for call in event.calls:
            self.calls += 1
            self.calls_by_route[call.route] += 1
            self.repeated += call.attempt > 1
            self.cost_usd += in_usd(call.cost_nano_usd)
            self._cost_unknown += call.cost_source is CostSource.UNKNOWN
            if call.failure:
                self.failures[call.failure.kind.value] += 1
        if event.outcomes:
            self._steps.append((self._clock(), len(event.outcomes)))

    # --- numbers ----------------------------------------------------------------------------------

    @property
    def elapsed_s(self) -> float:
        """
        Since the job started.
        """
        return self._clock() - self._began

    @property
    def done_now(self) -> int:
        """
        Groups that this run has brought to an outcome.
        """
        return self.outcomes.total()

    @property
    def done(self) -> int:
        """
        Groups with an outcome, those of earlier runs included.
        """
        return self.done_now + (self.started.done if self.started else 0)

    @property
    def target(self) -> int:
        """
        Groups that this run wants to see done.
        """
        return self.started.target if self.started else 0

    @property
    def groups_per_s(self) -> float:
        """
        The speed of the last minute, or of the whole run while it is shorter.
        """
        now = self._clock()
        while self._steps and self._steps[0][0] < now - SPEED_S:
            self._steps.popleft()
        passed = min(SPEED_S, now - self._began)
        return sum(n for _, n in self._steps) / passed if passed > 0 else 0.0

    @property
    def left_s(self) -> float:
        """
        Time left at this run's mean speed; infinity while nothing is known.
        """
        if not self.done_now or self.elapsed_s <= 0:
            return math.inf
        return max(0, self.target - self.done) * self.elapsed_s / self.done_now

    @property
    def cost_usd_now(self) -> float:
        """
        What the output has cost so far, over all runs.
        """
        return self.cost_usd + (self.started.cost_usd if self.started else 0.0)

    @property
    def calls_cost_unknown(self) -> int:
        """
        Calls of all runs that may have cost something, and nobody knows what: none of it is in any
        of the costs here.
        """
        return self._cost_unknown + (self.started.calls_cost_unknown if self.started else 0)

    @property
    def cost_usd_at_end(self) -> float:
        """
        What it will have cost at the end, if the rest costs what this run's groups did.
        """
        return self._course(0.0).at_end_usd

    @property
    def lost_usd(self) -> float:
        """
        What runs that were killed may have spent besides; it counts against the cap.
        """
        return self.started.lost_usd if self.started else 0.0

    @property
    def cap_usd(self) -> float | None:
        """
        What the output may cost over all runs; None if there is no cap.
        """
        return self.started.cap_usd if self.started else None

    @property
    def cap_covers(self) -> int | None:
        """
        How many of the groups that are left the cap will cover; None if it is no obstacle.
        """
        return self._course(self.lost_usd).covered

    def _course(self, lost_usd: float) -> Course:
        left = max(0, self.target - self.done)
        spent = self.cost_usd_now + lost_usd
        return Course(spent, self.cost_usd, self.done_now, left, self.cap_usd)

    @property
    def paused(self) -> tuple[str, float] | None:
        """
        Why nobody sends, and for how many more seconds at least; None while somebody does.
        """
        if any(not route.why for route in self.routes) or not self._paused:
            return None
        reason, until = min(self._paused.values(), key=lambda paused: paused[1])
        return reason, max(0.0, until - self._clock())


_NAMES = {Ranked: "ranked", Rejected: "rejected", Empty: "empty"}
