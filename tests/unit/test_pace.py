"""
The arithmetic of pacing: no window above a limit, hardly any time lost below it, first come first
served.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import RateLimit
from batchrank.policy.pace import HEADROOM, Pace, Turnstile, pace_of
from tests.laws import law

counts = st.one_of(st.integers(1, 20), st.integers(1, 100_000), st.floats(0.1, 5_000))
periods = st.sampled_from([0.1, 1.0, 10.0, 60.0, 3600.0, 86_400.0])
limits = st.builds(RateLimit, counts, periods)
gaps = st.lists(st.floats(0, 3), max_size=60)


class Bucket:
    """
    A leaky bucket as aiolimiter has it: it drains at the rate, and one more must fit in.
    """

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.level = 0.0
        self.at = 0.0

    def admitted(self, arrival: float) -> float:
        """
        When somebody who arrives then may leave.
        """
        at = max(arrival, self.at)
        level = max(0.0, self.level - (at - self.at) * self.pace.rate)
        wait = max(0.0, (level + 1 - self.pace.burst) / self.pace.rate)
        self.at, self.level = at + wait, max(0.0, level - wait * self.pace.rate) + 1
        return self.at


def heaviest(left: Sequence[tuple[float, float]], length: float) -> float:
    """
    The most that left (time, amount) in any half-open window of a length.
    """
    times = [at for at, _ in left]
    sums = list(accumulate((amount for _, amount in left), initial=0.0))
    most, start = 0.0, 0
    for stop, at in enumerate(times):
        while times[start] <= at - length * (1 - 1e-9):
            start += 1
        most = max(most, sums[stop + 1] - sums[start])
    return most


def slack(limit: RateLimit) -> float:
    """
    How far above a limit one window may come to lie.
    """
    return max(1.0, 0.02 * limit.count)


@pytest.mark.parametrize(
    ("limit", "rate", "burst"),
    [
        pytest.param(RateLimit(1, 60), 0.98 / 60, 1 + 0.98 / 60 * 0.02, id="one a minute"),
        pytest.param(RateLimit(1000, 1), 980, 1 + 19.6, id="a thousand a second"),
        pytest.param(RateLimit(1000, 60), 980 / 60, 1 + 980 / 60 * 0.02, id="a thousand a minute"),
        pytest.param(RateLimit(100, 0.01), 9800, 2 + 2, id="the period shorter than lateness"),
        pytest.param(RateLimit(0.5, 1), 0.49, 1 + 0.49 * 0.02, id="one in two seconds"),
    ],
)
def test_a_limit_has_a_pace(limit: RateLimit, rate: float, burst: float) -> None:
    """
    98 % of the limit as a rate, and a burst of one request and 20 ms, if the limit has room for it.
    """
    pace = pace_of(limit)

    assert pytest.approx(rate) == pace.rate
    assert pytest.approx(burst) == pace.burst


@law(150)
@given(limits)
def test_a_bucket_of_this_pace_fits_into_the_limit(limit: RateLimit) -> None:
    """
    What a bucket lets through in one period, rate x period + burst, is the limit and its slack; and
    one request always fits into it.
    """
    pace = pace_of(limit)

    assert pytest.approx(HEADROOM * limit.per_s) == pace.rate
    assert pace.rate * limit.period_s + pace.burst <= (limit.count + slack(limit)) * (1 + 1e-12)
    assert 1 <= pace.burst


@law(60)
@given(st.builds(RateLimit, st.integers(1, 400), st.sampled_from([0.5, 1.0, 60.0])), gaps)
def test_no_window_holds_more_than_the_limit_and_its_slack(
    limit: RateLimit, pauses: list[float]
) -> None:
    """
    Whenever requests come (at once, after pauses of some periods), no window of the period holds
    more than the limit + max(1, 2 %).
    """
    bucket = Bucket(pace_of(limit))
    arrivals = [p * limit.period_s for p in accumulate(pauses, initial=0.0)]
    arrivals = sorted([*arrivals, *[0.0] * int(limit.count), *[arrivals[-1]] * int(limit.count)])

    left = [(bucket.admitted(at), 1.0) for at in arrivals]

    assert heaviest(left, limit.period_s) <= limit.count + slack(limit) + 1e-6


@law(40)
@given(limits)
def test_a_source_that_never_ends_gets_98_percent(limit: RateLimit) -> None:
    """
    With somebody always waiting, all but the burst leaves at 0.98 x the limit.
    """
    pace = pace_of(limit)
    bucket = Bucket(pace)

    left = [bucket.admitted(0.0) for _ in range(400)]

    behind = max(0.0, 400 - pace.burst)
    assert pytest.approx(behind / (0.98 * limit.per_s), rel=1e-6) == left[-1]


# --- the turnstile --------------------------------------------------------------------------------

amounts = st.lists(st.integers(1, 3_000), min_size=1, max_size=60)


def passed(turnstile: Turnstile, asked: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """
    Who passes when: one after the other, each arriving at a time or when the one before has left.
    """
    left: list[tuple[float, float]] = []
    now = 0.0
    for arrival, amount in asked:
        now = turnstile.admit(amount, max(now, arrival))
        left.append((now, amount))
    return left


@law(100)
@given(limits, amounts, gaps)
def test_no_window_of_documents_holds_more_than_the_limit_its_slack_and_one_request(
    limit: RateLimit, held: list[int], pauses: list[float]
) -> None:
    """
    An amount may be larger than the limit itself; then one request is above it, never two.
    """
    arrivals = [p * limit.period_s for p in accumulate(pauses, initial=0.0)]
    asked = list(zip([*arrivals, *[arrivals[-1]] * len(held)], held, strict=False))

    left = passed(Turnstile(pace_of(limit)), asked)

    most = limit.count + slack(limit) + max(held)
    assert heaviest(left, limit.period_s) <= most * (1 + 1e-6)


@law(100)
@given(limits, amounts)
def test_documents_leave_first_come_first_served_at_the_mean_rate(
    limit: RateLimit, held: list[int]
) -> None:
    """
    Each waits for exactly what was booked before it; nobody overtakes, and nothing is lost.
    """
    turnstile = Turnstile(pace_of(limit))
    head_start = (turnstile.pace.burst - 1) / turnstile.pace.rate

    times = [at for at, _ in passed(turnstile, ((0.0, amount) for amount in held))]

    assert sorted(times) == times
    before = sum(held[:-1]) / turnstile.pace.rate
    assert pytest.approx(max(0.0, before - head_start), rel=1e-9) == times[-1]


@law(50)
@given(limits, st.floats(0, 100))
def test_a_pause_gives_no_credit_beyond_the_burst(limit: RateLimit, pause: float) -> None:
    """
    After however long a pause, no more leaves at once than the burst.
    """
    turnstile = Turnstile(pace_of(limit))
    turnstile.admit(1, 0.0)
    now = pause * limit.period_s + 2 / turnstile.pace.rate

    at_once = 0
    while turnstile.admit(1, now) == now:
        at_once += 1

    assert at_once <= turnstile.pace.burst + 1e-6


def test_nobody_leaves_before_they_came() -> None:
    """
    A clock far from zero is a clock like any other.
    """
    turnstile = Turnstile(Pace(rate=10, burst=1))

    assert 5e9 == turnstile.admit(5, 5e9)
    assert pytest.approx(5e9 + 0.4) == turnstile.admit(5, 5e9)


@law(60)
@given(st.lists(st.tuples(st.floats(0.2, 1000), st.integers(1, 30)), min_size=1, max_size=8))
def test_another_pace_keeps_what_is_booked_and_gives_no_burst(
    paces: list[tuple[float, int]],
) -> None:
    """
    Nobody leaves sooner after the one before than the pace of either allows.
    """
    turnstile = Turnstile(Pace(1000.0, 1.0))
    now, before = 0.0, 1000.0
    for rate, count in paces:
        turnstile.pace = Pace(rate, 1.0)
        for _ in range(count):
            left, now = now, turnstile.admit(1, now)
            assert now == 0.0 or now - left >= (1 - 1e-6) / max(before, rate)
            before = rate
