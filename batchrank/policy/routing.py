"""
Which route a request takes: the first one that lets it through, or the one whose turn is next.

Owns what traffic does when a route lets nobody through, and when it comes back: in a chain the next
one takes over once the gate before it has been shut for so long that it is no hiccup, and what
stands before the one that carries the traffic is still asked by probes. Owns which refusals of a
route are for good. Where a route may not be asked at all (given up, or another model than the
group's), it stands in the list as None.

Knows no clock: a moment is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from batchrank.domain import Failure
from batchrank.policy.gate import Leave

SPENT_PROBE_S = 600.0
"""A credit is filled up by people: one call in ten minutes sees whether somebody has."""

SPENT_STATUSES = frozenset({402, 429})
"""With a failure that is fatal: the credit or the quota is spent, which may come back."""


class Strategy(StrEnum):
    """
    What several routes are for.
    """

    FAILOVER = "failover"
    SPREAD = "spread"


class View(NamedTuple):
    """
    A route at one moment.

    Attributes:
        leave: what it says to somebody who wants to send.
        away_at: while it lets nobody through, from when on others take over; else infinity.
        wake_at: when to ask again; infinity where somebody's coming home will tell.
        room: one more attempt may be under way.
        ready_at: when its pace lets the next one leave.
    """

    leave: Leave
    away_at: float
    wake_at: float
    room: bool
    ready_at: float


class Wait(NamedTuple):
    """
    No route now; ask again at *until*, or when something comes home. *full*: a slot is missing.
    """

    until: float
    full: bool = False


def choose(views: Sequence[View | None], strategy: Strategy, now: float) -> int | Wait:
    """
    The place of the route that is to be taken at *now*; where its `leave` says so, by a probe.
    """
    return (_first if strategy is Strategy.FAILOVER else _soonest)(views, now)


def _first(views: Sequence[View | None], now: float) -> int | Wait:
    until = float("inf")
    for place, view in enumerate(views):
        if view is None:
            continue
        if view.leave is not Leave.WAIT and view.room:
            return place
        if now < view.away_at:
            full = view.leave is not Leave.WAIT
            return Wait(until if full else min(until, view.wake_at, view.away_at), full)
        if view.leave is Leave.WAIT:
            until = min(until, view.wake_at)
    return Wait(until)


def _soonest(views: Sequence[View | None], _now: float) -> int | Wait:
    there = [(place, view) for place, view in enumerate(views) if view is not None]
    may = [(place, view) for place, view in there if view.leave is not Leave.WAIT]
    ready = [(place, view) for place, view in may if view.room]
    if not ready:
        until = min((v.wake_at for _, v in there if v.leave is Leave.WAIT), default=float("inf"))
        return Wait(until, bool(may))
    return min(ready, key=lambda one: (one[1].leave is not Leave.PROBE, one[1].ready_at, one[0]))[0]


def probe_again_s(failure: Failure) -> float:
    """
    After how many seconds a route that gave this fatal *failure* is probed; infinity for never.
    """
    return SPENT_PROBE_S if failure.status in SPENT_STATUSES else float("inf")
