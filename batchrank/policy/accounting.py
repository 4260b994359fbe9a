"""
What calls come to when they are summed: by day, by model, by label, or all of them.

Owns the arithmetic of accounts, in integers of 10^-9 US dollars: entries that are added up in any
grouping lose nothing and count nothing twice. Reads no ledger and knows no word for people.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields


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


def as_paid(things: int, paid: int, nano_usd: int | None) -> int | None:
    """
    What so many *things* would have cost at the mean of those that were *paid* together with
    *nano_usd*, rounded; None if that is not known.
    """
    if not things:
        return 0
    if nano_usd is None or paid < 1:
        return None
    return (2 * things * nano_usd + paid) // (2 * paid)


def dollars(nano_usd: int, places: int = 0) -> str:
    """
    The amount as a decimal number, exactly: as many digits as it takes, and at least *places*.
    """
    whole, rest = divmod(abs(nano_usd), 1_000_000_000)
    digits = f"{rest:09}".rstrip("0").ljust(places, "0")
    return f"{'-' if nano_usd < 0 else ''}{whole}{'.' if digits else ''}{digits}"
