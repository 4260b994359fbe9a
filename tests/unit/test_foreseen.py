"""
The bill before it is paid: every bill the rule allows lies within, and what replies teach holds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import ceil, floor, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Group
from batchrank.policy import billing
from batchrank.policy.capacity import Bounds
from batchrank.policy.characters import tokens_between
from batchrank.policy.foreseen import (
    UNTAUGHT,
    Billed,
    Driver,
    Meter,
    Rule,
    Sums,
    Taught,
    middle_of,
    student,
    taught,
)
from batchrank.policy.slicing import TooLargeError, requests
from tests.laws import law

UNITS, TOKENS = Rule(by_units=True), Rule(by_units=False, query_each=True)

texts = st.text(alphabet="ab 1é日д", min_size=1, max_size=3000)
rules = st.builds(Rule, st.booleans(), st.sampled_from([None, True, False]), st.just(Bounds()))


def metered(rule: Rule, query: str, documents: Sequence[str]) -> Meter:
    """
    A meter that has seen one group.
    """
    meter = Meter(rule)
    meter.add(query, documents)
    return meter


# --- one group ------------------------------------------------------------------------------------


def test_what_another_way_takes_less_of_is_cut_again() -> None:
    """
    Forty are three requests of the first way, and two for each of these by one that takes ten.
    """
    first, second = Bounds(documents_max=15), Bounds(documents_max=10)

    assert 4 == metered(Rule(True, bounds=second), "q", ["d"] * 40).units.high
    assert 6 == metered(Rule(True, bounds=second, before=first), "q", ["d"] * 40).units.high
    assert 4 == metered(Rule(True, before=second), "q", ["d"] * 40).units.high


@law(60)
@given(texts, st.lists(texts, min_size=1, max_size=30), st.floats(0, 1), rules)
def test_whoever_counts_between_the_least_and_the_most_bills_between_them(
    query: str, documents: list[str], place: float, rule: Rule
) -> None:
    """
    With the words of `billing`, which knows nothing of estimates. Tokens are whole.
    """
    between = [tokens_between(text) for text in (query, *documents)]
    asked, *sent = (min(floor(length.high), ceil(length.at(place))) for length in between)
    sizes = billing.Sizes(asked, tuple(sent))
    meter = metered(rule, query, documents)
    each, once = billing.tokens_most(sizes), asked + sum(sent)
    could_be = {True: (each,), False: (once,), None: (each, once)}[rule.query_each]

    assert meter.units.low <= billing.units_most(sizes) <= meter.units.high
    for billed in could_be:
        assert meter.tokens.low - 1e-6 <= billed <= meter.tokens.high + 1e-6


@pytest.mark.parametrize(
    ("count", "documents_max", "units"),
    [
        (1, None, 1),
        (100, None, 1),
        (101, None, 2),
        (350, None, 4),
        (350, 100, 4),
        (100, 32, 4),
        (250, 130, 3),
    ],
)
def test_short_documents_cost_a_unit_for_each_hundred_of_a_request(
    count: int, documents_max: int | None, units: int
) -> None:
    """
    Exactly: no tokens decide. A request has units of its own.
    """
    rule = Rule(by_units=True, bounds=Bounds(documents_max, hundreds=True))

    meter = metered(rule, "what", ["short"] * count)

    assert (units, units) == (meter.units.low, meter.units.high)


@law(60)
@given(
    texts,
    st.lists(texts, min_size=1, max_size=12),
    st.integers(1000, 40_000) | st.none(),
    st.integers(500, 20_000) | st.none(),
    st.booleans(),
)
def test_requests_are_counted_as_a_run_cuts_them(
    query: str, documents: list[str], bytes_max: int | None, tokens_max: int | None, splits: bool
) -> None:
    """
    By bytes and tokens too, each with units of its own; what is too large costs nothing.
    """
    bounds = Bounds(5, bytes_max, tokens_max, splits=splits or not (bytes_max or tokens_max))
    meter = metered(Rule(by_units=True, bounds=bounds), query, documents)
    try:
        asked = requests(Group(0, 0, query, (*documents,)), bounds)
    except TooLargeError:
        assert (0, 1, 0) == (meter.groups, meter.too_large, meter.billed.high)
        return

    assert (len(asked), 0) == (meter.requests.middle, meter.too_large)
    tokens = {text: floor(tokens_between(text).high) for text in (query, *documents)}
    billed = [
        billing.Sizes(tokens[query], tuple(tokens[str(d)] for d in one.documents)) for one in asked
    ]
    assert len(asked) <= meter.units.low <= sum(map(billing.units_most, billed))
    assert sum(map(billing.units_most, billed)) <= meter.units.high


def test_a_query_that_counts_once_a_request_counts_in_each() -> None:
    """
    Where bytes cut a group it is paid once for each piece.
    """
    bounds = Bounds(bytes_max=3000)
    rule = Rule(by_units=False, query_each=False, bounds=bounds)
    query, documents = "q" * 400, [f"{n}" + "d" * 250 for n in range(20)]
    whole = metered(Rule(by_units=False, query_each=False), query, documents)
    cut = metered(rule, query, documents)

    more = tokens_between(query).low * (cut.requests.low - 1)
    assert 1 < cut.requests.low
    assert whole.tokens.low + more == pytest.approx(cut.tokens.low)


def test_a_document_that_may_be_too_long_leaves_the_bill_open() -> None:
    """
    2,200 letters are 440 to 573 tokens: one chunk or two.
    """
    meter = metered(UNITS, "what", ["x" * 2200] * 60)

    assert (1, 2) == (meter.units.low, meter.units.high)


# --- what drives it -------------------------------------------------------------------------------


def drivers(rule: Rule, *documents: str, query: str = "what") -> dict[Driver, float]:
    """
    The drivers of one group's bill that are there.
    """
    return {name: n for name, n in metered(rule, query, documents).drivers.items() if n}


def test_each_driver_is_what_would_not_be_paid_without_it() -> None:
    """
    In search units; what nobody fills is a share of one.
    """
    short = [f"short {n}" for n in range(250)]
    long = [f"{n}" + "x" * 4000 for n in range(60)]

    assert {Driver.VACANT: 0.88} == pytest.approx(drivers(UNITS, *short[:12]))
    assert {Driver.CANDIDATES: 2, Driver.VACANT: 0.5} == pytest.approx(drivers(UNITS, *short))
    assert {Driver.LONG: 1, Driver.VACANT: 0.8} == pytest.approx(drivers(UNITS, *long))
    assert {Driver.REPEATED: 1, Driver.CANDIDATES: 1, Driver.VACANT: 0.98} == pytest.approx(
        drivers(UNITS, *short[:51], *short[:51])
    )


def test_the_drivers_of_tokens_are_tokens() -> None:
    """
    Queries that count again, documents beyond a hundred, and what is longer than 500 tokens.
    """
    found = drivers(TOKENS, *("b" * 100 + str(n) for n in range(150)), "y" * 4000, query="q" * 40)

    query = tokens_between("q" * 40).at(0.5)
    assert query * 150 == pytest.approx(found[Driver.QUERIES])
    beyond = tokens_between("y" * 4000).at(0.5) + 50 * tokens_between("b" * 100 + "100").at(0.5)
    assert beyond + 51 * query == pytest.approx(found[Driver.CANDIDATES], rel=0.01)
    assert tokens_between("y" * 4000).at(0.5) - (500 - query) == pytest.approx(found[Driver.LONG])
    assert {Driver.QUERIES, Driver.CANDIDATES, Driver.LONG} == found.keys()
    once = Rule(by_units=False, query_each=False)
    assert Driver.QUERIES not in drivers(once, "a", "b")


# --- what replies teach ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("freedom", "t"),
    [(1, 63.657), (4, 4.604), (5, 4.032), (9, 3.250), (20, 2.845), (49, 2.680), (10_000, 2.576)],
)
def test_student_is_as_in_the_tables(freedom: int, t: float) -> None:
    """
    Two-sided, 99 %.
    """
    assert t == pytest.approx(student(freedom), rel=0.006)


def test_too_few_calls_teach_nothing() -> None:
    """
    Neither do calls of which nothing was open.
    """
    assert UNTAUGHT == taught([])
    assert UNTAUGHT == taught([Billed(1, 2, 1.5)])
    assert UNTAUGHT == taught([Billed(1, 1, 1)] * 50)


def test_bills_that_agree_narrow_it_down_no_further_than_their_number_allows() -> None:
    """
    What fifty calls have not shown may be true of six in a hundred.
    """
    found = taught([Billed(100, 200, 150)] * 50)

    assert (0.44, 0.5, 0.56) == pytest.approx((found.low, found.likely, found.high))
    assert found.by_rule


def test_the_average_of_a_sample_is_as_sure_as_its_number_allows() -> None:
    """
    One group says nothing about others.
    """
    mean, doubt = middle_of([Billed(n, n + 2, 0) for n in range(50)])

    assert (25.5, inf) == (mean, middle_of([Billed(1, 2, 1)])[1])
    assert student(49) * 14.577 / 50**0.5 == pytest.approx(doubt, rel=1e-3)
    assert (2.0, 0.0) == middle_of([Billed(1, 3, 2)] * 9)


def test_bills_beyond_the_rule_are_followed() -> None:
    """
    A price that is twice what is known: the factor is 2, whatever the estimate said.
    """
    found, bounds = taught([Billed(n, n, 2 * n) for n in range(1, 51)]), Sums()
    bounds.add(1000, 1000)

    assert not found.by_rule
    assert (1880, 2000, 2120) == pytest.approx(found.applied(bounds))


def test_without_a_lesson_the_bill_is_as_open_as_the_rule() -> None:
    """
    From the least to the most.
    """
    bounds = Sums()
    bounds.add(10, 30)

    assert (10, 20, 30) == UNTAUGHT.applied(bounds)


Population = Callable[[random.Random], Billed]


def even(chance: random.Random) -> Billed:
    """
    Tokens of groups of all sizes, counted by one tokenizer.
    """
    size = chance.lognormvariate(6, 1)
    return Billed(0.8 * size, 1.3 * size, size * chance.gauss(1, 0.03))


def two_scripts(chance: random.Random) -> Billed:
    """
    A tenth of the groups is counted otherwise.
    """
    size, where = chance.uniform(10, 1000), 0.1 if chance.random() < 0.1 else 0.6
    return Billed(0.5 * size, 1.5 * size, (0.5 + where) * size)


def some_open(chance: random.Random) -> Billed:
    """
    Search units, of which a fifth are open, and seldom the most.
    """
    if chance.random() < 0.8:
        return Billed(1, 1, 1)
    return Billed(1, 2, 1 + (chance.random() < 0.15))


def rarely_dear(chance: random.Random) -> Billed:
    """
    One group in a hundred is open at all.
    """
    return Billed(1, 9, chance.randint(1, 9)) if chance.random() < 0.01 else Billed(1, 1, 1)


def another_price(chance: random.Random) -> Billed:
    """
    Units as the rule says, at a price that differs by call.
    """
    units = chance.choice((1, 1, 1, 2))
    return Billed(units, units, units * chance.choice((1.5, 1.5, 2.0)))


@pytest.mark.parametrize("draw", [even, two_scripts, some_open, rarely_dear, another_price])
def test_a_sample_is_right_about_the_rest(draw: Population) -> None:
    """
    Of a hundred jobs of a thousand groups each hardly one is billed outside of what fifty of its
    calls have said.
    """
    chance, held = random.Random(7), 0
    for _ in range(100):
        groups = [draw(chance) for _ in range(1000)]
        low, _, high = _applied(taught(groups[:50]), groups[50:])
        held += low <= sum(group.billed for group in groups[50:]) <= high

    assert held >= 97


def _applied(lesson: Taught, groups: Sequence[Billed]) -> tuple[float, float, float]:
    bounds = Sums()
    for group in groups:
        bounds.add(group.low, group.high)
    return lesson.applied(bounds)
