"""
SGLang: `POST /v1/rerank`.

Source: its documents. The reply is a bare list; `top_n` is in newer versions only and so not sent.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import Check, ModelPlaces
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class SglangOptions(PresetOptions):
    """
    SGLang's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    instruct: str | None = None
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    path="/v1/rerank",
    request=RequestShape(model="", top_n=""),
    reply=ReplyShape(results="", score="score", request_id=""),
)

CHECK = Check("/v1/models", model=ModelPlaces(loosely=True), entries="data")
"""It may have been started with any --served-model-name: another one than the job's is told."""

SGLANG = Vendor(
    name="sglang",
    options=SglangOptions,
    make=compatible("sglang", SHAPE),
    score_options=decisive(SglangOptions),
    **OWN_SERVER,
    checks=(CHECK,),
    takes_top_n=False,
    facts=Facts(
        "SGLang, on your own machines; it names no model: the job's stands in the output",
        limits=("an empty list of documents is refused",),
        billing=OWN_BILLING,
        pairs=CROSS_ENCODER,
        verified="its documents",
        unknown=("documents of one request", "error bodies", "the range of scores"),
    ),
)
