"""
Fireworks: `POST /inference/v1/rerank`.

Sources: its documents (request, reply), LiteLLM 1.109.1 (price of the 8B model).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive


class FireworksOptions(PresetOptions):
    """
    Fireworks' request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(reply=ReplyShape(results="data"))

FIREWORKS = Vendor(
    name="fireworks",
    options=FireworksOptions,
    make=compatible("fireworks", SHAPE),
    score_options=decisive(FireworksOptions),
    base_url="https://api.fireworks.ai/inference/v1",
    key_env="FIREWORKS_API_KEY",
    splits=False,
    facts=Facts(
        "Fireworks",
        limits=("qwen3-reranker: 40,960 tokens of context",),
        billing="tokens; $0.2 a million for the 8B model (LiteLLM): state it in [provider.price]",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its documents",
        unknown=("limits", "error bodies", "what stands in usage", "the range of scores"),
    ),
)
