"""
The ledger's totals, as everybody who tells of an output or of its money reads them.

Owns the names that totals have in the ledger, and what is added up from them. Reads no call and
changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from batchrank.observe.report import RouteShare
from batchrank.policy.amounts import Amount
from batchrank.policy.billing import in_usd
from batchrank.store.reading import LOST, UNITS_ESTIMATED, LedgerReader, amount_of


@dataclass(frozen=True, slots=True)
class Account:
    """
    The ledger's running totals at one moment.
    """

    tally: Mapping[str, float]
    lost: Amount

    @classmethod
    def of(cls, ledger: LedgerReader) -> Account:
        """
        Take them down.
        """
        return cls(ledger.tally(), amount_of(LOST, ledger.meta()))

    def count(self, name: str) -> int:
        """
        One total as a whole number.
        """
        return int(self.tally.get(name, 0))

    @property
    def rejected(self) -> int:
        """
        Groups that are rejected.
        """
        return self.count("rejected")

    @property
    def done(self) -> int:
        """
        Groups that have an outcome.
        """
        return self.count("ranked") + self.rejected + self.count("empty")

    @property
    def calls(self) -> int:
        """
        Calls, however they ended.
        """
        return sum(int(v) for k, v in self.tally.items() if k in _CALLS)

    @property
    def calls_failed(self) -> dict[str, int]:
        """
        Failed calls by class.
        """
        return {kind: n for kind in _FAILED if (n := self.count(f"calls.{kind}"))}

    @property
    def routes(self) -> dict[str, RouteShare]:
        """
        What each way was asked and has cost, by its name, the busiest first.
        """
        prefix = "route.calls."
        names = [name.removeprefix(prefix) for name in self.tally if name.startswith(prefix)]
        shares = {name: self._share(name) for name in names}
        return dict(sorted(shares.items(), key=lambda one: -one[1].calls))

    def _share(self, name: str) -> RouteShare:
        calls, groups = (self.count(f"route.{what}.{name}") for what in ("calls", "groups"))
        return RouteShare(calls, groups, in_usd(self.count(f"route.cost_nano_usd.{name}")))

    @property
    def cost_nano_usd(self) -> int:
        """
        All that is booked, in 10^-9 US dollars.
        """
        return sum(self.count(f"cost_nano_usd.{source}") for source in _SOURCES)

    @property
    def calls_cost_unknown(self) -> int:
        """
        Calls that may have cost something, for which nothing is booked because no price is known.
        """
        return self.count("calls.cost_unknown")

    @property
    def lost_nano_usd(self) -> int:
        """
        What killed runs may have spent, beside that.
        """
        return self.lost.nano_usd

    @property
    def spent(self) -> Amount:
        """
        All that counts against the caps of the output: what is booked, and what may be lost.
        """
        units = self.tally.get("search_units", 0) + self.tally.get(UNITS_ESTIMATED, 0)
        requests = self.calls - self.count("calls.never_sent")
        return Amount(self.cost_nano_usd, requests, ceil(units)) + self.lost

    def spent_on(self, day: str) -> Amount:
        """
        What counts against a budget that jobs share, of one UTC day.
        """
        return amount_of(day, self.tally)

    @property
    def cost_usd_by_source(self) -> dict[str, float]:
        """
        The same by how it is known.
        """
        return {source: in_usd(self.count(f"cost_nano_usd.{source}")) for source in _SOURCES}


_FAILED = ("never_sent", "throttled", "unknown", "bad_reply", "bad_group", "fatal")
_CALLS = frozenset({"calls.ok", *(f"calls.{kind}" for kind in _FAILED)})
_SOURCES = ("reported", "priced", "estimated", "unknown")
