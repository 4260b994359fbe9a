"""
A run in numbers: how far, how fast, what it will have cost, what is in the way.
"""

from __future__ import annotations

import math

import pytest

from batchrank.domain import (
    Call,
    CostSource,
    Empty,
    Failure,
    FailureKind,
    Outcome,
    Ranked,
    Rejected,
    RejectKind,
    Slice,
    Usage,
)
from batchrank.events import (
    Committed,
    GateOpened,
    GateShut,
    JobStarted,
    PartPublished,
    Stopping,
    Tick,
)
from batchrank.observe.pulse import Pulse


class Clock:
    """
    A clock that somebody turns.
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """
        What it shows.
        """
        return self.now


def started(total: int = 100, done: int = 0, cost_usd: float = 0.0, **more: int) -> JobStarted:
    """
    A job's beginning.
    """
    return JobStarted(
        job="nightly",
        model="v/m",
        total=total,
        target=more.get("target", total),
        done=done,
        rejected=0,
        concurrency_max=8,
        rate_per_s=None,
        cost_usd=cost_usd,
    )


def call(cost_usd: float = 0.001, failed: FailureKind | None = None, attempt: int = 1) -> Call:
    """
    One attempt.
    """
    failure = Failure(failed, "scripted") if failed else None
    cost = round(cost_usd * 1e9)
    return Call(
        Slice(0, 0, 1), attempt, 0.0, 0.1, failure, None, Usage(), None, cost, CostSource.REPORTED
    )


def committed(count: int, *calls: Call) -> Committed:
    """
    So many groups ranked, by so many calls.
    """
    return Committed(calls, tuple(Ranked(n, (0.5,), ()) for n in range(count)))


def begun(event: JobStarted) -> tuple[Pulse, Clock]:
    """
    A pulse that has heard the beginning.
    """
    clock = Clock()
    pulse = Pulse(clock)
    clock.now += 7.0  # reading the source is not the run
    pulse.report(event)
    return pulse, clock


def test_before_the_beginning_nothing_is_known() -> None:
    """
    No division by nothing, no time that never ends in a number.
    """
    pulse = Pulse(Clock())

    assert (0, 0, 0.0, math.inf) == (pulse.done, pulse.target, pulse.groups_per_s, pulse.left_s)
    assert (0.0, 0.0, None) == (pulse.cost_usd_now, pulse.cost_usd_at_end, pulse.paused)


def test_speed_is_that_of_the_last_minute() -> None:
    """
    While the run is younger, that of the whole run; after a pause it goes down to nothing.
    """
    pulse, clock = begun(started(10_000))

    clock.now += 10
    pulse.report(committed(50))
    assert 5.0 == pulse.groups_per_s

    clock.now += 50
    pulse.report(committed(550))
    assert 10.0 == pulse.groups_per_s

    clock.now += 30
    assert pytest.approx(550 / 60) == pulse.groups_per_s
    clock.now += 31
    assert 0.0 == pulse.groups_per_s


def test_time_left_comes_from_this_runs_own_speed() -> None:
    """
    Groups of earlier runs say nothing about how long the rest takes.
    """
    pulse, clock = begun(started(1000, done=600))

    clock.now += 20
    pulse.report(committed(100))

    assert (700, 100, 1000) == (pulse.done, pulse.done_now, pulse.target)
    assert pytest.approx(60.0) == pulse.left_s


def test_a_limited_run_ends_at_its_target() -> None:
    """
    With `--limit` the rest of the source is not waited for.
    """
    pulse, clock = begun(started(1000, target=100))

    clock.now += 10
    pulse.report(committed(50))

    assert pytest.approx(10.0) == pulse.left_s
    pulse.report(committed(70))
    assert 0.0 == pulse.left_s


def test_cost_at_the_end_on_resume() -> None:
    """
    What earlier runs cost is kept; the rest costs what this run's groups did.
    """
    pulse, clock = begun(started(1000, done=600, cost_usd=6.0))
    assert 6.0 == pulse.cost_usd_at_end

    clock.now += 10
    pulse.report(committed(100, *(call(0.02) for _ in range(100))))

    assert pytest.approx(8.0) == pulse.cost_usd_now
    assert pytest.approx(8.0 + 300 * 0.02) == pulse.cost_usd_at_end


def test_failed_calls_cost_groups_too() -> None:
    """
    A bad reply that was paid for is in the price of what is still to come.
    """
    pulse, clock = begun(started(4))
    clock.now += 1

    pulse.report(committed(2, call(), call(0.001, FailureKind.BAD_REPLY), call(attempt=2)))

    assert (3, 1, {"bad_reply": 1}) == (pulse.calls, pulse.repeated, dict(pulse.failures))
    assert pytest.approx(0.003 + 2 * 0.0015) == pulse.cost_usd_at_end


def test_every_kind_of_outcome_is_counted() -> None:
    """
    Rejects and empties are groups that are done.
    """
    pulse, _ = begun(started(10))
    outcomes: list[Outcome] = [
        Ranked(0, (), ()),
        Rejected(1, "q", RejectKind.FLAWED, ""),
        Empty(2),
        Empty(3),
    ]

    pulse.report(Committed((), tuple(outcomes)))

    assert {"ranked": 1, "rejected": 1, "empty": 2} == dict(pulse.outcomes)
    assert 4 == pulse.done


def test_a_pause_is_told_with_its_end_until_it_is_over() -> None:
    """
    The seconds that are left go down to nothing and not below.
    """
    pulse, clock = begun(started())

    pulse.report(GateShut("asked to wait 30 s", FailureKind.THROTTLED, 30.0))
    clock.now += 10
    assert ("asked to wait 30 s", 20.0) == pulse.paused
    clock.now += 60
    assert ("asked to wait 30 s", 0.0) == pulse.paused
    pulse.report(GateOpened())
    assert pulse.paused is None


def test_ticks_and_stops_are_taken_in() -> None:
    """
    What is under way, what waits, and why nothing more is sent.
    """
    pulse, _ = begun(started())

    pulse.report(Tick(in_flight=7, waiting=3))
    pulse.report(Stopping("stopped by SIGTERM", 7))
    pulse.report(PartPublished(0, "part-00000.parquet", 5, again=False))

    assert (7, 3, "stopped by SIGTERM") == (pulse.in_flight, pulse.waiting, pulse.stopping)


def test_a_day_without_groups_is_done_at_once() -> None:
    """
    Nothing to do takes no time and costs nothing.
    """
    pulse, clock = begun(started(0))
    clock.now += 1

    assert (0, 0, 0.0) == (pulse.done, pulse.target, pulse.cost_usd_at_end)
