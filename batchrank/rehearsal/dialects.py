"""
The tongues that the server speaks, by the path where it is asked: OpenRouter's, Cohere's, TEI's.

Owns the translation of requests into OpenRouter's form, on which the desk decides, and of replies
back from it: so limits, faults, latencies and the bill are the same whoever is spoken to. What a
tongue has no words for is left out (Cohere echoes no documents, TEI tells no bill). A body that is
spoiled beyond reading goes out as it is.

Sources: Cohere's OpenAPI document of 2026-08-20; TEI's, 1.9.3, and its server's code at 0d124dc,
which answers a batch that is too large with a 422 in these very words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from batchrank.rehearsal.replies import Headers

TEI_MODEL = "tei"
"""What stands for the model where a request names none."""

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Words:
    """
    How one vendor says what OpenRouter says otherwise.

    Attributes:
        asked: its request in OpenRouter's form.
        good: a good reply of OpenRouter's, and the request as it came, in its own form.
        error: the body of an error, from status and message.
        headers: what stands in headers of a good reply.
    """

    asked: Callable[[Table], object]
    good: Callable[[Table, Table], object]
    error: Callable[[int, str], object]
    headers: Callable[[Table], Headers] = lambda _reply: ()


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    A tongue: its *words*, None for OpenRouter's own, and what is said to a request with too many
    documents: status, typed code, and a message of how many there are and may be.
    """

    words: Words | None
    too_many: tuple[int, str, str]
    needs_key: bool = True

    def asked(self, body: bytes) -> bytes:
        """
        A request in OpenRouter's form; one that cannot be read is left to be refused.
        """
        read = _read(body)
        return body if read is None or self.words is None else _write(self.words.asked(read))

    def answered(self, status: int, body: bytes, asked: bytes) -> tuple[bytes, Headers]:
        """
        The body of a reply in this tongue, and headers of its own; *asked* is the request as it
        came.
        """
        words, read = self.words, _read(body)
        if words is None or read is None:
            return body, ()
        if "results" in read:
            return _write(words.good(read, _read(asked) or {})), words.headers(read)
        return _write(words.error(status, read["error"]["message"])), ()

    def refused(self, count: int, most: int) -> tuple[int, str, str]:
        """
        Status, message and typed code where *count* documents are asked about and *most* may be.
        """
        status, error_type, message = self.too_many
        return status, message.format(count=count, most=most), error_type


def _read(body: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


_write = msgspec.json.encode


# --- Cohere's -------------------------------------------------------------------------------------


def _coheres_good(reply: Table, _asked: Table) -> object:
    results = [{key: r[key] for key in ("index", "relevance_score")} for r in reply["results"]]
    units = reply.get("usage", {}).get("search_units", 1)
    billed = {"api_version": {"version": "2"}, "billed_units": {"search_units": units}}
    return {"id": reply["id"], "results": results, "meta": billed}


def _coheres_error(status: int, message: str) -> object:
    return {"id": f"refused-{status}", "message": message}


_COHERES = Words(dict, _coheres_good, _coheres_error)


# --- TEI's ----------------------------------------------------------------------------------------

_TEI_TYPES = {400: "Empty", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}


def _teis_asked(request: Table) -> object:
    documents = {"documents": request["texts"]} if "texts" in request else {}
    return {"model": TEI_MODEL, "query": request.get("query"), **documents}


def _teis_good(reply: Table, asked: Table) -> object:
    echoes = bool(asked.get("return_text"))
    return [
        {"index": r["index"], "score": r["relevance_score"]}
        | ({"text": r["document"]["text"]} if echoes else {})
        for r in reply["results"]
    ]


_TEIS = Words(
    _teis_asked,
    _teis_good,
    lambda status, message: {
        "error": message,
        "error_type": _TEI_TYPES.get(status, "Validation"),
    },
    lambda reply: ((b"x-compute-tokens", b"%d" % reply.get("usage", {}).get("total_tokens", 0)),),
)


OPENROUTER = "/api/v1/rerank"

DIALECTS: Mapping[str, Dialect] = {
    OPENROUTER: Dialect(
        None, (413, "payload_too_large", "Payload too large: {count} documents, at most {most}")
    ),
    "/v2/rerank": Dialect(
        _COHERES,
        (400, "invalid_request", "number of total max chunks, {count}, must be less than {most}"),
    ),
    "/rerank": Dialect(
        _TEIS,
        (422, "unprocessable", "batch size {count} > maximum allowed batch size {most}"),
        needs_key=False,
    ),
}
"""By the path of the request."""
