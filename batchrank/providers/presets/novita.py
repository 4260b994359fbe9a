"""
Novita AI: `POST /openai/v1/rerank`.

Sources: its pages "Create rerank" (request, reply) and "Common Error Codes" on 2026-11-20; prices
from LiteLLM. Neither page shows the body of an error.
"""

from __future__ import annotations

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, a_million
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive

SHAPE = Shape(reply=ReplyShape(total_tokens="usage.total_tokens"))

NOVITA = Vendor(
    name="novita",
    base_url="https://api.novita.ai/openai/v1",
    key_env="NOVITA_API_KEY",
    options=PresetOptions,
    make=compatible("novita", SHAPE),
    score_options=decisive(PresetOptions),
    prices={
        "baai/bge-reranker-v2-m3": a_million(0.01),
        "qwen/qwen3-reranker-8b": a_million(0.05),
    },
    facts=Facts(
        "Novita AI",
        limits=("8,000 tokens (bge-reranker-v2-m3), 32,768 (qwen3-reranker-8b)",),
        billing="tokens",
        pairs=CROSS_ENCODER,
        verified="its documents",
        unknown=(
            "how many documents a request may hold",
            "bodies of errors",
            "Retry-After",
            "which model answered",
            "the name of the key's variable",
        ),
    ),
)
