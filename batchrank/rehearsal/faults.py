"""
What goes wrong, and on which calls.

Owns the list of faults, what each does to a call, and the decision which one a call meets: a pure
function of the seed, the call's number and its query. Also the chances that everything else which
looks random is drawn from.

How a reply is spoiled is told in `replies`; how bytes are withheld, in `app`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from hashlib import blake2b


class Fault(StrEnum):
    """
    Everything that can go wrong, by the name that `--fault` calls it.
    """

    BAD_REQUEST = "400"
    NO_MODEL = "400-model-not-found"
    UNAUTHORIZED = "401"
    NO_CREDIT = "402"
    KEY_LIMIT = "403-key"
    MODERATION = "403-moderation"
    NOT_FOUND = "404"
    NO_ENDPOINTS = "404-no-endpoints"
    PRIVACY = "404-privacy-restricted"
    TIMED_OUT = "408"
    TOO_LARGE = "413"
    UNPROCESSABLE = "422"
    THROTTLED = "429"
    CAPACITY = "429-capacity-exhausted"
    QUOTA = "429-quota"
    SERVER = "500"
    BAD_GATEWAY = "502"
    UNAVAILABLE = "503"
    TEMPORARY = "503-temporarily-unavailable"
    GATEWAY_TIMEOUT = "504"
    EDGE_TIMEOUT = "524"
    OVERLOADED = "529"
    ECHO_KEY_ERROR = "echo-key-error"  # a 502 that repeats the key
    REDIRECT = "redirect"
    ERROR_IN_200 = "error-in-200"
    TIMEOUT = "timeout"  # never answers
    DROP = "drop"  # closes without a byte
    DROP_BODY = "drop-body"  # closes in the middle of the body
    SLOW_BODY = "slow-body"  # the body drips
    GARBAGE = "garbage"  # 200 with what is not JSON
    HTML = "html"  # 200 with a page for people
    NAN = "nan"  # the literal NaN for a score
    WRONG_ECHO = "wrong-echo"  # a result echoes another index's document
    SWAPPED = "swapped"  # two results exchange index and echo, not score: nobody can see it
    LEFT_OUT = "left-out"  # a result is missing
    DUPLICATE_INDEX = "duplicate-index"
    OUT_OF_RANGE = "out-of-range"
    OTHER_MODEL = "other-model"  # served by another model
    ECHO_KEY = "echo-key"  # a good reply whose id and provider repeat the key


STATUSES: Mapping[Fault, int] = {
    Fault.BAD_REQUEST: 400,
    Fault.NO_MODEL: 400,
    Fault.UNAUTHORIZED: 401,
    Fault.NO_CREDIT: 402,
    Fault.KEY_LIMIT: 403,
    Fault.MODERATION: 403,
    Fault.NOT_FOUND: 404,
    Fault.NO_ENDPOINTS: 404,
    Fault.PRIVACY: 404,
    Fault.TIMED_OUT: 408,
    Fault.TOO_LARGE: 413,
    Fault.UNPROCESSABLE: 422,
    Fault.THROTTLED: 429,
    Fault.CAPACITY: 429,
    Fault.QUOTA: 429,
    Fault.SERVER: 500,
    Fault.BAD_GATEWAY: 502,
    Fault.UNAVAILABLE: 503,
    Fault.TEMPORARY: 503,
    Fault.GATEWAY_TIMEOUT: 504,
    Fault.EDGE_TIMEOUT: 524,
    Fault.OVERLOADED: 529,
    Fault.ECHO_KEY_ERROR: 502,
    Fault.REDIRECT: 307,
}
"""The faults that answer with an error status; every other one begins as a 200."""

HINTED = frozenset({Fault.THROTTLED, Fault.CAPACITY, Fault.UNAVAILABLE, Fault.TEMPORARY})
"""The faults that say when to come back: OpenRouter documents it for 429 and 503."""


class Manner(Enum):
    """
    How the bytes of a reply come.
    """

    WHOLE = "whole"
    DRIPPING = "dripping"
    CUT = "cut"
    DROPPED = "dropped"
    HUNG = "hung"


MANNERS: Mapping[Fault, Manner] = {
    Fault.TIMEOUT: Manner.HUNG,
    Fault.DROP: Manner.DROPPED,
    Fault.DROP_BODY: Manner.CUT,
    Fault.SLOW_BODY: Manner.DRIPPING,
}
"""The faults of the wire; with every other one the reply comes whole."""


def is_billed(status: int) -> bool:
    """
    Tell whether a call that ends in *status* is on the bill.

    A request that was worked on is paid for, whatever became of its reply: 200, and errors of the
    server. A request that was turned away is not: 3xx, 4xx, 503, 529.
    """
    return status == 200 or (status >= 500 and status not in (503, 529))


@dataclass(frozen=True, slots=True)
class FaultRule:
    """
    Which calls meet a fault: those by chance, those in *calls*, those whose query contains a text.

    Attributes:
        odds: the share of calls, 0 to 1.
        calls: spans of call numbers, both ends included; numbers count arrivals from 1.
        containing: the text; such a call meets the fault every time, however often it is tried.
    """

    fault: Fault
    odds: float = 0.0
    calls: tuple[tuple[int, float], ...] = ()
    containing: str | None = None

    def hits(self, seed: int, number: int, query: str, draw: int) -> bool:
        """
        Tell whether the call meets the fault; *draw* tells this rule's chances from other rules'.
        """
        if any(first <= number <= last for first, last in self.calls):
            return True
        if self.containing is not None and self.containing in query:
            return True
        return self.odds > 0 and chance(seed, number, f"fault {draw}") < self.odds


def decide(seed: int, number: int, query: str, rules: Iterable[FaultRule]) -> Fault | None:
    """
    The fault that call *number* meets: that of the first rule which hits, or none.
    """
    for draw, rule in enumerate(rules):
        if rule.hits(seed, number, query, draw):
            return rule.fault
    return None


def chance(seed: int, number: int, what: str) -> float:
    """
    A number `0 <= x < 1` that looks random and is the same whenever it is asked for.
    """
    digest = blake2b(f"{seed}/{number}/{what}".encode(), digest_size=6).digest()
    return int.from_bytes(digest) / (1 << 48)
