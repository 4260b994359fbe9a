"""
What a run is going to cost: when a person has to agree, when an estimate does not hold, where a cap
ends it.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Call, CostSource, Ranked, Slice, Usage
from batchrank.events import Committed, CostStrayed
from batchrank.observe.watch import CostWatch
from batchrank.policy.course import GROUPS_TO_KNOW, Course, Estimate, has_strayed, needs_consent
from batchrank.testing import RecordingReporter
from tests.laws import law


@pytest.mark.parametrize(
    ("high", "cap_left", "asked"),
    [
        pytest.param(50.0, None, False, id="just what is allowed"),
        pytest.param(50.01, None, True, id="more"),
        pytest.param(500.0, 50.0, False, id="a cap that is nearer"),
        pytest.param(500.0, 60.0, True, id="a cap that is too far"),
        pytest.param(5.0, 600.0, False, id="little, under a high cap"),
    ],
)
def test_a_person_is_asked_where_more_may_be_spent(
    high: float, cap_left: float | None, asked: bool
) -> None:
    """
    The estimate's high end counts, unless a cap of the job's own comes first.
    """
    assert asked is needs_consent(high, cap_left, 50.0)


ESTIMATE = Estimate(1_000, 100, 1.0, 2.0)
"""A tenth to two tenths of a cent for a group."""


@pytest.mark.parametrize(
    ("groups", "a_group", "strayed"),
    [
        pytest.param(GROUPS_TO_KNOW, 0.00076, False, id="a quarter less, nearly"),
        pytest.param(GROUPS_TO_KNOW, 0.00074, True, id="less"),
        pytest.param(GROUPS_TO_KNOW, 0.00249, False, id="a quarter more, nearly"),
        pytest.param(GROUPS_TO_KNOW, 0.00251, True, id="more"),
        pytest.param(GROUPS_TO_KNOW - 1, 1.0, False, id="too early to tell"),
    ],
)
def test_an_estimate_is_doubted_when_enough_is_known(
    groups: int, a_group: float, strayed: bool
) -> None:
    """
    On both sides, a quarter beyond its range.
    """
    assert strayed is has_strayed(ESTIMATE, groups, groups * a_group)


def committed(start: int, count: int, nano: int, copies: int = 0) -> Committed:
    """
    So many groups with a call each, and copies for equal ones.
    """
    calls = tuple(
        Call(Slice(n, 0, 1), 1, 0.0, 0.1, None, None, Usage(), None, nano, CostSource.REPORTED)
        for n in range(start, start + count)
    )
    copied = range(10_000 + start, 10_000 + start + copies)
    return Committed(
        calls, tuple(Ranked(n, (0.5,), ()) for n in (*range(start, start + count), *copied))
    )


def test_a_cost_that_strays_is_told_once() -> None:
    """
    Of groups that somebody was called for: copies for equal groups make none cheaper.
    """
    heard = RecordingReporter()
    watch = CostWatch(heard, ESTIMATE)

    for start in range(0, 3 * GROUPS_TO_KNOW, 50):
        watch.report(committed(start, 50, 4_000_000, copies=200))

    (told,) = heard.of(CostStrayed)
    assert (GROUPS_TO_KNOW, 0.004, 0.001, 0.002) == (
        told.groups,
        told.usd,
        told.low_usd,
        told.high_usd,
    )
    assert 12 == len(heard.of(Committed))


def test_a_cost_within_the_range_is_not_worth_a_word() -> None:
    """
    However long the run is.
    """
    heard = RecordingReporter()
    watch = CostWatch(heard, ESTIMATE)

    for start in range(0, 2_000, 500):
        watch.report(committed(start, 500, 1_500_000, copies=1_000))

    assert [] == heard.of(CostStrayed)


def test_nothing_is_foretold_before_the_first_group() -> None:
    """
    What is spent is all that is known.
    """
    course = Course(1.0, 0.0, 0, 900, cap_usd=2.0)

    assert (1.0, None) == (course.at_end_usd, course.covered)


def test_a_cap_is_foretold_by_what_a_group_costs() -> None:
    """
    Groups that were done before this run count for nothing.
    """
    course = Course(3.0, 2.0, 200, 900, cap_usd=5.0)

    assert 12.0 == course.at_end_usd
    assert 200 == course.covered
    assert Course(3.0, 2.0, 200, 200, cap_usd=5.0).covered is None
    assert 0 == Course(6.0, 2.0, 200, 900, cap_usd=5.0).covered


money = st.floats(0, 1e6)


@law(60)
@given(money, money, st.integers(0, 10**6), st.integers(0, 10**7), st.none() | money)
def test_a_forecast_is_never_below_what_is_spent(
    before: float, now: float, groups: int, left: int, cap: float | None
) -> None:
    """
    And a cap never covers more than there is, nor fewer groups than none.
    """
    course = Course(before + now, now, groups, left, cap)

    assert course.at_end_usd >= before + now
    assert course.covered is None or 0 <= course.covered <= left
