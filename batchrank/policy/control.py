"""
How fast and how many: the seam that the engine asks, and the controller that finds both itself.

Owns what is done about each answer: 429 concerns the rate, 503 and 529 without a hint and timeouts
concern how many are under way, what replies tell of limits is a ceiling, and a hint shuts the gate.
Owns the gate, and what it means for the rate that it was shut. Stopping for a spent quota is not
its business (that failure is FATAL), nor is whose fault an outage was (that is the gate's).

Knows no clock and waits for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Protocol

import msgspec

from batchrank.domain import Advertised, FailureKind
from batchrank.policy.accepted import Accepted
from batchrank.policy.ceilings import Ceilings
from batchrank.policy.concurrency import Concurrency
from batchrank.policy.gate import HINT_S_NEWS, HINT_S_PROBED, JITTER, THROTTLES_MIN, Gate
from batchrank.policy.latency import Latency
from batchrank.policy.pace import LATE_S, Pace
from batchrank.policy.rate import EASY_PER_S, FIRST_PER_S, FLOOR_PER_S, LEARNED_SHARE, Mode, Rate

TICK_S = 0.05
"""How often the rate is taken anew while it grows."""

OVERLOADED = frozenset({503, 529})
"""Statuses by which a server says that it has too much to do, whoever sent it."""

TIMED_OUT = frozenset({None, 408, 504, 524})
"""Statuses (None: no reply) by which an answer did not come in time."""

LATELY_S = 5
"""A rate that was not paced is what was accepted in the last seconds before the first throttle."""

EPISODE_S_MIN = 5.0
"""
What is accepted from one long wait to the next, waits included, is the limit of long windows, if
they begin at least so far apart.
"""

REFUSED_SHARE = 0.05
REFUSED_WEIGHT = 1 / 200
"""
Where a person tells the limit, so few throttles among the last 200 answers do not refute it: some
servers refuse a call in a hundred, however slowly calls come.
"""

PAUSES_MAX = 3
"""So many pauses in a row that one call ends are not what the server says they are."""


@dataclass(frozen=True, slots=True)
class Known:
    """
    What is known before the first request.

    Attributes:
        pace: of the configured limit, which is a ceiling always; None: it is to be found.
        unlimited: a person says that there is no limit; nothing is paced until the first throttle.
        learned_per_s: the limit that an earlier run has met, if that is not too long ago.
        concurrency: fixed by a person; None is as many as the rate needs.
        concurrency_max: never more than this.
    """

    pace: Pace | None = None
    unlimited: bool = False
    learned_per_s: float | None = None
    concurrency: int | None = None
    concurrency_max: int = 256


class Heard(msgspec.Struct, gc=False):
    """
    How an attempt ended. Nobody changes it.

    Attributes:
        kind: the class of its failure; None is success.
        status: the HTTP status, None where no reply was read.
        hint_s: for how long it asks us to stay away.
        advertised: what it says about limits.
        sent_at, now: when it left and ended.
        probe: it was the one that the shut gate let through.
        jitter: 0 to 1, for a wait that follows.
    """

    kind: FailureKind | None
    status: int | None
    hint_s: float | None
    advertised: Advertised | None
    sent_at: float
    now: float
    probe: bool = False
    jitter: float = 0.0


class Controller(Protocol):
    """
    Knows how fast and how many; hears how every attempt ended, after the gate has heard it.
    """

    @property
    def gate(self) -> Gate:
        """
        The gate that goes with it.
        """

    @property
    def pace(self) -> Pace | None:
        """
        The pace of requests now; None is as fast as the concurrency allows.
        """

    @property
    def concurrency(self) -> int:
        """
        How many attempts may be under way now.
        """

    @property
    def mode(self) -> Mode:
        """
        What it does now, for a person.
        """

    @property
    def learned_per_s(self) -> float | None:
        """
        What the next run should know; None if no limit was met.
        """

    def sent(self, now: float, held: bool) -> None:
        """
        An attempt leaves; *held*: the pacer is what it waited for.
        """

    def heard(self, heard: Heard) -> bool:
        """
        Take in how an attempt ended; tell whether that shut the gate or put its opening off.
        """


@dataclass(slots=True)
class _Wait:
    """
    The gate is shut: by what, since when, and until when as far as is told. *overload*: by a server
    that has too much to do; *refused_at*: when the last probe was throttled, or it shut.
    """

    kind: FailureKind
    since: float
    until: float
    overload: bool
    refused_at: float

    def ended(self, now: float) -> float:
        """
        When the limit let requests through again: as told, or half way since the last refusal.
        """
        return (self.refused_at + now) / 2 if self.refused_at > self.since else now


class Adaptive:
    """
    Finds the limit, or holds the configured one and gives way when it is too high.
    """

    def __init__(self, known: Known) -> None:
        self.gate = Gate()
        self._known = known
        self._ceiling = known.pace.rate if known.pace else inf
        self._rate = None if known.unlimited and known.pace is None else _begin(known)
        self._advertised = Ceilings()
        self._refused = 0.0  # the share of throttles among the last answers
        self._refused_in_a_row = 0
        self._latency = Latency()
        self._concurrency = Concurrency(known.concurrency, known.concurrency_max)
        self._wait: _Wait | None = None
        self._overload = False  # the last throttle was one
        self._sent_at = -inf
        self._paced_s = 0.0
        self._retake_at = -inf
        self._episode_at = inf  # when the first request left, or the last long wait ended
        self._accepted = 0
        self._recent = Accepted()
        self._pauses = self._since_pause = 0
        self._capped = False
        self._paused = False  # the gate is shut, or was until now
        self._per_s: float | None = None
        self.pace: Pace | None = None
        self._retake(-inf)

    # --- answers ----------------------------------------------------------------------------------

    @property
    def concurrency(self) -> int:
        """
        How many attempts may be under way now.
        """
        return self._concurrency.now

    @property
    def mode(self) -> Mode:
        """
        What it does now; a limit that is told and held is HOLD, too.
        """
        if self._blocked:
            return Mode.BLOCKED
        if self._rate is None or self._capped:
            return Mode.HOLD
        return self._rate.mode

    @property
    def learned_per_s(self) -> float | None:
        """
        The limit as far as it was met, in 1/s.
        """
        return self._rate.known_per_s if self._rate is not None and self._rate.met else None

    # --- news -------------------------------------------------------------------------------------

    def sent(self, now: float, held: bool) -> None:
        """
        An attempt leaves; *held*: the pacer is what it waited for.
        """
        if self._wait is not None or self.gate.kind is not None:
            self._watch(now)
        self._episode_at = min(self._episode_at, now)
        if held and self._per_s is not None:
            self._paced_s += min(now - self._sent_at, 2 / self._per_s + LATE_S)
        self._sent_at = now
        if now >= self._retake_at:
            self._paused = False
            self._retake(now)

    def heard(self, heard: Heard) -> bool:
        """
        Take in how an attempt ended; tell whether that shut the gate or put its opening off.
        """
        if heard.kind is None:
            self._succeeded(heard)
        elif heard.kind is FailureKind.THROTTLED:
            self._throttled(heard)
        elif heard.kind is FailureKind.UNKNOWN and heard.status in TIMED_OUT and not self._blocked:
            self._concurrency.timed_out(heard.sent_at, heard.now)
        if self._wait is not None or self.gate.kind is not None:
            self._watch(heard.now)
        if heard.advertised is None or not self._told(heard, heard.advertised):
            return False
        self._watch(heard.now)
        return True

    def _succeeded(self, heard: Heard) -> None:
        self._accepted += 1
        self._recent.took(heard.now)
        self._refused -= REFUSED_WEIGHT * self._refused
        self._refused_in_a_row = 0
        self._since_pause += 1
        self._latency.took(heard.now - heard.sent_at)
        self._concurrency.succeeded()
        self._advertised.succeeded()

    def _throttled(self, heard: Heard) -> None:
        self._overload = heard.status in OVERLOADED and not heard.hint_s
        if self._overload:
            if self._wait is None:
                self._concurrency.overloaded(heard.sent_at, heard.now)
            return
        self._pauses = 0
        if self._is_tolerated():
            return
        self._advertised.throttled(heard.now)
        if self._rate is None:
            # Where nothing was accepted yet nothing is known: then it begins as any other search.
            lately = max(FIRST_PER_S, self._recent.per_s(heard.now, LATELY_S))
            self._rate = Rate(lately, doubling=lately <= FIRST_PER_S)
        if self._wait is not None:
            self._wait.refused_at = heard.now if heard.probe else self._wait.refused_at
        else:
            self._rate.throttled(heard.sent_at, heard.now)
            self._retake(heard.now)

    def _is_tolerated(self) -> bool:
        """
        Count a throttle; tell whether it is one of the few that do not refute a person's word.
        """
        self._refused += REFUSED_WEIGHT * (1 - self._refused)
        self._refused_in_a_row += 1
        few = self._refused <= REFUSED_SHARE and self._refused_in_a_row < THROTTLES_MIN
        told = self._known.unlimited or self._known.pace is not None
        return told and few

    def _told(self, heard: Heard, advertised: Advertised) -> bool:
        """
        What a reply says of limits; nothing left is a hint like Retry-After, which goes before it.
        """
        self._advertised.told(advertised, heard.now)
        if advertised.remaining != 0 or not advertised.reset_s or heard.hint_s:
            return False
        if self._wait is None:
            self._pauses = self._pauses + 1 if self._since_pause <= 1 else 0
            self._since_pause = 0
        if self._pauses >= PAUSES_MAX:
            return False
        return self.gate.spent(heard.now, advertised.reset_s, heard.jitter)

    # --- the gate ---------------------------------------------------------------------------------

    @property
    def _blocked(self) -> bool:
        return self.gate.kind is not None

    def _watch(self, now: float) -> None:
        """
        See whether the gate has shut or opened since the last look.
        """
        kind = self.gate.kind
        if kind is not None:
            if self._wait is None:
                self._wait = _Wait(kind, now, self.gate.until() or now, self._overload, now)
                self._paused = True
                self._retake(now)
            else:
                self._wait.kind = kind
                self._wait.until = self.gate.until() or now
            return
        wait, self._wait = self._wait, None
        if wait is not None:
            self._opened(wait, now)

    def _opened(self, wait: _Wait, now: float) -> None:
        """
        A short wait was a matter of the pace. A long one measures a window, if it lasted as long as
        was told: what was accepted since the one before, or in the last minute, is its limit.
        """
        self._sent_at = now
        self._retake_at = now + TICK_S
        self._paced_s = 0.0
        if now - wait.since <= HINT_S_PROBED * (1 + JITTER / 2) or self._rate is None:
            return
        began, accepted = self._episode_at, self._accepted
        self._episode_at, self._accepted = now, 0
        if wait.kind is not FailureKind.THROTTLED or wait.overload:
            self._rate.resumed(now)
        elif now - began >= EPISODE_S_MIN and now > wait.until - HINT_S_NEWS:
            ended = wait.ended(now)
            self._rate.measured(max(accepted / (ended - began), self._recent.per_s(ended)), now)
        self._retake(now)

    # --- the pace ---------------------------------------------------------------------------------

    def _retake(self, now: float) -> None:
        """
        Let the rate grow by the time that was paced, and take pace and concurrency from it.
        """
        self._retake_at = now + TICK_S
        paced_s, self._paced_s = self._paced_s, 0.0
        if self._rate is not None:
            if not self._capped:
                self._rate.grow(paced_s)
            ceiling = self._advertised.per_s(self._rate.per_s, now)
            self._capped = ceiling < self._rate.per_s
            self._paced(max(FLOOR_PER_S, min(ceiling, self._rate.per_s)))
        self._concurrency.needed(self._per_s, self._latency.slow_s)

    def _paced(self, per_s: float) -> None:
        # A pause is no lateness: what is made good after it fills a window that is full.
        burst = 1.0 if self._paused else 1.0 + per_s * LATE_S / 4
        if self.pace is not None and (per_s, burst) == (self.pace.rate, self.pace.burst):
            return
        self._per_s = per_s
        self.gate.full_rate(per_s)
        if self._known.pace is not None and per_s >= self._ceiling:
            self.pace = self._known.pace
            return
        self.pace = Pace(per_s, burst)


def _begin(known: Known) -> Rate:
    """
    A configured limit is held at once, or within seconds where it is high; one that was met before
    is met again from a little below.
    """
    if known.pace is not None:
        return Rate(min(EASY_PER_S, known.pace.rate), ceiling=known.pace.rate)
    if known.learned_per_s is not None:
        return Rate(LEARNED_SHARE * known.learned_per_s, doubling=False)
    return Rate(FIRST_PER_S)
