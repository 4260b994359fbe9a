"""
Cohere's form of what the server answers, for clients that speak it.

Owns the translation of bodies: what the desk decided keeps its status, its headers and its fault.
A body that is not a JSON object goes out as it is: garbage is garbage in any form. Source: Cohere's
OpenAPI document of 2026-08-20 (`POST /v2/rerank`; errors are an `id` and a `message`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from batchrank.rehearsal.desk import Fate

RERANK = "/v2/rerank"


def spoken(fate: Fate) -> Fate:
    """
    The same fate, in Cohere's words.
    """
    try:
        said = msgspec.json.decode(fate.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return fate
    if not isinstance(said, dict):
        return fate
    words = _reply(said) if "results" in said else _error(said)
    return replace(fate, body=msgspec.json.encode(words))


def _reply(said: Mapping[str, Any]) -> dict[str, Any]:
    results = [{key: it[key] for key in ("index", "relevance_score")} for it in said["results"]]
    meta: dict[str, Any] = {"api_version": {"version": "2"}}
    if "usage" in said:
        meta["billed_units"] = {"search_units": said["usage"]["search_units"]}
    return {"id": said["id"], "results": results, "meta": meta}


def _error(said: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": "batchrank-rehearsal", "message": said["error"]["message"]}
