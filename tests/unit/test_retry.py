"""
What a failed attempt means, as a table: class, what happened before, next step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Failure, FailureKind, RejectKind
from batchrank.policy.retry import (
    BACKOFF_S_MAX,
    BAD_REPLY_STRIKES_MAX,
    FRESH,
    SENDS_MAX,
    UNKNOWN_STRIKES_MAX,
    Again,
    Halt,
    History,
    Reject,
    Rules,
    Split,
    Suspend,
    Verdict,
    verdict,
)
from tests.laws import law

K = FailureKind
kinds = st.sampled_from(K)
jitters = st.floats(0, 1)
RULES = Rules(throttled_s_max=21_600.0, can_split=True)


@dataclass(frozen=True)
class Row:
    """
    One row: what failed, how often which class failed on the slice so far, and the next step.
    """

    failure: Failure
    past: History
    expected: Verdict
    rules: Rules = RULES
    now: float = 0.0


def fails(kind: FailureKind, hint: float | None = None, *, too_large: bool = False) -> Failure:
    """
    A failure of a class.
    """
    return Failure(kind, "scripted", retry_after_s=hint, too_large=too_large)


ROWS = {
    "never sent, first time": Row(fails(K.NEVER_SENT), History(never_sent=1), Again(1.0)),
    "never sent, hundredth time": Row(fails(K.NEVER_SENT), History(never_sent=100), Again(20.0)),
    "never sent, out of other tries": Row(
        fails(K.NEVER_SENT), History(sends=90, unknown=9, bad_replies=9, never_sent=2), Again(2.0)
    ),
    "throttled, first time": Row(fails(K.THROTTLED), History(throttles=1), Again(1.0)),
    "throttled with a hint": Row(fails(K.THROTTLED, 30.0), History(throttles=9), Again(0.0)),
    "throttled with a hint of nothing": Row(
        fails(K.THROTTLED, 0.0), History(throttles=3), Again(4.0)
    ),
    "throttled, thousandth time, not for long": Row(
        fails(K.THROTTLED), History(throttles=1000, throttled_since=0.0), Again(20.0), now=21_600.0
    ),
    "throttled for too long": Row(
        fails(K.THROTTLED),
        History(throttles=7, throttled_since=0.0),
        Reject(RejectKind.THROTTLED),
        now=21_600.1,
    ),
    "throttled for too long, with a hint": Row(
        fails(K.THROTTLED, 30.0),
        History(throttles=7, throttled_since=50.0),
        Reject(RejectKind.THROTTLED),
        replace(RULES, throttled_s_max=10.0),
        now=60.1,
    ),
    "unknown, first time": Row(fails(K.UNKNOWN), History(1, unknown=1), Again(1.0)),
    "unknown, second time": Row(fails(K.UNKNOWN), History(2, unknown=2), Again(2.0)),
    "unknown, third time": Row(fails(K.UNKNOWN), History(3, unknown=3), Suspend()),
    "unknown, again after an amnesty": Row(fails(K.UNKNOWN), History(9, unknown=4), Suspend()),
    "unknown, out of sends": Row(
        fails(K.UNKNOWN), History(SENDS_MAX, unknown=1), Reject(RejectKind.UNKNOWN)
    ),
    "bad reply, first time": Row(fails(K.BAD_REPLY), History(1, bad_replies=1), Again(1.0)),
    "bad reply, second time": Row(
        fails(K.BAD_REPLY), History(2, bad_replies=2), Reject(RejectKind.BAD_REPLY)
    ),
    "bad reply, out of sends": Row(
        fails(K.BAD_REPLY), History(SENDS_MAX, bad_replies=1), Reject(RejectKind.BAD_REPLY)
    ),
    "bad group": Row(fails(K.BAD_GROUP), History(1), Reject(RejectKind.BAD_GROUP)),
    "bad group because too large": Row(fails(K.BAD_GROUP, too_large=True), History(1), Split()),
    "too large, but the model looks at all documents at once": Row(
        fails(K.BAD_GROUP, too_large=True),
        History(1),
        Reject(RejectKind.TOO_LARGE),
        replace(RULES, can_split=False),
    ),
    "fatal": Row(fails(K.FATAL), History(1), Halt()),
    "fatal, although too large": Row(fails(K.FATAL, too_large=True), History(1), Halt()),
}
"""Design D7, row by row, with the longest waits (a jitter of 1)."""


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items()])
def test_each_class_has_its_next_step(row: Row) -> None:
    """
    The table says what follows.
    """
    assert row.expected == verdict(row.failure, row.past, row.rules, row.now, jitter=1.0)


def test_the_table_names_every_class() -> None:
    """
    A new class of failure needs a row.
    """
    assert set(K) == {row.failure.kind for row in ROWS.values()}


@law(100)
@given(st.lists(st.tuples(kinds, st.none() | st.floats(0, 100)), max_size=80), jitters)
def test_nobody_is_asked_again_after_the_allowed_strikes(
    happened: list[tuple[FailureKind, float | None]], jitter: float
) -> None:
    """
    However failures follow each other: after three unknown outcomes, two bad replies, one bad group
    or sixty sends, there is no "again" over the same class; waits lie between 0 and 20 seconds.
    """
    past = FRESH
    for second, (kind, hint) in enumerate(happened):
        failure = fails(kind, hint)
        past = past.after(failure, float(second))
        step = verdict(failure, past, replace(RULES, throttled_s_max=50.0), float(second), jitter)

        struck = {K.UNKNOWN: UNKNOWN_STRIKES_MAX, K.BAD_REPLY: BAD_REPLY_STRIKES_MAX}
        counted = {K.UNKNOWN: past.unknown, K.BAD_REPLY: past.bad_replies}
        if isinstance(step, Again):
            free = kind in (K.NEVER_SENT, K.THROTTLED)
            assert free or (counted[kind] < struck[kind] and past.sends < SENDS_MAX)
            assert 0 <= step.wait_s <= BACKOFF_S_MAX


@law(100)
@given(st.lists(kinds, max_size=40))
def test_a_history_counts_what_may_have_been_billed(happened: list[FailureKind]) -> None:
    """
    Every attempt that reached the server and was not turned away for its rate is a send.
    """
    past = FRESH
    for kind in happened:
        past = past.after(fails(kind), 5.0)

    free = (K.THROTTLED, K.NEVER_SENT)
    assert sum(kind not in free for kind in happened) == past.sends
    assert happened.count(K.UNKNOWN) == past.unknown
    assert happened.count(K.BAD_REPLY) == past.bad_replies
    assert happened.count(K.THROTTLED) == past.throttles
    assert happened.count(K.NEVER_SENT) == past.never_sent


def test_throttling_is_timed_from_its_first_time() -> None:
    """
    The patience with throttling counts from the first throttle, also at the clock's zero.
    """
    past = FRESH
    for now in (0.0, 10.0, 20.0):
        past = past.after(fails(K.THROTTLED), now)

    assert 0.0 == past.throttled_since
    assert Reject(RejectKind.THROTTLED) == verdict(
        fails(K.THROTTLED), past, replace(RULES, throttled_s_max=19.0), 20.0, 0.5
    )


@pytest.mark.parametrize(
    ("strikes", "left"), [(0, 2), (1, 1), (2, 0), (9, 0)], ids=["none", "one", "both", "too many"]
)
def test_strikes_of_an_outage_are_taken_back(strikes: int, left: int) -> None:
    """
    Unknown outcomes are forgiven, sends are not: they may have been billed.
    """
    past = History(sends=5, unknown=2, bad_replies=1)

    assert History(sends=5, unknown=left, bad_replies=1) == past.forgiven(strikes)


@law(50)
@given(st.sampled_from([K.NEVER_SENT, K.THROTTLED, K.UNKNOWN, K.BAD_REPLY]), jitters)
def test_a_wait_is_drawn_between_nothing_and_its_bound(kind: FailureKind, jitter: float) -> None:
    """
    Full jitter: the wait is the bound times the jitter, which grows from 1 s by doubling to 20 s.
    """
    past = History(1, unknown=1, bad_replies=1, throttles=1, never_sent=1)

    assert Again(jitter * 1.0) == verdict(fails(kind), past, RULES, 0.0, jitter)


def test_waits_double_up_to_twenty_seconds() -> None:
    """
    1, 2, 4, 8, 16, 20, 20, ... seconds at most.
    """
    waits = [
        verdict(fails(K.NEVER_SENT), History(never_sent=n), RULES, 0.0, 1.0) for n in range(1, 9)
    ]

    assert [Again(float(s)) for s in (1, 2, 4, 8, 16, 20, 20, 20)] == waits
