"""
How replies are read, whosever they are: bodies that are nearly JSON, bills, hints about limits.

Owns what a bill may amount to at most, and how a reply whose text is broken still gives up its
error. Where in a reply something stands is a vendor's own; what it means is `base`'s.
"""

from __future__ import annotations

import re
import string
from typing import Any

import msgspec
from msgspec.structs import replace

from batchrank.domain import Answer, Failure, FailureKind, RerankReply, Usage
from batchrank.providers.advertised import advertised, until_reset_s
from batchrank.providers.base import RETRY_AFTER_S_MAX, HttpReply, positive

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that make no sense, or are nested a thousand deep."""

UNITS_MAX, TOKENS_MAX, COST_USD_MAX = 1e6, 1e9, 1e6
"""No call costs more: what says so is no bill, and would burst what bills are added up in."""

_read_table = msgspec.json.Decoder(dict[str, Any]).decode


def text(value: object) -> str | None:
    """
    *value* if it is text, and not empty.
    """
    return value if isinstance(value, str) and value else None


def table(value: object) -> dict[str, Any]:
    """
    *value* if it is an object of JSON, else an empty one.
    """
    return value if isinstance(value, dict) else {}


def at(body: object, place: str) -> object:
    """
    What stands in the body where the steps of *place* lead; without steps the body itself.
    """
    for step in place.split(".") if place else ():
        body = body.get(step) if isinstance(body, dict) else None
    return body


def said(told: object) -> str:
    """
    A message, also where it is a list of findings, as servers with pydantic reply.
    """
    if isinstance(told, list):
        return "; ".join(filter(None, map(said, told)))
    if isinstance(told, dict):
        return said(told.get("msg") or told.get("message"))
    return text(told) or ""


_PLAIN = string.ascii_letters + string.digits + "-._~"


def in_a_path(text: str, plain: str = "/:") -> str:
    """
    *text* as it may stand in a path (RFC 3986 §3.3), what is *plain* as it is: its slashes are
    steps of the path then.
    """
    kept = frozenset((_PLAIN + plain).encode())
    return "".join(chr(b) if b in kept else f"%{b:02X}" for b in text.encode())


def bill(search_units: object, total_tokens: object, cost_usd: object) -> Usage:
    """
    What a reply says of its own bill; what cannot be read, or cannot be true, was not said.
    """
    tokens = positive(total_tokens, TOKENS_MAX)
    return Usage(
        search_units=positive(search_units, UNITS_MAX),
        total_tokens=None if tokens is None else int(tokens),
        cost_usd=positive(cost_usd, COST_USD_MAX),
    )


def another_model(asked: str, known: Failure) -> Failure:
    """
    The failure of a reply by another model than the one *asked* for; *known* is what it told.
    """
    served = known.served.model if known.served else "another"
    message = f"asked for {asked}, served by {served}: its scores cannot be mixed in"
    return replace(known, kind=FailureKind.FATAL, message=message, code="another_model")


def whatever(reply: HttpReply) -> dict[str, Any]:
    """
    The body of a reply that may be anything; empty if it is not an object of JSON.
    """
    try:
        return mended(reply.body)
    except UNREADABLE:
        return {}


def mended(body: bytes) -> dict[str, Any]:
    """
    Read JSON for its error and its bill, also where half a character stands in it: whoever quotes
    what was sent and cuts it as JavaScript counts, or by bytes, leaves one behind.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is not an object of JSON.
    """
    try:
        return _read_table(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole = _HALF.sub(lambda found: found[1] or rb"\ufffd", body)
        return _read_table(whole.decode(errors="replace"))


_HALF = re.compile(
    rb"(\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
"""An escaped half of a character; before it what looks like one and is none, to be kept."""


def limited(answer: Answer, reply: HttpReply, now_epoch_s: float | None) -> Answer:
    """
    *answer* with the limit that the headers of its reply told, if they told one. Whoever is
    throttled because a quota is spent, and is not told how long to wait, waits for that quota.
    """
    told = advertised(reply.headers, now_epoch_s)
    if told is None:
        return answer
    if isinstance(answer, RerankReply):
        return replace(answer, advertised=told)
    wait_s = answer.retry_after_s
    if wait_s is None and answer.kind is FailureKind.THROTTLED:
        reset_s = until_reset_s(told)
        wait_s = reset_s if reset_s is None or reset_s <= RETRY_AFTER_S_MAX else None
    return replace(answer, advertised=told, retry_after_s=wait_s)
