from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import RateLimit
from batchrank.rehearsal.limits import (
    FixedWindow,
    Limit,
    LimitDial,
    LimitKind,
    SlidingWindow,
    TokenBucket,
    limit_of,
)

RATES = st.builds(RateLimit, st.integers(1, 20).map(float), st.sampled_from([0.1, 1.0, 3.0, 60.0]))
STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.03, 0.1, 0.5, 1.0, 7.0]), st.integers(1, 6)),
    min_size=1,
    max_size=80,
)
"""Pauses in seconds, and amounts."""

Steps = list[tuple[float, int]]
Admitted = list[tuple[float, int]]


def admitted(limit: Limit, steps: Steps) -> Admitted:
    """
    When which amounts were let through.
    """
    times = list(accumulate(pause for pause, _ in steps))
    through = []
    for now, (_, amount) in zip(times, steps, strict=True):
        if limit.wait_s(amount, now) <= 0:
            limit.take(amount, now)
            through.append((now, amount))
    return through


@given(RATES, STEPS)
def test_a_sliding_window_holds_wherever_it_begins(rate: RateLimit, steps: Steps) -> None:
    """
    In no span of the period's length is more than the limit admitted.
    """
    through = admitted(SlidingWindow(rate), steps)

    for begin, _ in through:
        span = [amount for at, amount in through if begin <= at < begin + rate.period_s]
        assert sum(span) <= rate.count


@given(RATES, STEPS)
def test_a_fixed_window_holds_in_each_of_its_windows(rate: RateLimit, steps: Steps) -> None:
    """
    In no window is more than the limit admitted.
    """
    through = admitted(FixedWindow(rate), steps)

    borders = [window * rate.period_s for window in range(int(600 / rate.period_s))]
    for begin, end in pairwise(borders):
        assert sum(n for at, n in through if begin <= at < end) <= rate.count


@given(RATES, st.integers(1, 30), STEPS)
def test_a_bucket_holds_its_size_and_what_flows_in(
    rate: RateLimit, burst: int, steps: Steps
) -> None:
    """
    In no span is more admitted than the bucket's size and what flows in meanwhile.
    """
    through = admitted(TokenBucket(rate, burst), steps)

    for first, (begin, _) in enumerate(through):
        for last in range(first, len(through)):
            span_s = through[last][0] - begin
            amount = sum(amount for _, amount in through[first : last + 1])
            assert amount <= burst + span_s * rate.per_s + 1e-6


@given(
    st.sampled_from(LimitKind),
    RATES,
    STEPS,
    st.integers(1, 30),
)
def test_the_wait_that_is_told_is_long_enough_and_no_longer(
    kind: LimitKind, rate: RateLimit, steps: Steps, amount: int
) -> None:
    """
    Whoever comes back after the wait is admitted; whoever comes sooner is not.
    """
    limit = limit_of(LimitDial(rate, kind))
    admitted(limit, steps)
    now = sum(pause for pause, _ in steps)

    wait_s = limit.wait_s(amount, now)

    if amount > rate.count:
        assert wait_s == inf
        return
    assert 0 <= wait_s <= rate.period_s + 1e-6
    if wait_s > 1e-3:
        assert limit.wait_s(amount, now + wait_s - 1e-3) > 0
    assert limit.wait_s(amount, now + wait_s + 1e-6) <= 1e-6


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(SlidingWindow, [10, 0, 10], id="sliding: nothing more within the period"),
        pytest.param(FixedWindow, [10, 10, 10], id="fixed: twice as much across a border"),
        pytest.param(TokenBucket, [10, 1, 10], id="bucket: what has flowed in"),
    ],
)
def test_how_the_kinds_differ(make: Callable[[RateLimit], Limit], expected: list[int]) -> None:
    """
    Twelve requests at 0.95, 1.05 and 2.05 s, with ten allowed a second: that is what passes.
    """
    limit = make(RateLimit(10, 1))

    passed = [len(admitted_at(limit, at, 12)) for at in (0.95, 1.05, 2.05)]

    assert expected == passed


def admitted_at(limit: Limit, now: float, tries: int) -> Admitted:
    """
    What is let through of single requests at one time.
    """
    through = []
    for _ in range(tries):
        if limit.wait_s(1, now) <= 0:
            limit.take(1, now)
            through.append((now, 1))
    return through


def test_asking_takes_nothing() -> None:
    """
    Only `take` counts: several limits can be asked first and taken from together.
    """
    limit = SlidingWindow(RateLimit(1, 1))

    assert [0.0, 0.0, 0.0] == [limit.wait_s(1, 0.0) for _ in range(3)]
