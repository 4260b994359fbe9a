"""
What the server answers: rerank replies, error bodies, and how each fault spoils them.

Owns every body as bytes. Replies follow OpenRouter's OpenAPI document of 2026-08-22: results sorted
by relevance, documents always echoed. Error bodies are `{"error": {"code", "message", "metadata"}}`
with the typed code of its page "Errors and debugging" in `metadata.error_type`; where a model is
not available they have the other form of that page, with `availability` and without `code`.

Pure functions: what is asked and what was decided are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from batchrank.policy.billing import in_usd
from batchrank.rehearsal.asked import Asked, Rich
from batchrank.rehearsal.bill import Charge
from batchrank.rehearsal.faults import STATUSES, Fault

PROVIDER = "batchrank-rehearsal"
"""What replies name as the upstream provider."""

ELSEWHERE = "/api/v1/elsewhere/rerank"
"""Where a redirect leads; nobody should ever ask there."""

FLAGGED_CHARS_MAX = 100
"""So much of the input a moderation error repeats, as OpenRouter documents it."""

Headers = tuple[tuple[bytes, bytes], ...]


class _Usage(msgspec.Struct, frozen=True, gc=False):
    search_units: int
    total_tokens: int
    cost: float | UnsetType = UNSET


class _Result(msgspec.Struct, frozen=True, gc=False):
    index: int
    relevance_score: float
    document: Rich


class _Reply(msgspec.Struct, frozen=True, gc=False):
    id: str
    model: str
    provider: str
    results: list[_Result]
    usage: _Usage | UnsetType = UNSET


class UsageTold(StrEnum):
    """
    What a reply says about its own bill.
    """

    ALL = "all"
    NO_COST = "no-cost"
    NONE = "none"


_encode = msgspec.json.Encoder().encode
JSON_TYPE = (b"content-type", b"application/json")
TYPES: Mapping[Fault | None, tuple[bytes, bytes]] = {Fault.HTML: (b"content-type", b"text/html")}
"""The content types of what is not JSON and does not claim to be."""


# --- good replies ---------------------------------------------------------------------------------


def reply(
    asked: Asked, scores: Sequence[float], request_id: str, cost: Charge, told: UsageTold
) -> _Reply:
    """
    The reply to *asked*: results by score, the best first and equals by index, cut to `top_n`.
    """
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    documents = asked.documents
    results = [
        _Result(index, scores[index], _echo(documents[index])) for index in order[: asked.top_n]
    ]
    return _Reply(request_id, asked.model, PROVIDER, results, _usage(cost, told))


def _echo(document: str | Rich) -> Rich:
    return Rich(document) if isinstance(document, str) else document


def _usage(cost: Charge, told: UsageTold) -> _Usage | UnsetType:
    if told is UsageTold.NONE:
        return UNSET
    cost_usd = in_usd(cost.nano_usd) if told is UsageTold.ALL else UNSET
    return _Usage(cost.search_units, cost.total_tokens, cost_usd)


# --- spoiled replies ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Spoiling:
    """
    A good reply that is about to be spoiled, and what a fault may need for it.
    """

    good: _Reply
    documents: list[str | Rich]
    key: str

    @property
    def results(self) -> list[_Result]:
        return self.good.results

    def with_results(self, *results: _Result) -> bytes:
        return _encode(replace(self.good, results=list(results)))


def body(good: _Reply, fault: Fault | None, asked: Asked, key: str) -> bytes:
    """
    The bytes of a 200: the good reply, or what *fault* makes of it.
    """
    if fault is None or fault not in _SPOILED:
        return _encode(good)
    return _SPOILED[fault](_Spoiling(good, asked.documents, key))


def _wrong_echo(it: _Spoiling) -> bytes:
    first, *others = it.results
    echo = _echo(it.documents[(first.index + 1) % len(it.documents)])
    if echo == first.document:
        echo = Rich("a document that nobody sent")
    return it.with_results(replace(first, document=echo), *others)


def _swapped(it: _Spoiling) -> bytes:
    if len(it.results) < 2:
        return _encode(it.good)  # nothing to swap
    first, *between, last = it.results
    return it.with_results(
        replace(first, index=last.index, document=last.document),
        *between,
        replace(last, index=first.index, document=first.document),
    )


def _left_out(it: _Spoiling) -> bytes:
    return it.with_results(*it.results[:-1])


def _duplicate_index(it: _Spoiling) -> bytes:
    kept = it.results[:-1] or it.results
    return it.with_results(*kept, kept[0])


def _out_of_range(it: _Spoiling) -> bytes:
    *kept, last = it.results
    return it.with_results(*kept, replace(last, index=len(it.documents)))


def _nan(it: _Spoiling) -> bytes:
    # Within a JSON text the quotes would be escaped: the first match is the first result's score.
    return re.sub(rb'("relevance_score":)[^,}]+', rb"\1NaN", _encode(it.good), count=1)


def _other_model(it: _Spoiling) -> bytes:
    return _encode(replace(it.good, model="another-author/another-model"))


def _echo_key(it: _Spoiling) -> bytes:
    return _encode(replace(it.good, id=f"{it.good.id}-{it.key}", provider=f"{PROVIDER} {it.key}"))


def _error_in_200(_it: _Spoiling) -> bytes:
    return error(502, *MESSAGES[Fault.BAD_GATEWAY])


def _garbage(it: _Spoiling) -> bytes:
    return b'{"model": "\xff\xfe' + _encode(it.good)[:40]


def _html(_it: _Spoiling) -> bytes:
    return b"<!DOCTYPE html><html><body><h1>Just a moment...</h1></body></html>"


_SPOILED: Mapping[Fault, Callable[[_Spoiling], bytes]] = {
    Fault.WRONG_ECHO: _wrong_echo,
    Fault.SWAPPED: _swapped,
    Fault.LEFT_OUT: _left_out,
    Fault.DUPLICATE_INDEX: _duplicate_index,
    Fault.OUT_OF_RANGE: _out_of_range,
    Fault.NAN: _nan,
    Fault.OTHER_MODEL: _other_model,
    Fault.ECHO_KEY: _echo_key,
    Fault.ERROR_IN_200: _error_in_200,
    Fault.GARBAGE: _garbage,
    Fault.HTML: _html,
}
"""What becomes of a good reply; the faults that are not here leave it whole."""


# --- errors ---------------------------------------------------------------------------------------

MESSAGES: Mapping[Fault, tuple[str, str]] = {
    Fault.BAD_REQUEST: ("Invalid request parameters", "invalid_request"),
    Fault.UNAUTHORIZED: ("Missing Authentication header", "authentication"),
    Fault.NO_CREDIT: (
        "Insufficient credits. Add more using https://openrouter.ai/credits",
        "payment_required",
    ),
    Fault.NO_MODEL: ("{model} is not a valid model ID", "invalid_request"),
    Fault.KEY_LIMIT: ("Key limit exceeded (daily limit)", "permission_denied"),
    Fault.MODERATION: ("Input was flagged", "content_policy_violation"),
    Fault.NOT_FOUND: ("Resource not found", "not_found"),
    Fault.NO_ENDPOINTS: ("No endpoints found for {model}.", "not_found"),
    Fault.PRIVACY: (
        "No endpoints for {model} match your data policy (zero data retention).",
        "not_found",
    ),
    Fault.TIMED_OUT: ("Your request timed out", "timeout"),
    Fault.TOO_LARGE: ("Payload too large", "payload_too_large"),
    Fault.UNPROCESSABLE: ("Unprocessable Entity", "unprocessable"),
    Fault.THROTTLED: ("Rate limit exceeded", "rate_limit_exceeded"),
    Fault.CAPACITY: ("All providers for {model} are at capacity.", "rate_limit_exceeded"),
    Fault.QUOTA: ("You exceeded your current quota", "insufficient_quota"),
    Fault.SERVER: ("Internal Server Error", "server"),
    Fault.BAD_GATEWAY: ("Provider returned error", "provider_unavailable"),
    Fault.UNAVAILABLE: ("Service temporarily unavailable", "provider_overloaded"),
    Fault.TEMPORARY: ("Service temporarily unavailable", "provider_overloaded"),
    Fault.GATEWAY_TIMEOUT: ("Provider timed out", "timeout"),
    Fault.EDGE_TIMEOUT: ("Request timed out. Please try again later.", "timeout"),
    Fault.OVERLOADED: ("Provider returned error", "provider_overloaded"),
    Fault.ECHO_KEY_ERROR: ("Upstream refused Authorization: Bearer {key}", "provider_unavailable"),
}
"""The words and the typed code of every fault that answers with an error; a redirect has none."""

AVAILABILITY: Mapping[Fault, Mapping[str, object]] = {
    Fault.NO_MODEL: {"code": "model_not_found", "retryable": False},
    Fault.NO_ENDPOINTS: {"code": "no_endpoints", "retryable": False},
    Fault.PRIVACY: {
        "code": "privacy_restricted",
        "retryable": False,
        "excluded_by": ["data_policy:zdr"],
    },
    Fault.CAPACITY: {"code": "capacity_exhausted", "retryable": True},
    Fault.TEMPORARY: {"code": "temporarily_unavailable", "retryable": True},
}
"""The faults that say of the model when, or whether ever, it can be had."""


def error(code: int, message: str, error_type: str, **metadata: object) -> bytes:
    """
    An error body, with the typed code and whatever else is told in its metadata.
    """
    told = {"error_type": error_type, **metadata}
    return _encode({"error": {"code": code, "message": message, "metadata": told}})


def fault_body(fault: Fault, asked: Asked, key: str, wait_s: int | None = None) -> bytes:
    """
    The error body of a fault that answers with an error status; *wait_s* is when to come back.
    """
    words, error_type = MESSAGES[fault]
    message = words.replace("{key}", key).replace("{model}", asked.model)
    if fault in AVAILABILITY:
        return _unavailable(fault, message, error_type, asked.model, wait_s)
    more: dict[str, object] = {}
    if fault is Fault.MODERATION:
        more = {
            "reasons": ["violence"],
            "flagged_input": (asked.query or asked.texts[0])[:FLAGGED_CHARS_MAX],
            "provider_name": PROVIDER,
            "model_slug": asked.model,
        }
    return error(STATUSES[fault], message, error_type, **more)


def _unavailable(
    fault: Fault, message: str, error_type: str, model: str, wait_s: int | None
) -> bytes:
    told = AVAILABILITY[fault]
    docs_url = f"https://openrouter.ai/docs/errors#{told['code']}"
    availability = {**told, "requested_models": [model], "docs_url": docs_url}
    if wait_s is not None:
        availability["retry_after"] = wait_s
    return _encode(
        {
            "error": {
                "message": message,
                "error_type": error_type,
                "http_status": STATUSES[fault],
                "availability": availability,
            }
        }
    )
