"""
ZeroEntropy: `POST /v1/models/rerank`.

Sources: docs.zeroentropy.dev, its Python SDK (statuses that are retried, `x-should-retry`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import ErrorShape, PresetOptions, ReplyShape, Shape, decisive


class ZeroEntropyOptions(PresetOptions):
    """
    ZeroEntropy's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"latency"})

    latency: Literal["fast", "slow"] | None = Field(
        None, description="slow has ten times the limit of bytes"
    )


SHAPE = Shape(
    path="/models/rerank",
    reply=ReplyShape(total_tokens="total_tokens"),
    errors=ErrorShape(should_retry="x-should-retry"),
)

ZEROENTROPY = Vendor(
    name="zeroentropy",
    options=ZeroEntropyOptions,
    make=compatible("zeroentropy", SHAPE),
    score_options=decisive(ZeroEntropyOptions),
    base_url="https://api.zeroentropy.dev/v1",
    key_env="ZEROENTROPY_API_KEY",
    bytes_max=5_000_000,
    pair_bytes=150,
    facts=Facts(
        "ZeroEntropy",
        limits=(
            "5,000,000 bytes a request: each document's, the query's and 150, added up",
            "fast: 1,000 requests and 500,000 bytes a minute; slow: 5,000,000 bytes a minute",
        ),
        billing="tokens; $0.025 a million: state it in [provider.price]",
        scores="0 to 1",
        pairs="inferred: its limit counts the query with every document, as cross-encoders do",
        verified="its documents and its SDK",
        unknown=("documents of one request", "error bodies"),
    ),
)
