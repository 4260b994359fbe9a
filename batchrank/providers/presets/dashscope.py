"""
DashScope (Alibaba Cloud Model Studio): `POST /compatible-api/v1/reranks`.

Source: its documents (request, reply, limits, the body of errors). Other regions have addresses of
their own: `base_url` takes them.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import ErrorShape, PresetOptions, ReplyShape, Shape, decisive


class DashScopeOptions(PresetOptions):
    """
    DashScope's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    instruct: str | None = None
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    path="/reranks",
    reply=ReplyShape(total_tokens="usage.total_tokens", request_id="request_id"),
    errors=ErrorShape(message=("message",), code=("code",)),
)

DASHSCOPE = Vendor(
    name="dashscope",
    options=DashScopeOptions,
    make=compatible("dashscope", SHAPE),
    score_options=decisive(DashScopeOptions),
    base_url="https://dashscope.aliyuncs.com/compatible-api/v1",
    key_env="DASHSCOPE_API_KEY",
    documents_max=500,
    tokens_max=120_000,
    splits=False,
    facts=Facts(
        "DashScope (Alibaba Cloud)",
        limits=(
            "500 documents and 120,000 tokens a request (gte-rerank-v2: 30,000: tokens_max)",
            "4,000 tokens a document or query, cut there",
            "5,400 requests a minute",
        ),
        billing="tokens; $0.1 a million in Singapore: state it in [provider.price]",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its documents",
        unknown=("which codes errors have", "the range of scores"),
    ),
)
