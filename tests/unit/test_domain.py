"""
The words everyone speaks: the set of positions against Python's own set, and a few small questions.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import PERHAPS_BILLED, FailureKind, Positions, RateLimit, SourceFile
from tests.laws import law

TOTAL = 75
places = st.integers(0, TOTAL - 1)
ranges = st.tuples(st.integers(0, TOTAL), st.integers(0, TOTAL))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), places),
        st.tuples(st.just("discard"), places),
        st.tuples(st.just("add_range"), ranges),
    ),
    max_size=30,
)


def carried_out(taken: list[tuple[str, object]]) -> tuple[Positions, set[int]]:
    """
    The same steps on both kinds of set.
    """
    ours, theirs = Positions(TOTAL), set[int]()
    for name, argument in taken:
        if isinstance(argument, tuple):
            ours.add_range(*argument)
            theirs.update(range(*argument))
        else:
            getattr(ours, name)(argument)
            getattr(theirs, name)(argument)
    return ours, theirs


@law(80)
@given(steps, ranges)
def test_positions_are_a_set(taken: list[tuple[str, object]], asked: tuple[int, int]) -> None:
    """
    After any steps it has the members, the size, the counts and the gaps of Python's set.
    """
    ours, theirs = carried_out(taken)

    start, stop = asked
    inside = range(start, stop)
    assert len(theirs) == len(ours)
    assert [p in theirs for p in range(TOTAL)] == [p in ours for p in range(TOTAL)]
    assert sum(p in theirs for p in inside) == ours.count(start, stop)
    assert [p for p in inside if p not in theirs] == list(ours.missing(start, stop))


@law(50)
@given(st.sets(places))
def test_positions_begin_with_their_members(members: set[int]) -> None:
    """
    What is given at the beginning is in it, once.
    """
    ours = Positions(TOTAL, [*members, *members])

    assert len(members) == len(ours)
    assert members == {p for p in range(TOTAL) if p in ours}


@law(50)
@given(steps, steps)
def test_sets_are_united_and_turned_around(
    one: list[tuple[str, object]], two: list[tuple[str, object]]
) -> None:
    """
    Into sets of their own, with the right size.
    """
    (ours, theirs), (other, others) = carried_out(one), carried_out(two)

    for made, wanted in (
        (ours.united(other), theirs | others),
        (ours.others(), set(range(TOTAL)) - theirs),
    ):
        made.add(0)
        made.discard(0)
        assert wanted - {0} == {p for p in range(TOTAL) if p in made}
        assert len(wanted - {0}) == len(made)
    assert len(theirs) == len(ours)


def test_a_set_of_nothing_is_empty_and_complete() -> None:
    """
    A source without groups has no position, and none that is missing.
    """
    nothing = Positions(0)

    assert 0 == len(nothing)
    assert [] == list(nothing.missing(0, 0))
    assert 0 == nothing.count(0, 0)


def test_ten_million_positions_take_a_bit_each() -> None:
    """
    Ten million are marked and counted as whole bytes, not one after the other.
    """
    many = Positions(10_000_000)
    many.add_range(3, 9_999_999)

    assert 9_999_996 == len(many)
    assert 9_999_996 == many.count(0, 10_000_000)
    assert [0, 1, 2, 9_999_999] == list(many.missing(0, 10_000_000))
    assert "<Positions 9999996 of 10000000>" == repr(many)


def test_a_position_beyond_the_last_is_a_mistake() -> None:
    """
    A set of 8 has no ninth: asking for it is a bug, and raises.
    """
    with pytest.raises(IndexError):
        Positions(8).add(8)


def test_what_may_have_been_billed_is_what_cannot_be_known() -> None:
    """
    Unknown outcomes and bad replies are booked as spent; nothing else that failed is.
    """
    assert {FailureKind.UNKNOWN, FailureKind.BAD_REPLY} == PERHAPS_BILLED


def test_a_limit_is_a_mean_rate() -> None:
    """
    A thousand a minute are sixteen and two thirds a second.
    """
    assert pytest.approx(16.6667, rel=1e-4) == RateLimit(1000, 60).per_s


def test_a_source_file_has_the_rows_of_its_row_groups() -> None:
    """
    The number of groups is the sum over row groups, and its repr does not list them.
    """
    file = SourceFile("a.parquet", 10, "ab", (3, 4))

    assert 7 == file.rows
    assert "row_groups" not in repr(file)
