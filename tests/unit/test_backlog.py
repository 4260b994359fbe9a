"""
What waits without a slot: due works in order, those out of tries, groups put together from slices.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Group, Ranked, Scored, Served, Slice
from batchrank.engine.backlog import Backlog, OpenGroup, Work
from batchrank.policy.capacity import Bounds
from batchrank.policy.retry import History
from batchrank.policy.slicing import requests
from tests.laws import law

BY = Served("m", "p")


def opened(position: int = 0, slices: int = 1) -> tuple[OpenGroup, list[Work]]:
    """
    A group that is asked about in so many slices of one candidate each.
    """
    group = Group(position, f"q{position}", "what", tuple(f"d{n}" for n in range(slices)))
    asked = requests(group, Bounds(1))
    held = OpenGroup(group, len(asked))
    return held, [Work(held, request) for request in asked]


def work(position: int = 0) -> Work:
    """
    The only slice of a group.
    """
    return opened(position)[1][0]


# --- what is due ----------------------------------------------------------------------------------


def test_nothing_is_due_where_nothing_waits() -> None:
    """
    An empty backlog is empty, and never due.
    """
    backlog = Backlog()

    assert 0 == len(backlog)
    assert backlog.take(math.inf) is None
    assert math.inf == backlog.next_due_at()
    assert not backlog.only_suspended


@law(80)
@given(st.lists(st.integers(0, 20), max_size=40), st.integers(0, 20))
def test_works_are_taken_when_due_the_longest_first(due: list[int], now: int) -> None:
    """
    Nobody before their time; of two that are due at once the one that was put first.
    """
    backlog = Backlog()
    works = [work(n) for n in range(len(due))]
    for one, at in zip(works, due, strict=True):
        backlog.put(one, at)

    taken = [taken.slice.position for taken in iter(lambda: backlog.take(now), None)]

    expected = sorted((at, n) for n, at in enumerate(due) if at <= now)
    assert [n for _, n in expected] == taken
    assert len(due) - len(taken) == len(backlog)
    assert min((at for at in due if at > now), default=math.inf) == backlog.next_due_at()


def test_what_waits_for_a_closed_group_is_dropped() -> None:
    """
    A group with an outcome is not asked about any more.
    """
    backlog = Backlog()
    closed, open_ = work(0), work(1)
    backlog.put(closed, 0.0)
    backlog.put(open_, 0.0)
    closed.of.closed = True

    assert open_ is backlog.take(0.0)
    assert 0 == len(backlog)


# --- out of tries ---------------------------------------------------------------------------------


def test_what_is_out_of_tries_waits_beside_the_heap() -> None:
    """
    It counts as waiting, and is never due by itself.
    """
    backlog = Backlog()
    backlog.suspend(work(), 1.0)

    assert 1 == len(backlog)
    assert backlog.only_suspended
    assert backlog.take(math.inf) is None

    backlog.put(work(1), 9.0)
    assert not backlog.only_suspended


def test_only_what_was_out_of_tries_before_others_were_answered_is_guilty() -> None:
    """
    An answer to what left later than the suspension says that the server is there.
    """
    backlog = Backlog()
    early, late = work(0), work(1)
    backlog.suspend(early, 10.0)
    backlog.suspend(late, 20.0)

    assert [] == backlog.convicted(10.0, "first")
    assert [early] == backlog.convicted(20.0, "first")
    assert [] == backlog.convicted(20.0, "first")
    assert [late] == backlog.convicted(20.1, "first")
    assert 0 == len(backlog)


def test_a_group_of_which_several_slices_are_guilty_is_rejected_once() -> None:
    """
    One final word on a group: its other slices go with it.
    """
    backlog = Backlog()
    _, slices = opened(5, slices=3)
    for one in [*slices, work(6)]:
        backlog.suspend(one, 1.0)

    guilty = backlog.convicted(2.0, "first")

    assert [5, 6] == [one.slice.position for one in guilty]
    assert 0 == len(backlog)


def test_a_group_that_was_rejected_meanwhile_is_not_convicted() -> None:
    """
    Its suspended slices are dropped without a word.
    """
    backlog = Backlog()
    one = work()
    backlog.suspend(one, 1.0)
    one.of.closed = True

    assert [] == backlog.convicted(2.0, "first")
    assert 0 == len(backlog)


def test_nobody_is_guilty_before_every_route_that_did_not_answer_has_answered_others() -> None:
    """
    What another route answers proves nothing of one that may be down.
    """
    backlog = Backlog()
    one = work()
    one.blamed |= {"first", "second"}
    backlog.suspend(one, 1.0)

    assert [] == backlog.convicted(2.0, "second")
    assert [] == backlog.convicted(1.0, "first")
    assert [one] == backlog.convicted(2.0, "first")


# --- amnesty --------------------------------------------------------------------------------------


def test_an_amnesty_takes_strikes_back_wherever_the_work_is() -> None:
    """
    Under way, in the heap, or out of tries; who was not struck keeps what they have.
    """
    backlog = Backlog()
    flying, waiting, suspended, other = (work(n) for n in range(4))
    for one in (flying, waiting, suspended, other):
        one.history = History(sends=3, unknown=3)
    backlog.put(waiting, 50.0)
    backlog.put(other, 50.0)
    backlog.suspend(suspended, 1.0)

    backlog.forgive({flying.slice: 1, waiting.slice: 2, suspended.slice: 3}, [flying], 7.0, "first")

    assert [2, 1, 0, 3] == [w.history.unknown for w in (flying, waiting, suspended, other)]
    assert [3] * 4 == [w.history.sends for w in (flying, waiting, suspended, other)]


def test_an_amnesty_gives_everybody_out_of_tries_another_one() -> None:
    """
    At once, whoever's strikes were taken back: the gate decides when they leave.
    """
    backlog = Backlog()
    suspended = [work(n) for n in range(3)]
    for one in suspended:
        backlog.suspend(one, 1.0)

    backlog.forgive({}, [], 7.0, "first")

    assert not backlog.only_suspended
    assert 7.0 == backlog.next_due_at()
    assert suspended == [backlog.take(7.0) for _ in range(3)]


def test_an_amnesty_is_for_those_who_blame_that_route() -> None:
    """
    Whoever waits for another one's word goes on waiting.
    """
    backlog = Backlog()
    ours, theirs = work(0), work(1)
    for one, blamed in ((ours, {"first", "second"}), (theirs, {"second"})):
        one.blamed |= blamed
        backlog.suspend(one, 1.0)

    backlog.forgive({}, [], 7.0, "first")

    assert ours is backlog.take(7.0)
    assert backlog.only_suspended
    assert {"second"} == backlog.blamed


def test_a_work_that_is_named_twice_is_forgiven_once() -> None:
    """
    Who is under way and out of tries at once gets each strike back once.
    """
    backlog = Backlog()
    one = work()
    one.history = History(unknown=3)
    backlog.suspend(one, 1.0)

    backlog.forgive({one.slice: 1}, [one], 7.0, "first")

    assert 2 == one.history.unknown


# --- groups ---------------------------------------------------------------------------------------


def test_a_group_is_ranked_when_its_last_slice_has_scores() -> None:
    """
    In whatever order they come; then it is closed.
    """
    held, slices = opened(slices=3)
    parts = [Scored(w.slice, (w.slice.start / 10,), BY) for w in slices]

    assert held.take(parts[2]) is None
    assert held.take(parts[0]) is None
    assert not held.closed
    whole = held.take(parts[1])

    assert isinstance(whole, Ranked)
    assert (0.0, 0.1, 0.2) == whole.scores
    assert held.closed


def test_slices_of_earlier_runs_count() -> None:
    """
    What is in the ledger already is put together with what comes now.
    """
    group = Group(0, "q", "what", ("a", "b"))
    held = OpenGroup(group, 1, [Scored(Slice(0, 0, 1), (0.5,), BY)])

    whole = held.take(Scored(Slice(0, 1, 2), (0.25,), BY))

    assert isinstance(whole, Ranked)
    assert (0.5, 0.25) == whole.scores


def test_two_works_are_equal_only_if_they_are_one() -> None:
    """
    Two attempts at the same slice are not the same work.
    """
    one, other = work(), work()

    assert one != other
    assert 2 == len({one, other})


def test_an_amnesty_of_thousands_is_quick() -> None:
    """
    A long heap is walked once, not once for each strike.
    """
    backlog = Backlog()
    works = [work(n) for n in range(4_000)]
    for one in works:
        one.history = History(unknown=1)
        backlog.suspend(one, 1.0)

    backlog.forgive({one.slice: 1 for one in works}, [], 2.0, "first")

    assert 0 == max(one.history.unknown for one in works)
    assert pytest.approx(2.0) == backlog.next_due_at()
