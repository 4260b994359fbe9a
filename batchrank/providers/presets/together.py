"""
Together: `POST /v1/rerank`.

Sources: its Python SDK (shaped as Cohere's v1), LiteLLM 1.109.1 (price map, which marks the model
deprecated since 2026-02-06).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import a_million
from batchrank.providers.shape import ErrorShape, PresetOptions, ReplyShape, Shape, decisive


class TogetherOptions(PresetOptions):
    """
    Together's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    reply=ReplyShape(total_tokens="usage.total_tokens"),
    errors=ErrorShape(kinds={"insufficient_quota": FailureKind.FATAL}),
)

TOGETHER = Vendor(
    name="together",
    options=TogetherOptions,
    make=compatible("together", SHAPE),
    score_options=decisive(TogetherOptions),
    base_url="https://api.together.ai/v1",
    key_env="TOGETHER_API_KEY",
    splits=False,
    prices={"Salesforce/Llama-Rank-V1": a_million(0.1)},
    facts=Facts(
        "Together",
        limits=("Llama-Rank-V1: 8,192 tokens of context",),
        billing="tokens",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its SDK and LiteLLM's price map",
        unknown=("documents of one request", "limits of requests", "the range of scores"),
    ),
)
