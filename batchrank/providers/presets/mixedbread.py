"""
Mixedbread: `POST /v1/reranking`.

Source: its Python SDK (request and reply models, statuses).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class MixedbreadOptions(PresetOptions):
    """
    Mixedbread's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_input"})

    rewrite_query: bool | None = None
    return_input: bool | None = Field(None, description="true: they come back, and are compared")


SHAPE = Shape(
    path="/reranking",
    request=RequestShape(documents="input", top_n="top_k"),
    reply=ReplyShape(results="data", score="score", document="input"),
)

MIXEDBREAD = Vendor(
    name="mixedbread",
    options=MixedbreadOptions,
    make=compatible("mixedbread", SHAPE),
    score_options=decisive(MixedbreadOptions),
    base_url="https://api.mixedbread.com/v1",
    key_env="MXBAI_API_KEY",
    splits=False,
    facts=Facts(
        "Mixedbread",
        limits=("long documents are cut",),
        pairs="not documented: if your model scores pairs independently, splits = true",
        verified="its SDK",
        unknown=("limits", "billing and prices", "what stands in usage", "error bodies"),
    ),
)
