"""
Which days a backfill runs, in which order, and what the end of one means for the others.
"""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.errors import (
    AlreadyRunning,
    BatchrankError,
    ChangedError,
    Exit,
    JobError,
    NotReady,
    OutputError,
    SourceError,
    StorageError,
)
from batchrank.operate.backfill import (
    DAYS_MAX,
    Backfill,
    End,
    days,
    exit_code_of,
    keeps_all_from_it,
    stops_all,
)
from tests.laws import law

DAY = date(2026, 11, 1)


def ends(*codes: Exit | None, stopped_by: int | None = None) -> list[End]:
    """
    Days that ended so; the one at *stopped_by* stopped all.
    """
    return [
        End(DAY + timedelta(days=n), "out", "-", code, stops_all=n == stopped_by)
        for n, code in enumerate(codes)
    ]


# --- which days -----------------------------------------------------------------------------------


@given(st.dates(date(1, 1, 1), date(9999, 12, 31)), st.integers(1, DAYS_MAX))
@law(100)
def test_the_days_are_all_from_the_first_to_the_last(first: date, count: int) -> None:
    """
    Each once, in order, or the other way round.
    """
    count = min(count, (date.max - first).days + 1)
    last = first + timedelta(days=count - 1)

    found = days(first, last)

    assert (count, first, last) == (len(found), found[0], found[-1])
    assert all(after - before == timedelta(days=1) for before, after in pairwise(found))
    assert found[::-1] == days(first, last, newest_first=True)


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (DAY - timedelta(days=1), "--to: is 2026-10-31, before --from 2026-11-01"),
        (date(3026, 11, 1), "--from: 2026-11-01 to 3026-11-01 are 365,243 days"),
    ],
)
def test_no_day_or_too_many_are_a_mistake(last: date, words: str) -> None:
    """
    Of whoever typed them.
    """
    with pytest.raises(JobError, match=words):
        days(DAY, last)


# --- what an end means ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exit_code", "stops", "stops_if_kept_going"),
    [
        (Exit.DONE, False, False),
        (Exit.REJECTS, False, False),
        (Exit.USAGE, False, False),
        (Exit.PERSON, True, False),
        (Exit.STORAGE, True, True),
        (Exit.LATER, True, True),
        (Exit.BUG, True, True),
    ],
)
def test_a_days_own_data_stops_no_other_day(
    exit_code: Exit, stops: bool, stops_if_kept_going: bool
) -> None:
    """
    Whatever would meet the others, too, does.
    """
    assert stops == stops_all(exit_code, keep_going=False)
    assert stops_if_kept_going == stops_all(exit_code, keep_going=True)


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (SourceError("no such file"), False),
        (NotReady("not yet"), False),
        (OutputError("holds something else"), False),
        (ChangedError("begun with another model"), False),
        (AlreadyRunning("is being written"), True),
        (StorageError("disk"), True),
    ],
)
def test_what_keeps_a_day_from_beginning_mostly_concerns_it_alone(
    error: BatchrankError, stops: bool
) -> None:
    """
    But beside another runner a second one would send at twice the limit.
    """
    assert stops == keeps_all_from_it(error)


@pytest.mark.parametrize(
    ("found", "exit_code"),
    [
        pytest.param(ends(Exit.DONE, Exit.DONE), Exit.DONE, id="all done"),
        pytest.param(ends(Exit.DONE, Exit.USAGE, Exit.DONE), Exit.USAGE, id="one damaged"),
        pytest.param(ends(Exit.LATER, Exit.DONE), Exit.LATER, id="one not ready: try again"),
        pytest.param(ends(Exit.LATER, Exit.REJECTS), Exit.REJECTS, id="trying again heals not all"),
        pytest.param(ends(Exit.REJECTS, Exit.USAGE), Exit.USAGE, id="no scores at all"),
        pytest.param(ends(Exit.USAGE, Exit.PERSON), Exit.PERSON, id="kept going"),
        pytest.param(
            ends(Exit.USAGE, Exit.LATER, None, stopped_by=1),
            Exit.LATER,
            id="a signal: the rest wants another start, which tells the damage again",
        ),
        pytest.param(ends(Exit.PERSON, None, stopped_by=0), Exit.PERSON, id="the key"),
        pytest.param(ends(Exit.STORAGE, None, stopped_by=0), Exit.STORAGE, id="the disk"),
    ],
)
def test_one_exit_code_stands_for_all_days(found: list[End], exit_code: Exit) -> None:
    """
    What stopped them, else what needs the most.
    """
    assert exit_code is exit_code_of(found)


def test_the_words_are_a_line_a_day_and_one_for_all() -> None:
    """
    Nothing in them steers a terminal.
    """
    found = ends(Exit.DONE, Exit.USAGE, None)
    found[1] = End(DAY, "out", "refused", Exit.USAGE, "no\nfile \x1b[31m")

    text = Backfill("nightly", tuple(found), 1.25).as_text()

    assert [
        "2026-11-01  -",
        "2026-11-01  refused: no file \N{REPLACEMENT CHARACTER}[31m",
        "2026-11-03  -",
        "1 of 3 dates done; 0 calls for $0.0000 now, in 1.2 s",
    ] == text.splitlines()
