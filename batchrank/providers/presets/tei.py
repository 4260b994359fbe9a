"""
TEI (Text Embeddings Inference): `POST /rerank`.

Sources: its OpenAPI document 1.9.3 and its server's code at 0d124dc. A batch that is too large is a
422 there, although the document says 413; both are split.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import Check, ModelPlaces
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import (
    ErrorShape,
    Phrase,
    PresetOptions,
    ReplyShape,
    RequestShape,
    Shape,
    decisive,
)


class TeiOptions(PresetOptions):
    """
    TEI's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_text"})

    raw_scores: bool | None = Field(None, description="true: as the model gives them, no sigmoid")
    truncate: bool | None = Field(
        None, description="cut what is too long; as the server is set unless told"
    )
    return_text: bool | None = Field(None, description="true: they come back, and are compared")


SHAPE = Shape(
    request=RequestShape(model="", documents="texts", top_n=""),
    reply=ReplyShape(
        results="",
        score="score",
        document="text",
        request_id="",
        total_tokens="header:x-compute-tokens",
    ),
    errors=ErrorShape(
        message=("error",),
        code=("error_type",),
        phrases=(
            Phrase(
                status=422,
                says="batch size",
                too_many=True,
                most_after="maximum allowed batch size",
            ),
            Phrase(status=424, says="not a re-ranker", kind=FailureKind.FATAL),
        ),
    ),
)

CHECK = Check(
    "/info",
    model=ModelPlaces(
        names=("model_id", "served_model_name"),
        tasks="model_type",
        task="reranker",
        documents_max="max_client_batch_size",
        tokens_max="max_input_length",
        cuts="auto_truncate",
        cut_by="truncate",
        loosely=True,
    ),
    complete=True,
)
"""It serves one model, whatever is asked, and tells which one only here."""

TEI = Vendor(
    name="tei",
    options=TeiOptions,
    make=compatible("tei", SHAPE),
    score_options=decisive(TeiOptions),
    **OWN_SERVER,
    checks=(CHECK,),
    takes_top_n=False,
    documents_max=32,
    bytes_max=2_000_000,
    facts=Facts(
        "TEI, on your own machines; it names no model: the job's stands in the output",
        limits=(
            "32 documents a request unless --max-client-batch-size says otherwise: documents_max",
            "512 documents at once (--max-concurrent-requests), 2,000,000 bytes a request",
        ),
        billing=OWN_BILLING,
        scores="0 to 1 (sigmoid), raw with raw_scores",
        pairs=CROSS_ENCODER,
        verified="OpenAPI 1.9.3 (calls, replies and errors are held against it), code at 0d124dc",
    ),
)
