"""
Jina: `POST /v1/rerank`.

Sources: jina.ai/reranker, LiteLLM 1.109.1 (request, reply, price map). Its OpenAPI document was not
found, its error codes are known from others only.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import a_million
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive


class JinaOptions(PresetOptions):
    """
    Jina's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(reply=ReplyShape(total_tokens="usage.total_tokens"))

JINA = Vendor(
    name="jina",
    options=JinaOptions,
    make=compatible("jina", SHAPE),
    score_options=decisive(JinaOptions),
    base_url="https://api.jina.ai/v1",
    key_env="JINA_API_KEY",
    splits=False,
    prices={"jina-reranker-v2-base-multilingual": a_million(0.05)},
    facts=Facts(
        "Jina",
        limits=("500 requests and 1 million tokens a minute; premium keys have more",),
        billing="tokens",
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its product page and LiteLLM's code",
        unknown=("documents of one request", "OpenAPI", "error bodies", "the range of scores"),
    ),
)
