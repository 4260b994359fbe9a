"""
What a request may cost: search units and tokens from texts' lengths, money from a price.

Owns the arithmetic of bills, in integers of 10^-9 US dollars. Estimates here never come out below
what a provider with the documented rule can charge (`most`) or above what it must (`least`). What
was really charged comes with the reply.

The rule for search units (Cohere's pricing page as quoted by others, Microsoft's documents): one
query with up to 100 documents is one unit; a document longer than 500 tokens, the query's tokens
included, counts as several.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from math import ceil

import msgspec

from batchrank.domain import CostSource, Price, RerankRequest, Usage, text_of

NANO = 1_000_000_000
DOCUMENTS_PER_UNIT = 100
TOKENS_PER_CHUNK = 500

BYTES_PER_TOKEN_MOST = 8.0
"""Hardly any text has longer tokens on the average: `least` counts with it."""


class Sizes(msgspec.Struct, frozen=True, gc=False):
    """
    How long the texts of one request are, in bytes of UTF-8.
    """

    query_bytes: int
    document_bytes: tuple[int, ...]


class Booking(msgspec.Struct, frozen=True, gc=False):
    """
    What one call is booked at, and how its cost is known. Search units are those of the reply, or
    the most it can be where that had to be reckoned anyway; 0 is "not known".
    """

    nano_usd: int
    source: CostSource
    search_units: int = 0


NOT_BILLED = Booking(0, CostSource.REPORTED)
"""A call that surely cost nothing."""


def sizes_of(request: RerankRequest) -> Sizes:
    """
    Measure a request's texts. An image counts nothing: its billing is not documented.
    """
    return Sizes(_bytes(request.query), tuple(_bytes(text_of(d)) for d in request.documents))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def units_least(sizes: Sizes) -> int:
    """
    The search units that a call of these sizes costs at least.
    """
    return max(1, ceil(len(sizes.document_bytes) / DOCUMENTS_PER_UNIT))


def units_most(sizes: Sizes) -> int:
    """
    The search units that it can cost at most: no token is shorter than one byte.
    """
    return units_of(sizes.query_bytes, sizes.document_bytes)


def units_of(query: float, documents: Sequence[float]) -> int:
    """
    The search units of one call whose texts have so many tokens.
    """
    return max(1, ceil(places(query, documents) / DOCUMENTS_PER_UNIT))


def places(query: float, documents: Sequence[float]) -> int:
    """
    How many documents those count as that have so many tokens.
    """
    if query + max(documents, default=0) <= TOKENS_PER_CHUNK:
        return len(documents)
    room = max(1.0, TOKENS_PER_CHUNK - query)
    return sum(
        1 if query + length <= TOKENS_PER_CHUNK else max(1, ceil(length / room))
        for length in documents
    )


def tokens_most(sizes: Sizes) -> int:
    """
    The tokens that a call can be billed at most: the query once for every document.
    """
    return sizes.query_bytes * len(sizes.document_bytes) + sum(sizes.document_bytes)


def tokens_least(sizes: Sizes) -> int:
    """
    The tokens that a call is billed at least: the query once.
    """
    return int((sizes.query_bytes + sum(sizes.document_bytes)) / BYTES_PER_TOKEN_MOST)


def nano_usd(dollars: float) -> int:
    """
    US dollars as the integer that ledgers add up.
    """
    return round(dollars * NANO)


def in_usd(nano_usd: float) -> float:
    """
    The inverse, for people and for reports: no ledger adds it up.
    """
    return nano_usd / NANO


def most(sizes: Sizes, price: Price | None) -> int:
    """
    What a call can cost at most, in 10^-9 USD; 0 without a price.
    """
    return _at(price, units_most(sizes), tokens_most(sizes))


def least(sizes: Sizes, price: Price | None) -> int:
    """
    What a call costs at least, in 10^-9 USD; 0 without a price.
    """
    return _at(price, units_least(sizes), tokens_least(sizes))


def _at(price: Price | None, units: float, tokens: float) -> int:
    if price is None:
        return 0
    if price.usd_per_search_unit is not None:
        return ceil(units * price.usd_per_search_unit * NANO)
    if price.usd_per_million_tokens is not None:
        return ceil(tokens * price.usd_per_million_tokens * NANO / 1_000_000)
    return 0


def booked(usage: Usage, request: RerankRequest, price: Price | None) -> Booking:
    """
    What to book for a call that was billed, or perhaps was: the best knowledge there is.

    The reported cost first, then reported units times the price, then the most it can be.
    """
    units = ceil(usage.search_units or 0)
    if usage.cost_usd is not None:
        return Booking(nano_usd(usage.cost_usd), CostSource.REPORTED, units)
    if price is None:
        return Booking(0, CostSource.UNKNOWN, units)
    if price.usd_per_search_unit is not None and usage.search_units is not None:
        return Booking(_at(price, usage.search_units, 0), CostSource.PRICED, units)
    if price.usd_per_million_tokens is not None and usage.total_tokens is not None:
        return Booking(_at(price, 0, usage.total_tokens), CostSource.PRICED, units)
    sizes = sizes_of(request)
    return Booking(most(sizes, price), CostSource.ESTIMATED, units or units_most(sizes))


# --- prices age -----------------------------------------------------------------------------------

PRICE_DAYS_MAX = 90
"""Vendors change prices without a word to their users; older ones have to be looked at again."""


def days_old(price: Price | None, today: date) -> int | None:
    """
    How many days ago *price* was seen, if that is too long; None if it is fresh enough, or if
    nobody says when.
    """
    if price is None or not price.as_of:
        return None
    days = (today - date.fromisoformat(price.as_of)).days
    return days if days > PRICE_DAYS_MAX else None


def about_age(price: Price | None, today: date) -> str:
    """
    The warning that *price* is too old to be relied on; "" if it is not.
    """
    days = days_old(price, today)
    if days is None:
        return ""
    return f"the price was seen {days} days ago: check it, and state it in [provider.price]"
