"""
What calls come to when they are summed: by day, by model, by label, or all of them.

Owns the arithmetic of accounts, in integers of 10^-9 US dollars: entries that are added up in any
grouping lose nothing and count nothing twice. Reads no ledger and knows no word for people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from batchrank.policy.billing import NANO


@dataclass(frozen=True, slots=True)
class Amounts:
    """
    What some calls come to. Money is 10^-9 US dollars.

    Attributes:
        calls_failed: those that brought no scores.
        calls_repeated: those about a slice that had been asked about before.
        calls_probing: those that were sent alone while the others waited.
        candidates: those that calls brought scores of.
        nano_usd: all that is booked; reported by the reply, or its units times a price, or
            estimated because no reply told.
        nano_usd_failed: of it for calls that brought no scores, of groups that are not rejected.
        nano_usd_rejected: of it for groups that are rejected, slices that were scored included.
        calls_unknown: those that may have cost something, and nobody knows what; their units and
            tokens, as far as they were told. For these nothing is booked.
    """

    calls: int = 0
    calls_failed: int = 0
    calls_repeated: int = 0
    calls_probing: int = 0
    candidates: int = 0
    search_units: float = 0.0
    total_tokens: int = 0
    nano_usd: int = 0
    nano_usd_reported: int = 0
    nano_usd_priced: int = 0
    nano_usd_estimated: int = 0
    nano_usd_failed: int = 0
    nano_usd_rejected: int = 0
    calls_unknown: int = 0
    search_units_unknown: float = 0.0
    total_tokens_unknown: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(getattr(self, name) + getattr(other, name) for name in AMOUNTS))

    @property
    def known_nano_usd(self) -> int | None:
        """
        What they cost as far as it is known; None if nothing of it is, which is not 0.
        """
        return None if self.calls_unknown and not self.nano_usd else self.nano_usd

    @property
    def nano_usd_scored(self) -> int:
        """
        What the scores cost that serve.
        """
        return self.nano_usd - self.nano_usd_failed - self.nano_usd_rejected


AMOUNTS = tuple(field.name for field in fields(Amounts))


@dataclass(frozen=True, slots=True)
class Entry:
    """
    Calls that are alike in everything that they may be told apart by: *keys* by name.
    """

    keys: Mapping[str, str]
    amounts: Amounts


Keys = tuple[str | None, ...]


def grouped(entries: Iterable[Entry], by: Sequence[str]) -> dict[Keys, Amounts]:
    """
    Sum *entries* by the values of some keys, in their order; None stands for one that is missing.
    """
    sums: defaultdict[Keys, Amounts] = defaultdict(Amounts)
    for entry in entries:
        sums[tuple(entry.keys.get(name) for name in by)] += entry.amounts
    return {keys: sums[keys] for keys in sorted(sums, key=_in_order)}


def _in_order(keys: Keys) -> list[str]:
    return [key or "" for key in keys]


def summed(entries: Iterable[Entry]) -> Amounts:
    """
    All of *entries* in one.
    """
    return sum((entry.amounts for entry in entries), Amounts())


class Paid(NamedTuple):
    """
    So many groups, with so many documents, were scored for 10^-9 US dollars.
    """

    groups: int = 0
    documents: int = 0
    nano_usd: int = 0

    def plus(self, other: Paid) -> Paid:
        """
        Both in one.
        """
        return Paid(*(one + another for one, another in zip(self, other, strict=True)))

    def for_groups(self, count: int) -> int | None:
        """
        What so many groups would have cost at the mean of these, rounded; None if there are none.
        """
        return self._at_the_mean(count, self.groups)

    def for_documents(self, count: int) -> int | None:
        """
        The same for so many documents.
        """
        return self._at_the_mean(count, self.documents)

    def _at_the_mean(self, count: int, of: int) -> int | None:
        if not count:
            return 0
        return (2 * count * self.nano_usd + of) // (2 * of) if of > 0 else None


def dollars(nano_usd: int, places: int = 0) -> str:
    """
    The amount as a decimal number, exactly: as many digits as it takes, and at least *places*.
    """
    whole, rest = divmod(abs(nano_usd), NANO)
    digits = f"{rest:09}".rstrip("0").ljust(places, "0")
    return f"{'-' if nano_usd < 0 else ''}{whole}{'.' if digits else ''}{digits}"
