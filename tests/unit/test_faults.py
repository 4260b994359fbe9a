from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.rehearsal.faults import (
    HINTED,
    MANNERS,
    STATUSES,
    Fault,
    FaultRule,
    chance,
    decide,
    is_billed,
)
from batchrank.rehearsal.replies import AVAILABILITY, MESSAGES

SEEDS = st.integers(0, 2**64)
NUMBERS = st.integers(1, 10**9)


@given(SEEDS, NUMBERS, st.text(max_size=10))
def test_chances_are_fixed_and_lie_between_0_and_1(seed: int, number: int, what: str) -> None:
    """
    What looks random is a pure function of seed, call number and purpose.
    """
    drawn = chance(seed, number, what)

    assert 0 <= drawn < 1
    assert drawn == chance(seed, number, what)


def test_chances_are_even() -> None:
    """
    A tenth of many chances lies in each tenth, and those of two purposes are unrelated.
    """
    tenths = [0] * 10
    both = 0
    for number in range(10_000):
        drawn = chance(7, number, "a")
        tenths[int(drawn * 10)] += 1
        both += drawn < 0.1 and chance(7, number, "b") < 0.1

    assert all(900 <= count <= 1100 for count in tenths)
    assert 70 <= both <= 130


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param(FaultRule(Fault.DROP), set(), id="a rule that asks for nothing"),
        pytest.param(FaultRule(Fault.DROP, odds=1), set(range(1, 21)), id="always"),
        pytest.param(FaultRule(Fault.DROP, calls=((3, 3), (5, 7))), {3, 5, 6, 7}, id="spans"),
        pytest.param(FaultRule(Fault.DROP, calls=((19, inf),)), {19, 20}, id="to the end"),
    ],
)
def test_which_calls_a_rule_hits(rule: FaultRule, expected: set[int]) -> None:
    """
    Spans of call numbers include both ends; odds of 1 are every call.
    """
    hit = {number for number in range(1, 21) if decide(0, number, "q", [rule]) is rule.fault}

    assert expected == hit


def test_odds_are_kept_and_follow_the_seed() -> None:
    """
    Odds of 5 % hit about 5 % of the calls: the same ones with the same seed, others with another.
    """
    rules = [FaultRule(Fault.OVERLOADED, odds=0.05)]
    hits = [{n for n in range(1, 10_001) if decide(seed, n, "q", rules)} for seed in (1, 1, 2)]

    assert hits[0] == hits[1]
    assert 400 <= len(hits[0]) <= 600
    assert len(hits[0] & hits[2]) < 60


def test_two_rules_have_chances_of_their_own() -> None:
    """
    Two rules with the same odds do not hit the same calls; where both do, the first decides.
    """
    rules = [FaultRule(Fault.DROP, odds=0.5), FaultRule(Fault.NAN, odds=0.5)]
    met = [decide(0, number, "q", rules) for number in range(1, 2001)]

    assert 900 <= met.count(Fault.DROP) <= 1100
    assert 400 <= met.count(Fault.NAN) <= 600
    assert 400 <= met.count(None) <= 600


def test_a_query_can_be_poison() -> None:
    """
    A rule with a text hits every call whose query contains it, however often it comes.
    """
    rules = [FaultRule(Fault.SERVER, containing="poison")]

    assert [None, Fault.SERVER, Fault.SERVER] == [
        decide(0, number, query, rules)
        for number, query in ((1, "fine"), (2, "some poison"), (3, "some poison"))
    ]


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_has_its_place_in_the_tables(fault: Fault) -> None:
    """
    A fault with an error status has words (a redirect needs none) and does not withhold bytes.
    """
    assert (fault in STATUSES) == (fault in MESSAGES or fault is Fault.REDIRECT)
    assert not (fault in STATUSES and fault in MANNERS)
    assert fault not in HINTED or STATUSES[fault] in (429, 503)
    assert fault not in AVAILABILITY or AVAILABILITY[fault]["retryable"] == (fault in HINTED)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(200, True, id="served"),
        pytest.param(307, False, id="sent elsewhere"),
        pytest.param(400, False, id="refused"),
        pytest.param(408, False, id="not read in time"),
        pytest.param(429, False, id="throttled"),
        pytest.param(500, True, id="failed while at work"),
        pytest.param(502, True, id="upstream failed while at work"),
        pytest.param(503, False, id="not available"),
        pytest.param(524, True, id="upstream too slow"),
        pytest.param(529, False, id="overloaded"),
    ],
)
def test_what_is_on_the_bill(status: int, expected: bool) -> None:
    """
    What was worked on is billed, what was turned away is not.
    """
    assert expected == is_billed(status)
