"""
What a reply's headers tell of the limit of requests: quotas over windows, and what is left.

Owns which header means what, and which of several limits is told on: the tightest quota, and what
is scarcest until its window ends. Headers may be wrong or hostile: what no limit can be is left
out, value by value, and the rest still counts. What follows from a limit is not decided here.

Sources: draft-ietf-httpapi-ratelimit-headers-11 (`RateLimit-Policy`, `RateLimit`: structured
fields, RFC 9651); its drafts before 07 (`RateLimit-Limit`, `-Remaining`, `-Reset`, a policy as
`100;w=60`); the same three with `X-`, where a reset is an epoch in milliseconds or seconds, or
seconds from now; OpenAI's "Rate limits" (`x-ratelimit-*-requests`, a reset as `6m0s`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf

from http_sf import StructuredFieldError, parse

from batchrank.domain import Advertised
from batchrank.providers.base import Headers, date_epoch_s, positive

FIELD_CHARACTERS_MAX = 4096
"""A longer field tells no limit."""

COUNT_MAX = 1e12
"""Nobody allows, or has left, more requests than this."""

WINDOW_S_MAX = 366 * 86_400.0
"""No window is longer than a year."""

RESET_S_MAX = 32 * 86_400.0
"""No window ends, or has ended, further away than a month: such a time was meant otherwise."""

EPOCH_S_MIN, EPOCH_MS_MIN, EPOCH_MS_MAX = 1e9, 1e12, 1e15
"""From where on a reset is a time of day, in seconds and in milliseconds (both are of 2001)."""

PERIODS_S = (1.0, 60.0, 3600.0, 86_400.0)
"""The windows that limits are told for."""

PERIOD_TOLERANCE = 0.1
"""How far from a period a window that was worked out may lie: resets are rounded."""

FAMILIES = (
    ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
    (
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
)
"""Headers that belong together: the quota, what is left of it, when it is whole again."""

_NAMES = frozenset(("ratelimit-policy", "ratelimit", *(name for f in FAMILIES for name in f)))

_Left = tuple[float | None, float | None]
"""What remains, and when it is reset in seconds from now."""


def advertised(headers: Headers, now_epoch_s: float | None) -> Advertised | None:
    """
    The limit of requests that *headers* tell; None if they tell none.

    A time of day is measured from the reply's own `Date`, without one from *now_epoch_s*, our
    clock; without either it is left out.
    """
    if _NAMES.isdisjoint(headers):
        return None
    policies = _policies(_field(headers, "ratelimit-policy"))
    lefts = [*_items_left(headers, policies), *_families_left(headers, now_epoch_s)]
    remaining, reset_s = min(lefts, key=_scarcity, default=(None, None))
    told = Advertised(min(_rates(headers, policies), default=None), remaining, reset_s)
    return None if told == Advertised() else told


def until_reset_s(told: Advertised | None) -> float | None:
    """
    How long a quota that is spent stays so, in seconds; None if it is not, or nobody knows.
    """
    if told is None or told.remaining is None or told.remaining >= 1:
        return None
    return told.reset_s or None


def _scarcity(left: _Left) -> tuple[bool, bool, float, float]:
    """
    Sort what is left: by the rate that it allows, the longest first where that is the same.
    """
    remaining, reset_s = left
    if remaining is None or reset_s is None:
        return True, remaining is None, remaining or 0.0, -(reset_s or 0.0)
    return False, False, remaining / reset_s if reset_s else inf, -reset_s


def _field(headers: Headers, name: str) -> str:
    text = headers.get(name, "")
    return text if len(text) <= FIELD_CHARACTERS_MAX else ""


# --- structured fields ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Policy:
    """
    A quota: its *name* ("" in older drafts), and its rate; None if it has no window.
    """

    name: str
    of_requests: bool
    per_s: float | None


_MEMBER = re.compile(r'(?:"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^",])+', re.DOTALL)
"""What stands between the commas of a list, which may stand in strings too, closed or not."""


def _items(field: str) -> Iterator[tuple[object, dict[str, object]]]:
    """
    The members of a list that are well formed, each with its parameters.

    RFC 9651 would drop the whole list for one bad member. A limit that was told is worth keeping.
    """
    for member in _MEMBER.findall(field):
        try:
            item = parse(member.strip().encode("utf-8", "surrogatepass"), tltype="item")
        except StructuredFieldError:
            continue
        assert isinstance(item, tuple)
        yield item[0], dict(item[1])


@lru_cache(maxsize=64)
def _policies(field: str) -> tuple[_Policy, ...]:
    """
    The quotas of a field. It is the same in reply after reply, so it is read once.
    """
    return tuple(_policy(value, parameters) for value, parameters in _items(field))


def _policy(value: object, parameters: dict[str, object]) -> _Policy:
    older = isinstance(value, int)
    quota = _whole(value if older else parameters.get("q"), COUNT_MAX)
    window_s = _whole(parameters.get("w"), WINDOW_S_MAX)
    return _Policy(
        "" if older else str(value),
        str(parameters.get("qu", "requests")) == "requests",
        quota / window_s if quota and window_s else None,
    )


def _whole(value: object, most: float) -> float | None:
    """
    A structured field's Integer from 0 to *most*; a Decimal or anything else is malformed.
    """
    return positive(value, most) if isinstance(value, int) else None


def _items_left(headers: Headers, policies: tuple[_Policy, ...]) -> Iterator[_Left]:
    """
    What `RateLimit` says is left, but for what its policy counts in another unit.
    """
    others = {policy.name for policy in policies if not policy.of_requests}
    for value, parameters in _items(_field(headers, "ratelimit")):
        remaining = _whole(parameters.get("r"), COUNT_MAX)
        if remaining is not None and str(value) not in others:
            yield remaining, _whole(parameters.get("t"), RESET_S_MAX)


# --- three headers that belong together -----------------------------------------------------------


def _rates(headers: Headers, policies: tuple[_Policy, ...]) -> Iterator[float]:
    """
    Every quota with a window, as a rate. A quota without one says nothing of a rate.
    """
    quotas = [_field(headers, names[0]) for names in FAMILIES if names[0] in headers]
    for policy in (*policies, *(policy for quota in quotas for policy in _policies(quota))):
        if policy.of_requests and policy.per_s:
            yield policy.per_s
    refilled = _refill_per_s(*(_field(headers, name) for name in FAMILIES[-1]))
    if refilled:
        yield refilled


def _refill_per_s(limit: str, remaining: str, reset: str) -> float | None:
    """
    The rate of a quota that fills up steadily and tells when it will be whole, as OpenAI's does.

    What is missing takes until the reset, so the whole takes `reset x limit / missing`: that is the
    window, if it is a usual one. If it is not, the quota comes back in another way.
    """
    quota, left, whole_s = positive(limit, COUNT_MAX), positive(remaining), _duration_s(reset)
    if not quota or not whole_s or left is None or left >= quota:
        return None
    window_s = whole_s * quota / (quota - left)
    for period_s in PERIODS_S:
        if abs(window_s - period_s) <= PERIOD_TOLERANCE * period_s:
            return quota / period_s
    return None


def _families_left(headers: Headers, now_epoch_s: float | None) -> Iterator[_Left]:
    for _, remaining, reset in FAMILIES:
        if remaining not in headers and reset not in headers:
            continue
        left = positive(_field(headers, remaining), COUNT_MAX)
        reset_s = _reset_s(_field(headers, reset), headers, now_epoch_s)
        if left is not None or reset_s is not None:
            yield left, reset_s


def _reset_s(text: str, headers: Headers, now_epoch_s: float | None) -> float | None:
    """
    A reset in seconds from now, whether it is told as a duration or as a time of day.
    """
    number = positive(text)
    if number is None:
        return _duration_s(text)
    if number < EPOCH_S_MIN:
        return number if number <= RESET_S_MAX else None
    date_s = date_epoch_s(headers.get("date"))
    now_s = now_epoch_s if date_s is None else date_s
    if now_s is None or number >= EPOCH_MS_MAX:
        return None
    away_s = (number if number < EPOCH_MS_MIN else number / 1000) - now_s
    return max(0.0, away_s) if abs(away_s) <= RESET_S_MAX else None


_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNITS_S["d"] = 86_400.0
_STEP = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ns|us|µs|ms|s|m|h|d)"


def _duration_s(text: str) -> float | None:
    """
    A duration as Go writes it, `6m0s` or `8.64s`, in seconds.
    """
    if not re.fullmatch(f"(?:{_STEP})+", text.strip()):
        return None
    total_s = sum(float(count) * _UNITS_S[unit] for count, unit in re.findall(_STEP, text))
    return total_s if total_s <= RESET_S_MAX else None
