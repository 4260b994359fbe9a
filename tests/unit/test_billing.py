"""
What a call may cost: bounds that hold, the best knowledge first, integers throughout.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    CostSource,
    Document,
    Price,
    RerankRequest,
    RichDocument,
    Slice,
    Usage,
)
from batchrank.policy.billing import (
    NOT_BILLED,
    Booking,
    Sizes,
    booked,
    least,
    most,
    nano_usd,
    sizes_of,
    tokens_least,
    tokens_most,
    units_least,
    units_most,
)
from tests.laws import law

BY_UNIT = Price(usd_per_search_unit=0.001)
BY_TOKEN = Price(usd_per_million_tokens=0.02)

sizes = st.builds(
    Sizes,
    st.integers(0, 2_000),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=300).map(tuple),
)
prices = st.one_of(
    st.none(),
    st.builds(Price, usd_per_search_unit=st.floats(0, 10)),
    st.builds(Price, usd_per_million_tokens=st.floats(0, 10)),
    st.just(Price()),
)


def asking(query: str, *documents: Document) -> RerankRequest:
    """
    A request of these texts.
    """
    count = len(documents)
    return RerankRequest(Slice(0, 0, count), query, documents, tuple(range(count)))


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "length"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("abc", 3, id="ASCII"),
        pytest.param("Straße", 7, id="German"),
        pytest.param("日本", 6, id="Japanese"),
        pytest.param("🙂", 4, id="beyond the basic plane"),
        pytest.param("\ud83d", 3, id="half a surrogate pair"),
        pytest.param(RichDocument("é", None), 2, id="a structure with text"),
        pytest.param(RichDocument(None, "data:image/png;base64," + "A" * 999), 0, id="an image"),
        pytest.param(RichDocument("ab", "https://x/y.png"), 2, id="text and image"),
    ],
)
def test_lengths_are_bytes_of_utf_8(document: Document, length: int) -> None:
    """
    No token is shorter than a byte, in whatever script; what an image costs is not known.
    """
    assert Sizes(1, (length,)) == sizes_of(asking("q", document))


# --- bounds ---------------------------------------------------------------------------------------


@law(80)
@given(sizes, prices)
def test_the_least_is_never_above_the_most(held: Sizes, price: Price | None) -> None:
    """
    For every request and price; both are integers and not negative.
    """
    assert 1 <= units_least(held) <= units_most(held)
    assert 0 <= tokens_least(held) <= tokens_most(held)
    assert 0 <= least(held, price) <= most(held, price)
    assert {int} == {type(least(held, price)), type(most(held, price))}


@pytest.mark.parametrize(
    ("held", "low", "high"),
    [
        pytest.param(Sizes(10, (10,) * 100), 1, 1, id="a hundred short documents"),
        pytest.param(Sizes(10, (10,) * 101), 2, 2, id="one more than a hundred"),
        pytest.param(Sizes(10, (490,) * 100), 1, 1, id="query and document are 500 together"),
        pytest.param(Sizes(10, (491,) * 100), 1, 2, id="perhaps one token above 500"),
        pytest.param(Sizes(0, (1000,) * 100), 1, 2, id="two chunks each"),
        pytest.param(Sizes(600, (0,) * 150), 2, 2, id="images beside a long query"),
        pytest.param(Sizes(0, (0,)), 1, 1, id="nothing but an image"),
    ],
)
def test_search_units_by_the_documented_rule(held: Sizes, low: int, high: int) -> None:
    """
    One unit a hundred documents; documents of more than 500 tokens with their query count more.
    """
    assert (low, high) == (units_least(held), units_most(held))


@law(60)
@given(sizes, st.integers(0, 5_000))
def test_more_text_never_costs_less(held: Sizes, longer: int) -> None:
    """
    The most grows with every document and every byte.
    """
    more_documents = Sizes(held.query_bytes, (*held.document_bytes, longer))
    longer_one = Sizes(
        held.query_bytes, (held.document_bytes[0] + longer, *held.document_bytes[1:])
    )

    for price in (BY_UNIT, BY_TOKEN):
        assert most(held, price) <= min(most(more_documents, price), most(longer_one, price))


# --- money ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dollars", "nano"),
    [
        (0.001, 1_000_000),
        (0.0, 0),
        (1e-10, 0),
        (0.1 + 0.2, 300_000_000),
        (1234.5, 1_234_500_000_000),
    ],
)
def test_dollars_become_integers(dollars: float, nano: int) -> None:
    """
    Ledgers add integers of 10^-9 dollars: nothing is lost to fractions.
    """
    assert nano == nano_usd(dollars)


def test_nothing_costs_nothing_without_a_price() -> None:
    """
    Neither at least nor at most.
    """
    assert (0, 0) == (most(Sizes(1, (1,)), None), least(Sizes(1, (1,)), None))
    assert (0, 0) == (most(Sizes(1, (1,)), Price()), least(Sizes(1, (1,)), Price()))


@pytest.mark.parametrize(
    ("usage", "price", "expected"),
    [
        pytest.param(
            Usage(3, 700, 0.0042),
            BY_UNIT,
            Booking(4_200_000, CostSource.REPORTED, 3),
            id="reported goes before priced",
        ),
        pytest.param(
            Usage(3, 700, 0.0), BY_UNIT, Booking(0, CostSource.REPORTED, 3), id="reported as free"
        ),
        pytest.param(
            Usage(None, None, 0.002),
            None,
            Booking(2_000_000, CostSource.REPORTED),
            id="reported, no price known",
        ),
        pytest.param(
            Usage(3, 700),
            BY_UNIT,
            Booking(3_000_000, CostSource.PRICED, 3),
            id="units, priced",
        ),
        pytest.param(
            Usage(3, 700), BY_TOKEN, Booking(14_000, CostSource.PRICED, 3), id="tokens by the price"
        ),
        pytest.param(
            Usage(None, 700),
            BY_UNIT,
            Booking(1_000_000, CostSource.ESTIMATED, 1),
            id="tokens do not tell units",
        ),
        pytest.param(
            Usage(3, None),
            BY_TOKEN,
            Booking(80, CostSource.ESTIMATED, 3),
            id="units do not tell tokens",
        ),
        pytest.param(
            Usage(), BY_UNIT, Booking(1_000_000, CostSource.ESTIMATED, 1), id="nothing was said"
        ),
        pytest.param(Usage(), None, Booking(0, CostSource.UNKNOWN), id="nothing is known"),
        pytest.param(Usage(3, 700), None, Booking(0, CostSource.UNKNOWN, 3), id="no price"),
    ],
)
def test_the_best_knowledge_is_booked(usage: Usage, price: Price | None, expected: Booking) -> None:
    """
    Reported, else priced, else estimated at the most, else unknown.
    """
    assert expected == booked(usage, asking("q", "a", "b"), price)


@law(60)
@given(sizes, st.sampled_from([BY_UNIT, BY_TOKEN]))
def test_an_estimate_is_what_was_set_aside(held: Sizes, price: Price) -> None:
    """
    What is booked for an unknown outcome is the very amount that the budget had reserved.
    """
    request = asking("q" * held.query_bytes, *("d" * n for n in held.document_bytes[:9]))

    booking = booked(Usage(), request, price)

    held_most, units = most(sizes_of(request), price), units_most(sizes_of(request))
    assert Booking(held_most, CostSource.ESTIMATED, units) == booking


def test_what_surely_cost_nothing_is_no_estimate() -> None:
    """
    A request that was turned away is free, and known to be.
    """
    assert Booking(0, CostSource.REPORTED) == NOT_BILLED
