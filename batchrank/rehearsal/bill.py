"""
What a call would have cost at the real service.

Owns the server's one guess: a token is four bytes of UTF-8. Everything else is `policy.billing`'s
rule, fed with those tokens, so that a client's own bounds hold for what is charged here. Money is
integers of 10^-9 US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from batchrank.domain import Price
from batchrank.policy import billing
from batchrank.providers.openrouter import OPENROUTER

BYTES_PER_TOKEN = 4

PRICE = Price(usd_per_search_unit=0.001, source="the rehearsal server")
"""What a model costs that is in no table."""

PRICES: Mapping[str, Price] = OPENROUTER.prices
"""What models cost unless the dial says otherwise."""


@dataclass(frozen=True, slots=True)
class Charge:
    """
    What one call costs. *nano_usd* is 10^-9 US dollars.
    """

    search_units: int
    total_tokens: int
    nano_usd: int


def tokens(text: str) -> int:
    """
    How many tokens a text has, by the server's guess; an empty one has none.
    """
    size = len(text) if text.isascii() else len(text.encode())
    return -(-size // BYTES_PER_TOKEN)


def charge(query: str, texts: Sequence[str], price: Price) -> Charge:
    """
    What it costs to rank *texts* for *query*: a document over 500 tokens, the query's included,
    counts as several.
    """
    # The rule asks for bytes because no token is shorter than one; here the tokens are known.
    sizes = billing.Sizes(tokens(query), tuple(map(tokens, texts)))
    return Charge(billing.units_most(sizes), billing.tokens_most(sizes), billing.most(sizes, price))
