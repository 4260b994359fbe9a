"""
The fate of every call: decided at once and in one place, when the request has been read.

Owns the order of checks (key, request, model, limits, concurrency, fault, credit), the limits that
are being held, and the tally. A call is on the bill from the moment it is accepted, whatever
becomes of its reply. The same request always gets the same scores; the same call number, with the
same seed, the same latency and fault.

Sends nothing and waits for nothing: `app` carries out what is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from math import ceil, floor, inf

from batchrank.policy.billing import nano_usd
from batchrank.rehearsal import replies, telling
from batchrank.rehearsal.asked import Asked, Refused, read
from batchrank.rehearsal.bill import PRICE, PRICES, Charge, charge
from batchrank.rehearsal.dialects import DIALECTS, OPENROUTER, Dialect
from batchrank.rehearsal.dials import Dials, RetryAfter
from batchrank.rehearsal.faults import (
    HINTED,
    MANNERS,
    STATUSES,
    Fault,
    Manner,
    chance,
    decide,
    is_billed,
)
from batchrank.rehearsal.limits import Limit, LimitDial, limit_of
from batchrank.rehearsal.replies import JSON_TYPE, Headers
from batchrank.rehearsal.scorers import Score
from batchrank.rehearsal.tally import Bill, Tally, key_label

HINT_S = 1.0
"""How long a 429 or 503 that is a fault asks to stay away; one of a limit knows better."""

ABSURD = (b"999999999", b"-5", b"NaN", b"1e400", b"soon", b"")
"""What an absurd Retry-After says, by turns."""


@dataclass(frozen=True, slots=True)
class Call:
    """
    A call as it came.

    *number* counts arrivals from 1, *at_s* is when by the desk's clock, *in_flight* how many were
    under way when its fate was asked for, itself included. Header names are in lower case. The
    *body* is in the tongue of *dialect*.
    """

    number: int
    at_s: float
    in_flight: int
    headers: Mapping[bytes, bytes]
    body: bytes
    dialect: Dialect = DIALECTS[OPENROUTER]


@dataclass(frozen=True, slots=True)
class Fate:
    """
    What becomes of a call: the reply, when it comes, and whether it comes whole. Status 0 is none.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = (JSON_TYPE,)
    fault: Fault | None = None
    manner: Manner = Manner.WHOLE
    wait_s: float = 0.0


GONE = Fate(0)
"""The caller left before the request was complete."""


class Desk:
    """
    Decides, and remembers. *dials* may be turned at any time.

    Attributes:
        tally: every count since the last reset.
    """

    def __init__(
        self,
        dials: Dials,
        score: Score,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tally = Tally()
        self.clock = clock
        self._score = score
        self._dials = dials
        self._limits = _limits_of(dials)

    @property
    def dials(self) -> Dials:
        """
        What holds now.
        """
        return self._dials

    @dials.setter
    def dials(self, dials: Dials) -> None:
        # A limit that stays keeps what it has counted: turning another dial is no fresh start.
        if _limits_dialled(dials) != _limits_dialled(self._dials):
            self._limits = _limits_of(dials)
        self._dials = dials

    def reset(self) -> None:
        """
        Forget every call; limits start afresh, dials stay.
        """
        self.tally = Tally()
        self._limits = _limits_of(self._dials)

    def fate(self, call: Call) -> Fate:
        """
        Decide what becomes of a call that has been read.
        """
        if call.dialect.words is None:
            return self._decided(call)
        decided = self._decided(replace(call, body=call.dialect.asked(call.body)))
        body, headers = call.dialect.answered(decided.status, decided.body, call.body)
        return replace(decided, body=body, headers=(*decided.headers, *headers))

    def _decided(self, call: Call) -> Fate:
        key = _key(call.headers)
        asked = self._asked(call, key)
        if isinstance(asked, Fate):
            return asked
        if refused := self._limited(call, asked):
            return refused
        fault = decide(self._dials.seed, call.number, asked.query, self._dials.faults)
        error = fault if fault is not None and fault in STATUSES else None
        if error and not is_billed(STATUSES[error]):
            return self._turned_away(call, asked, key, error)
        price = self._dials.price or PRICES.get(asked.model, PRICE)
        cost = charge(asked.query, asked.texts, price)
        if not self._charged(key, cost):
            return refusal(402, *replies.MESSAGES[Fault.NO_CREDIT])
        if error:
            body = replies.fault_body(error, asked, key)
            return Fate(STATUSES[error], body, fault=error, wait_s=self._latency_s(call))
        return self._answered(call, asked, key, fault, cost)

    def tells(self, path: str, headers: Mapping[bytes, bytes]) -> Fate | None:
        """
        What is told for nothing at *path*; None if that is no such place.
        """
        if path == telling.MODELS:
            return self._told(telling.of_models(self._dials))
        if path == telling.KEY:
            key = _key(headers)
            if refused := self._unknown(key, needed=True):
                return refused
            label = key_label(key)
            bill = self.tally.bills.get(label) or Bill()  # to ask begins none
            return self._told(telling.of_key(self._dials, label, bill))
        if path.startswith(f"{telling.MODELS}/") and path.endswith(telling.ENDPOINTS):
            name = path.removeprefix(f"{telling.MODELS}/").removesuffix(telling.ENDPOINTS)
            body = telling.of_endpoints(name, self._dials)
            return self._told(body) if body else refusal(404, *replies.MESSAGES[Fault.NOT_FOUND])
        return None

    def _told(self, body: bytes) -> Fate:
        self.tally.questions += 1
        return Fate(200, body)

    def _unknown(self, key: str, *, needed: bool) -> Fate | None:
        """
        The refusal of a key that is *needed* and none, not known, or out of date.
        """
        if not key and needed:
            return refusal(401, *replies.MESSAGES[Fault.UNAUTHORIZED])
        if self._dials.keys and key not in self._dials.keys:
            return refusal(401, "Invalid credentials", "authentication")
        if telling.is_expired(self._dials):
            return refusal(401, "API key expired", "authentication")
        return None

    def _asked(self, call: Call, key: str) -> Asked | Fate:
        if refused := self._unknown(key, needed=call.dialect.needs_key):
            return refused
        if len(call.body) > self._dials.body_bytes_max:
            return refusal(413, *replies.MESSAGES[Fault.TOO_LARGE])
        asked = read(call.headers.get(b"content-type", b"").decode("latin-1"), call.body)
        if isinstance(asked, Refused):
            return refusal(400, asked.message, asked.error_type)
        if self._dials.models and asked.model not in self._dials.models:
            return refusal(404, f"No endpoints found for {asked.model[:80]}.", "not_found")
        count, most = len(asked.documents), self._dials.documents_max
        if most is not None and count > most:
            return refusal(*call.dialect.refused(count, most))
        return asked

    def _limited(self, call: Call, asked: Asked) -> Fate | None:
        amounts = (1, len(asked.documents))
        held = [(limit, n) for limit, n in zip(self._limits, amounts, strict=True) if limit]
        waits = [limit.wait_s(n, call.at_s) for limit, n in held]
        if any(waits):
            self.tally.limit_refusals += 1
            hint = _hint(self._dials.retry_after, max(waits), call.number)
            headers = (*hint, *_described(self._dials.limit, waits[0]))
            return refusal(429, *replies.MESSAGES[Fault.THROTTLED], headers=headers)
        for limit, n in held:
            limit.take(n, call.at_s)
        most = self._dials.concurrency_max
        if most is not None and call.in_flight > most:
            self.tally.concurrency_refusals += 1
            return refusal(529, *replies.MESSAGES[Fault.OVERLOADED])
        return None

    def _turned_away(self, call: Call, asked: Asked, key: str, fault: Fault) -> Fate:
        if fault is Fault.REDIRECT:
            location = (b"location", replies.ELSEWHERE.encode())
            return Fate(STATUSES[fault], headers=(location,), fault=fault)
        headers: Headers = ()
        wait_s = None
        if fault in HINTED and self._dials.retry_after is not RetryAfter.ABSENT:
            headers, wait_s = _hint(self._dials.retry_after, HINT_S, call.number), int(HINT_S)
        body = replies.fault_body(fault, asked, key, wait_s)
        return Fate(STATUSES[fault], body, (JSON_TYPE, *headers), fault)

    def _charged(self, key: str, cost: Charge) -> bool:
        bill, credit = self.tally.bill_of(key), self._dials.credit_usd
        if credit is not None and bill.nano_usd + cost.nano_usd > nano_usd(credit):
            return False
        self.tally.charge(bill, cost.search_units, cost.nano_usd)
        return True

    def _answered(
        self, call: Call, asked: Asked, key: str, fault: Fault | None, cost: Charge
    ) -> Fate:
        drawn = int(chance(self._dials.seed, call.number, "id") * 1_000_000)
        request_id = f"gen-rerank-{call.number}-{drawn:06}"
        scores = self._score(asked.query, asked.texts)
        good = replies.reply(asked, scores, request_id, cost, self._dials.usage)
        manner = MANNERS.get(fault, Manner.WHOLE) if fault else Manner.WHOLE
        return Fate(
            0 if manner in (Manner.DROPPED, Manner.HUNG) else 200,
            replies.body(good, fault, asked, key),
            (replies.TYPES.get(fault, JSON_TYPE), (b"x-generation-id", request_id.encode())),
            fault,
            manner,
            self._latency_s(call),
        )

    def _latency_s(self, call: Call) -> float:
        return self._dials.latency.at(chance(self._dials.seed, call.number, "latency"))


def refusal(status: int, message: str, error_type: str, *, headers: Headers = ()) -> Fate:
    """
    An error that is nobody's fault but the caller's.
    """
    body = replies.error(status, message, error_type)
    return Fate(status, body, (JSON_TYPE, *headers))


def _limits_dialled(dials: Dials) -> tuple[LimitDial | None, LimitDial | None]:
    return dials.limit, dials.document_limit


def _limits_of(dials: Dials) -> tuple[Limit | None, Limit | None]:
    requests, documents = _limits_dialled(dials)
    return (
        limit_of(requests) if requests else None,
        limit_of(documents) if documents else None,
    )


def _key(headers: Mapping[bytes, bytes]) -> str:
    scheme, _, key = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _hint(kind: RetryAfter, wait_s: float, number: int) -> Headers:
    """
    How a 429 or 503 says to come back in *wait_s*; infinity is never, and nothing is said about it.
    """
    if kind is RetryAfter.ABSURD:
        return ((b"retry-after", ABSURD[number % len(ABSURD)]),)
    if kind is RetryAfter.ABSENT or wait_s == inf:
        return ()
    if kind is RetryAfter.MILLISECONDS:
        return ((b"retry-after-ms", b"%d" % ceil(wait_s * 1000)),)
    if kind is RetryAfter.DATE:
        at = formatdate(time.time() + ceil(wait_s), usegmt=True)
        return ((b"retry-after", at.encode()),)
    return ((b"retry-after", b"%d" % ceil(wait_s)),)


def _described(dial: LimitDial | None, wait_s: float) -> Headers:
    """
    The limit of requests, if that is what was hit, in the headers that OpenRouter has for it. The
    unit of the last one is not documented: milliseconds since 1970 is what public logs show.
    """
    if dial is None or wait_s <= 0:
        return ()
    reset_ms = ceil((time.time() + wait_s) * 1000)
    told = {"limit": floor(dial.rate.count), "remaining": 0, "reset": reset_ms}
    return tuple((f"x-ratelimit-{name}".encode(), b"%d" % value) for name, value in told.items())
