"""
What the server remembers: how many calls came and how they ended, the bill of every key, arrivals.

Owns the only state that outlives a call, and the form in which `/admin` shows it. A key stands here
as a short digest, never as itself. Money is integers of 10^-9 US dollars.

Memory is bounded: of arrivals the latest million are kept.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b

from batchrank.rehearsal.faults import Fault

ARRIVALS_MAX = 1_000_000
"""25 MB; after so many the oldest are forgotten."""

_FAULTS: tuple[Fault | None, ...] = (None, *Fault)
_FAULT_CODES = {fault: code for code, fault in enumerate(_FAULTS)}


def key_label(key: str) -> str:
    """
    What a key is called wherever it can be seen.
    """
    return "key-" + blake2b(key.encode(), digest_size=4).hexdigest()


@dataclass(slots=True)
class Bill:
    """
    What one key owes. *nano_usd* is 10^-9 US dollars.
    """

    calls: int = 0
    search_units: int = 0
    nano_usd: int = 0


class Arrivals:
    """
    A log of calls: when each came, what it asked, how it ended. Columns, the oldest overwritten.
    """

    def __init__(self, most: int = ARRIVALS_MAX) -> None:
        self._most = most
        self._numbers = array("Q")
        self._times = array("d")
        self._statuses = array("H")
        self._faults = array("B")
        self._digests = array("Q")
        self._added = 0

    def add(self, number: int, at_s: float, status: int, fault: Fault | None, body: bytes) -> None:
        """
        Remember a call, the moment its fate is decided; *status* 0 is no status at all.
        """
        digest = int.from_bytes(blake2b(body, digest_size=8).digest())
        code = _FAULT_CODES[fault]
        slot = self._added % self._most
        self._added += 1
        if slot == len(self._numbers):
            self._numbers.append(number)
            self._times.append(at_s)
            self._statuses.append(status)
            self._faults.append(code)
            self._digests.append(digest)
            return
        self._numbers[slot] = number
        self._times[slot] = at_s
        self._statuses[slot] = status
        self._faults[slot] = code
        self._digests[slot] = digest

    def columns(self) -> dict[str, list[object]]:
        """
        Everything remembered as columns of equal length, in no promised order.
        """
        return {
            "call": list(self._numbers),
            "at_s": list(self._times),
            "status": list(self._statuses),
            "fault": [_FAULTS[code] for code in self._faults],
            "digest": [f"{digest:016x}" for digest in self._digests],
        }


@dataclass(slots=True)
class Tally:
    """
    All counts since the server began or was reset; *questions* are those that are free.
    """

    calls: int = 0
    billed_calls: int = 0
    limit_refusals: int = 0
    concurrency_refusals: int = 0
    strays: int = 0
    questions: int = 0
    in_flight_max: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    by_fault: Counter[Fault] = field(default_factory=Counter)
    bills: dict[str, Bill] = field(default_factory=dict)
    arrivals: Arrivals = field(default_factory=Arrivals)

    def arrive(self, in_flight: int) -> int:
        """
        Count a call that has just come, one of *in_flight*; its number, from 1.
        """
        self.calls += 1
        self.in_flight_max = max(self.in_flight_max, in_flight)
        return self.calls

    def decided(
        self, number: int, at_s: float, status: int, fault: Fault | None, body: bytes
    ) -> None:
        """
        Count how a call ends.
        """
        self.by_status[status] += 1
        if fault:
            self.by_fault[fault] += 1
        self.arrivals.add(number, at_s, status, fault, body)

    def bill_of(self, key: str) -> Bill:
        """
        The bill of *key*, begun if there is none.
        """
        label = key_label(key)
        if label not in self.bills:
            self.bills[label] = Bill()
        return self.bills[label]

    def charge(self, bill: Bill, search_units: int, nano_usd: int) -> None:
        """
        Put one call on a bill.
        """
        self.billed_calls += 1
        bill.calls += 1
        bill.search_units += search_units
        bill.nano_usd += nano_usd

    def as_json(self) -> dict[str, object]:
        """
        The counts, for people and tests. Status 0 is a call that got none: dropped, hung, gone.
        """
        return {
            "calls": self.calls,
            "billed_calls": self.billed_calls,
            "by_status": {str(status): n for status, n in sorted(self.by_status.items())},
            "by_fault": {fault.value: n for fault, n in sorted(self.by_fault.items())},
            "bill": {
                label: {
                    "calls": bill.calls,
                    "search_units": bill.search_units,
                    "nano_usd": bill.nano_usd,
                }
                for label, bill in self.bills.items()
            },
            "in_flight_max": self.in_flight_max,
            "limit_refusals": self.limit_refusals,
            "concurrency_refusals": self.concurrency_refusals,
            "strays": self.strays,
            "questions": self.questions,
        }
