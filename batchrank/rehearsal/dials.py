"""
Everything that can be set on the rehearsal server, and how a person writes it.

Owns the compact forms of the command line and of `POST /admin/dials`, which are the same: a latency
is `0.15`, `0.1..0.3` or `lognormal:0.15,0.6`, a limit `1000/min` or `bucket:50/10s,5`, a fault
`429:0.01`, `529@17,40`, `503@100..200` or `400=some text`, a price `0.002/unit` or `0.05/mtok`.
Whatever is wrong is told together, with a remedy.

Nothing here acts: `desk` decides by the dials, and `app` does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from math import ceil, exp, inf, isfinite, log
from statistics import NormalDist
from typing import Any, TypeVar

from batchrank.config.values import nearest
from batchrank.domain import Price, RateLimit
from batchrank.errors import JobError, Problem
from batchrank.rehearsal.faults import Fault, FaultRule
from batchrank.rehearsal.limits import LimitDial, LimitKind
from batchrank.rehearsal.replies import UsageTold

WHERE = "the rehearsal server's dials"

USD_MAX = 1e6
"""The highest price that a job file can state."""


# --- what can be set ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    The same latency for every call.
    """

    wait_s: float

    def at(self, chance: float) -> float:  # noqa: ARG002  # has the shape of its siblings
        """
        The latency in seconds.
        """
        return self.wait_s


@dataclass(frozen=True, slots=True)
class Uniform:
    """
    Any latency between two, all as likely.
    """

    low_s: float
    high_s: float

    def at(self, chance: float) -> float:
        """
        The latency below which a share of *chance* lies, in seconds.
        """
        return self.low_s + (self.high_s - self.low_s) * chance


@dataclass(frozen=True, slots=True)
class LogNormal:
    """
    Latencies as servers have them: half are below the median, one in twenty above the p95.
    """

    median_s: float
    p95_s: float

    def at(self, chance: float) -> float:
        """
        The latency below which a share of *chance* lies, in seconds.
        """
        if chance <= 0:
            return 0.0
        sigma = log(self.p95_s / self.median_s) / _Z95
        return self.median_s * exp(sigma * _NORMAL.inv_cdf(chance))


_NORMAL = NormalDist()
_Z95 = _NORMAL.inv_cdf(0.95)

Latency = Fixed | Uniform | LogNormal
"""How long a call takes that is worked on; one that is refused takes no time."""


class RetryAfter(StrEnum):
    """
    How a 429 or a 503 says when to come back.
    """

    ABSENT = "absent"
    SECONDS = "seconds"
    DATE = "date"
    MILLISECONDS = "milliseconds"
    ABSURD = "absurd"


@dataclass(frozen=True, slots=True)
class Dials:
    """
    What the server does to whoever calls it.

    Attributes:
        seed: decides everything that looks random.
        latency: of calls that are worked on.
        limit, document_limit: of requests and of documents; beyond them, 429.
        retry_after: how a 429 or a 503 says when to come back.
        concurrency_max: more calls at once than this, and there is a 529.
        faults: the first rule that hits a call decides.
        slow_body_s: how long a dripping body takes.
        price: what every model costs; None is what each is known to cost.
        usage: what replies say about their bill.
        models: those that exist; empty is any.
        keys: those that are known; empty is any that is not empty.
        credit_usd: what each key can spend before it gets a 402.
        key_expires_at: from when on every key gets a 401.
        body_bytes_max: a longer request is a 413.
        documents_max: one with more documents is refused, in the words of whoever is asked.
    """

    seed: int = 0
    latency: Latency = Fixed(0.0)
    limit: LimitDial | None = None
    document_limit: LimitDial | None = None
    retry_after: RetryAfter = RetryAfter.SECONDS
    concurrency_max: int | None = None
    faults: tuple[FaultRule, ...] = ()
    slow_body_s: float = 10.0
    price: Price | None = None
    usage: UsageTold = UsageTold.ALL
    models: frozenset[str] = frozenset()
    keys: frozenset[str] = field(default=frozenset(), repr=False)
    credit_usd: float | None = None
    key_expires_at: datetime | None = None
    body_bytes_max: int = 32 * 1024 * 1024
    documents_max: int | None = None


# --- how a person writes it -----------------------------------------------------------------------


def turned(dials: Dials, changes: Mapping[str, object]) -> Dials:
    """
    *dials* with some of them changed; texts are read, None sets a dial back to what it is unturned.

    Raises:
        JobError: with every problem that was found.
    """
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    for name, given in changes.items():
        try:
            values[name] = _value(name, given)
        except _Wrong as wrong:
            problems.append(Problem(0, name, wrong.message, wrong.remedy))
    if problems:
        raise JobError(WHERE, problems)
    return replace(dials, **values)


class _Wrong(Exception):
    """
    A value that cannot be read, and how to mend it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


_E = TypeVar("_E", bound=StrEnum)


def _value(name: str, given: object) -> object:
    if name not in _READ:
        raise _Wrong(
            "there is no such dial", nearest(name, _READ) or f"known are {', '.join(sorted(_READ))}"
        )
    return getattr(_UNTURNED, name) if given is None else _READ[name](given)


_UNTURNED = Dials()


# --- numbers and names ----------------------------------------------------------------------------


def _number(given: object, *, at_least: float = 0.0, most: float = inf) -> float:
    try:
        number = float(given) if isinstance(given, str | int | float) else inf
    except (ValueError, OverflowError):
        number = inf
    if isinstance(given, bool) or not isfinite(number) or not at_least <= number <= most:
        span = f"from {at_least:g} to {most:g}" if isfinite(most) else f"of at least {at_least:g}"
        raise _Wrong(f"is {_spoken(given)}, expected a number {span}")
    return number


def _whole(given: object, *, at_least: float = 0.0) -> int:
    number = _number(given, at_least=at_least)
    if number != int(number):
        raise _Wrong(f"is {_spoken(given)}, expected a whole number")
    return int(number)


def _spoken(given: object) -> str:
    return repr(given)[:60]


def _text(given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise _Wrong(f"is {_spoken(given)}, expected a text")
    return str(given).strip()


def _names(given: object) -> frozenset[str]:
    items = given.split(",") if isinstance(given, str) else given
    if not isinstance(items, list | tuple | set | frozenset) or not all(
        isinstance(item, str) and item.strip() for item in items
    ):
        raise _Wrong("expected texts with commas between them")  # may be keys: never repeated
    return frozenset(item.strip() for item in items)


def _moment(given: object) -> datetime:
    text = _text(given)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _Wrong(f"is {text[:60]!r}, expected a time", "with its zone: 2026-11-20T22:00:00Z")
    return moment


def _choice(kind: type[_E]) -> Callable[[object], _E]:
    def read(given: object) -> _E:
        try:
            return kind(_text(given))
        except ValueError:
            choices = ", ".join(kind)
            raise _Wrong(f"is {_spoken(given)}, expected one of {choices}") from None

    return read


# --- latencies, limits, prices, faults ------------------------------------------------------------

_PERIODS_S = {
    **dict.fromkeys(("s", "sec", "second"), 1.0),
    **dict.fromkeys(("m", "min", "minute"), 60.0),
    **dict.fromkeys(("h", "hour"), 3600.0),
    **dict.fromkeys(("d", "day"), 86_400.0),
}

_LIMIT = re.compile(
    r"(?:(?P<kind>\w+):)?(?P<count>[\d.]+(?:e[+-]?\d+)?)"
    r"/(?P<times>[\d.]+(?:e[+-]?\d+)?)?(?P<unit>[a-z]+)(?:,(?P<burst>\d+))?"
)
_PRICE = re.compile(r"(?P<usd>[\d.]+(?:e[+-]?\d+)?)/(?P<per>unit|mtok)")
_FAULT = re.compile(r"(?P<name>[a-z0-9-]+)(?:(?P<how>[:@=])(?P<value>.*))?", re.DOTALL)


def _latency(given: object) -> Latency:
    text = _text(given)
    if ".." in text:
        low, high = (_number(part) for part in text.split("..", 1))
        if low > high:
            raise _Wrong(f"is {text!r}: it begins above its end", f"write {high:g}..{low:g}")
        return Uniform(low, high)
    if text.startswith("lognormal:"):
        parts = text.removeprefix("lognormal:").split(",")
        median, p95 = (_number(part) for part in parts) if len(parts) == 2 else (0.0, 0.0)
        if not 0 < median <= p95:
            remedy = "write lognormal:median,p95, the median first and above 0"
            raise _Wrong(f"is {text!r}", remedy)
        return LogNormal(median, p95)
    try:
        return Fixed(_number(text))
    except _Wrong as wrong:
        remedy = "seconds: 0.15, or 0.1..0.3, or lognormal:0.15,0.6 (median, p95)"
        raise _Wrong(wrong.message, remedy) from None


def _limit(given: object) -> LimitDial:
    """
    A count with a fraction keeps its mean rate: `2.5/s` is three in 1.2 s.
    """
    text = _text(given)
    read = _LIMIT.fullmatch(text)
    if read is None or read["unit"] not in _PERIODS_S:
        remedy = "write it as 1000/min, 50/10s, fixed:100/s or bucket:100/s,10"
        raise _Wrong(f"is {text!r}, expected a limit", remedy)
    if (kind := read["kind"] or LimitKind.SLIDING) not in set(LimitKind):
        choices = ", ".join(LimitKind)
        raise _Wrong(f"has no kind {kind!r}", nearest(kind, LimitKind) or f"known are {choices}")
    count = _number(read["count"])
    period_s = _number(read["times"] or 1) * _PERIODS_S[read["unit"]]
    if not count or not period_s:
        raise _Wrong(f"is {text!r}: nothing, or over no time", "leave it out for no limit")
    rate = RateLimit(ceil(count), period_s * ceil(count) / count)
    if read["burst"] is None:
        return LimitDial(rate, LimitKind(kind))
    if kind != LimitKind.BUCKET:
        raise _Wrong(f"is {text!r}: only a bucket has a burst", "write bucket:100/s,10")
    return LimitDial(rate, LimitKind.BUCKET, _number(read["burst"], at_least=1))


def _fault(given: object) -> FaultRule:
    text = _text(given)
    read = _FAULT.fullmatch(text)
    if read is None or read["name"] not in set(Fault):
        name = read["name"] if read else text
        remedy = nearest(name, Fault) or f"known are {', '.join(Fault)}"
        raise _Wrong(f"there is no fault {name!r}", remedy)
    kind = Fault(read["name"])
    match read["how"]:
        case ":":
            return FaultRule(kind, odds=_number(read["value"], most=1.0))
        case "@":
            return FaultRule(kind, calls=tuple(map(_span, read["value"].split(","))))
        case "=" if read["value"]:
            return FaultRule(kind, containing=read["value"])
        case "=":
            raise _Wrong(f"{text} would hit every query", f"write {kind} for every call")
        case _:
            return FaultRule(kind, odds=1.0)


def _price(given: object) -> Price:
    text = _text(given)
    read = _PRICE.fullmatch(text)
    if read is None:
        remedy = "US dollars: 0.002/unit for a search unit, 0.05/mtok for a million tokens"
        raise _Wrong(f"is {text[:60]!r}, expected a price", remedy)
    usd = _number(read["usd"], most=USD_MAX)
    if read["per"] == "unit":
        return Price(usd_per_search_unit=usd, source=WHERE)
    return Price(usd_per_million_tokens=usd, source=WHERE)


def _span(text: str) -> tuple[int, float]:
    first, dots, last = text.partition("..")
    try:
        begin = int(first)
        end = (int(last) if last.strip() else inf) if dots else begin
    except ValueError:
        begin, end = 0, 0
    if not 1 <= begin <= end:
        raise _Wrong(f"has the calls {text!r}", "numbers from 1: 17, or 40..50, or 90.. to the end")
    return begin, end


def _faults(given: object) -> tuple[FaultRule, ...]:
    rules = given if isinstance(given, list | tuple) else [given]
    return tuple(rule if isinstance(rule, FaultRule) else _fault(rule) for rule in rules)


_READ: Mapping[str, Callable[[object], object]] = {
    "seed": _whole,
    "latency": _latency,
    "limit": _limit,
    "document_limit": _limit,
    "retry_after": _choice(RetryAfter),
    "concurrency_max": lambda given: _whole(given, at_least=1),
    "faults": _faults,
    "slow_body_s": _number,
    "price": _price,
    "usage": _choice(UsageTold),
    "models": _names,
    "keys": _names,
    "credit_usd": _number,
    "key_expires_at": _moment,
    "body_bytes_max": lambda given: _whole(given, at_least=1),
    "documents_max": lambda given: _whole(given, at_least=1),
}
"""How each dial is read."""
