"""
Voyage: `POST /v1/rerank`.

Sources: docs.voyageai.com (reranker, rate limits, pricing, error codes), its Python SDK. Keys that
begin with `al-` are for `base_url = "https://ai.mongodb.com/v1"`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import a_million
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class VoyageOptions(PresetOptions):
    """
    Voyage's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    truncation: bool | None = Field(
        None, description="false: what is too long is refused instead of cut; true unless told"
    )
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    request=RequestShape(top_n="top_k"),
    reply=ReplyShape(results="data", model="model", total_tokens="usage.total_tokens"),
)

VOYAGE = Vendor(
    name="voyage",
    options=VoyageOptions,
    make=compatible("voyage", SHAPE),
    score_options=decisive(VoyageOptions),
    base_url="https://api.voyageai.com/v1",
    key_env="VOYAGE_API_KEY",
    documents_max=1000,
    tokens_max=600_000,
    prices={
        "rerank-3": a_million(0.05, "docs.voyageai.com"),
        "rerank-2.5": a_million(0.05, "docs.voyageai.com"),
        "rerank-2.5-lite": a_million(0.02, "docs.voyageai.com"),
    },
    query_each=True,
    facts=Facts(
        "Voyage (MongoDB)",
        limits=(
            "1,000 documents a request",
            "600,000 tokens a request, the query once for every document",
            "32,000 tokens a pair, 8,000 a query",
            "2,000 requests and 2 million tokens (lite 4) a minute; more in higher tiers",
        ),
        billing="tokens: the query once for every document, and the documents",
        pairs="inferred: the query is billed with every document, as cross-encoders read them",
        verified="its documents and its SDK",
        unknown=("the error body", "the range of scores", "Retry-After"),
    ),
)
