"""
What calls use up, counted three ways at once: money, requests, search units.

Owns the arithmetic of such amounts and what "within" means: in every way at once. Integers
throughout, so that sums are exact; money is 10^-9 US dollars. Knows no cap and no price.
"""

from __future__ import annotations

from typing import Final

import msgspec

from batchrank.policy.billing import in_usd

COUNTED: Final = ("nano_usd", "requests", "search_units")
"""The ways of counting, as they are called here and in the tables."""


class Amount(msgspec.Struct, frozen=True, gc=False):
    """
    So much money, so many requests, so many search units.
    """

    nano_usd: int = 0
    requests: int = 0
    search_units: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.nano_usd + other.nano_usd,
            self.requests + other.requests,
            self.search_units + other.search_units,
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.nano_usd - other.nano_usd,
            self.requests - other.requests,
            self.search_units - other.search_units,
        )

    def times(self, count: int) -> Amount:
        """
        As much for each of *count* calls.
        """
        return Amount(self.nano_usd * count, self.requests * count, self.search_units * count)

    def share(self, of: int) -> Amount:
        """
        One of so many equal shares, rounded down.
        """
        return Amount(self.nano_usd // of, self.requests // of, self.search_units // of)

    def least(self, other: Amount) -> Amount:
        """
        Of each the smaller.
        """
        return Amount(*(min(getattr(self, name), getattr(other, name)) for name in COUNTED))

    def most(self, other: Amount) -> Amount:
        """
        Of each the larger.
        """
        return Amount(*(max(getattr(self, name), getattr(other, name)) for name in COUNTED))

    def within(self, cap: Amount) -> bool:
        """
        Tell whether none of it is more than *cap* has.
        """
        return (
            self.nano_usd <= cap.nano_usd
            and self.requests <= cap.requests
            and self.search_units <= cap.search_units
        )

    def beyond(self, cap: Amount) -> str:
        """
        What there is more of than in *cap*, the first of COUNTED; "" if it is within.
        """
        return next((n for n in COUNTED if getattr(self, n) > getattr(cap, n)), "")


def shown(counted: str, number: int) -> str:
    """
    For people: a *number* of what is *counted*, one of COUNTED.
    """
    if counted == "nano_usd":
        return f"${in_usd(number):,.4f}"
    return f"{number:,} {counted.replace('_', ' ')}"


NOTHING = Amount()
WITHOUT_END = Amount(2**62, 2**62, 2**62)
"""A cap that nothing reaches, and that SQLite and sums of a few can still hold."""
