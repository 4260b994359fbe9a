"""
What a rerank request must look like: OpenRouter's request schema as a table of types.

Owns the reading and checking of request bodies. The source is OpenRouter's OpenAPI document of
2026-08-22; `user`, `trace`, `session_id` and `provider.options` are from its Python SDK 1.3.84.
Fields at the top that neither names are let through, as the schema says.

A body that does not fit is a `Refused` with words for a person; what status and body that makes is
for `replies` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType


class Rich(msgspec.Struct, frozen=True, gc=False):
    """
    A structured document: as it is sent, and as every document is echoed.
    """

    text: str | UnsetType = UNSET
    image: str | UnsetType = UNSET


class _SortBy(msgspec.Struct):
    by: Literal["price", "throughput", "latency", "exacto"] | None = None
    partition: Literal["model", "none"] | None = None


class _MaxPrice(msgspec.Struct):
    prompt: str | UnsetType = UNSET
    completion: str | UnsetType = UNSET
    image: str | UnsetType = UNSET
    audio: str | UnsetType = UNSET
    request: str | UnsetType = UNSET


class _Percentiles(msgspec.Struct):
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p99: float | None = None


_Quantization = Literal[
    "int4", "int8", "fp4", "mxfp4", "nvfp4", "fp6", "fp8", "mxfp8", "fp16", "bf16", "fp32",
    "unknown",
]  # fmt: skip


class _Preferences(msgspec.Struct, forbid_unknown_fields=True):
    allow_fallbacks: bool | None = None
    data_collection: Literal["allow", "deny"] | None = None
    enforce_distillable_text: bool | None = None
    ignore: list[str] | None = None
    max_price: _MaxPrice | UnsetType = UNSET
    only: list[str] | None = None
    order: list[str] | None = None
    preferred_max_latency: float | _Percentiles | None = None
    preferred_min_throughput: float | _Percentiles | None = None
    quantizations: list[_Quantization] | None = None
    require_parameters: bool | None = None
    sort: Literal["price", "throughput", "latency", "exacto"] | _SortBy | None = None
    zdr: bool | None = None
    options: dict[str, dict[str, Any]] | UnsetType = UNSET


class _Body(msgspec.Struct):
    model: str
    query: str
    documents: Annotated[list[str | Rich], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | Annotated[float, Meta(ge=1)] | UnsetType = UNSET
    provider: _Preferences | None = None
    user: str | UnsetType = UNSET
    session_id: Annotated[str, Meta(max_length=256)] | UnsetType = UNSET
    trace: dict[str, Any] | UnsetType = UNSET


_read = msgspec.json.Decoder(_Body).decode
_is_image = re.compile(r"https?://|data:image/", re.IGNORECASE).match


@dataclass(frozen=True, slots=True)
class Asked:
    """
    A request that fits. *texts* are the documents' texts, empty for an image alone.
    """

    model: str
    query: str
    documents: list[str | Rich]
    texts: list[str]
    top_n: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """
    Why a body is not a rerank request, and the typed code for it.
    """

    message: str
    error_type: str = "invalid_request"


def read(content_type: str, body: bytes) -> Asked | Refused:
    """
    What a body asks for, or why it cannot be answered.
    """
    if content_type.partition(";")[0].strip().lower() != "application/json":
        return Refused(f"Content-Type: expected application/json, got {content_type[:60]!r}")
    try:
        asked = _read(body)
    except msgspec.ValidationError as error:
        return Refused(f"Invalid request parameters: {error}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refused(f"The body is not JSON: {error}")
    if isinstance(asked.top_n, float) and not asked.top_n.is_integer():
        return Refused("Invalid request parameters: Expected `int` - at `$.top_n`")
    top_n = None if asked.top_n is UNSET else int(asked.top_n)  # to JSON Schema, 1.0 is an integer
    texts = [document for document in asked.documents if type(document) is str]
    if len(texts) < len(asked.documents):
        if refused := _refused_document(asked.documents):
            return refused
        texts = [_text(document) for document in asked.documents]
    return Asked(asked.model, asked.query, asked.documents, texts, top_n)


def _refused_document(documents: list[str | Rich]) -> Refused | None:
    for index, document in enumerate(documents):
        if isinstance(document, str):
            continue
        if document.text is UNSET and document.image is UNSET:
            return Refused(f"documents[{index}]: at least one of text and image is required")
        if document.image is not UNSET and not _is_image(document.image):
            expected = "expected an http(s) URL or a data:image/ URI"
            return Refused(f"documents[{index}].image: {expected}", "invalid_image")
    return None


def _text(document: str | Rich) -> str:
    if isinstance(document, str):
        return document
    return "" if document.text is UNSET else document.text
