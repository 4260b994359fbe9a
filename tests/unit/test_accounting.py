"""
Accounts add up: whatever the calls, and however they are told apart.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from batchrank.policy.accounting import Amounts, Entry, Paid, dollars, grouped, summed
from tests.laws import law

NAMES = ("day", "model", "label.team")

AMOUNTS = st.builds(
    Amounts,
    calls=st.integers(0, 10**7),
    search_units=st.integers(0, 10**7).map(float),
    total_tokens=st.integers(0, 10**12),
    nano_usd=st.integers(0, 10**16),
    calls_unknown=st.integers(0, 3),
)
ENTRIES = st.lists(
    st.builds(
        Entry, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["", "a", "b"])), AMOUNTS
    )
)


@law(200)
@given(ENTRIES)
def test_every_grouping_partitions_what_there_is(entries: list[Entry]) -> None:
    """
    Nothing is lost, nothing counts twice, and a coarser grouping is the sum of a finer one.
    """
    whole = summed(entries)

    for count in range(len(NAMES) + 1):
        for by in combinations(NAMES, count):
            groups = grouped(entries, by)
            assert whole == sum(groups.values(), Amounts())
            assert all(len(keys) == count for keys in groups)
    for model, amounts in grouped(entries, ("model",)).items():
        finer = grouped(entries, NAMES)
        assert amounts == sum((a for k, a in finer.items() if k[1:2] == model), Amounts())


def test_groups_come_in_the_order_of_their_keys() -> None:
    """
    Those that lack a key come first, under None.
    """
    days = ("2026-11-20", "2026-11-19")
    entries = [Entry({"day": day}, Amounts(calls=1)) for day in days] + [Entry({}, Amounts())]

    assert [(None,), ("2026-11-19",), ("2026-11-20",)] == list(grouped(entries, ("day",)))


def test_what_nobody_knows_is_not_nothing() -> None:
    """
    The cost of calls without a price is None; beside others it is theirs, and their number is told.
    """
    unknown = Amounts(calls=2, search_units=2.0, calls_unknown=2)
    known = Amounts(calls=1, nano_usd=5)

    assert unknown.known_nano_usd is None
    assert (5, 2) == ((unknown + known).known_nano_usd, (unknown + known).calls_unknown)
    assert 0 == Amounts(calls=3).known_nano_usd


def test_the_mean_of_what_was_paid_is_rounded_once() -> None:
    """
    Halves go up; without anything that was paid nobody knows.
    """
    assert (20, 4) == (Paid(5, 25, 10).for_groups(10), Paid(5, 25, 10).for_documents(10))
    assert (3, 2) == (Paid(2, 1, 5).for_groups(1), Paid(3, 1, 5).for_groups(1))
    assert (0, None) == (Paid().for_groups(0), Paid().for_groups(1))
    assert Paid(1, -1, 5).for_documents(1) is None
    assert Paid(3, 5, 7) == Paid(1, 2, 3).plus(Paid(2, 3, 4))


@law(200)
@given(st.integers(-(10**18), 10**18), st.integers(0, 9))
def test_an_amount_is_written_exactly(nano_usd: int, places: int) -> None:
    """
    Without an exponent or separators, and no digit is lost.
    """
    text = dollars(nano_usd, places)

    assert nano_usd == int(Decimal(text) * 10**9)
    assert set(text) <= set("-.0123456789")
    assert len(text.partition(".")[2]) >= places
