"""
NVIDIA: hosted rerankers, `POST /v1/retrieval/<model>/reranking`, and NIM, `POST /v1/ranking`.

Sources: docs.nvidia.com (NIM for retrieval, reranking), LiteLLM 1.109.1. Scores are raw logits.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class NvidiaOptions(PresetOptions):
    """
    NVIDIA's request fields.
    """

    truncate: Literal["NONE", "END"] | None = Field(
        None, description="END cuts what is too long; with NONE it is refused"
    )


_HOSTED = RequestShape(
    documents="passages", top_n="top_k", query_form="structure", document_form="structure"
)
_REPLY = ReplyShape(results="rankings", score="logit", document="")

NVIDIA = Vendor(
    name="nvidia",
    base_url="https://ai.api.nvidia.com/v1/retrieval",
    key_env="NVIDIA_API_KEY",
    options=NvidiaOptions,
    make=compatible("nvidia", Shape(path="/<model>/reranking", request=_HOSTED, reply=_REPLY)),
    score_options=decisive(NvidiaOptions),
    documents_max=512,
    takes_images=True,
    facts=Facts(
        "NVIDIA, hosted",
        limits=("512 passages a request",),
        scores="raw logits",
        pairs=CROSS_ENCODER,
        verified="its documents and LiteLLM's code",
        unknown=("limits of requests", "billing and prices", "usage in replies", "error bodies"),
    ),
)

NVIDIA_NIM = Vendor(
    name="nvidia-nim",
    **OWN_SERVER,
    options=NvidiaOptions,
    make=compatible(
        "nvidia-nim",
        Shape(path="/v1/ranking", request=_HOSTED.model_copy(update={"top_n": ""}), reply=_REPLY),
    ),
    score_options=decisive(NvidiaOptions),
    documents_max=512,
    takes_top_n=False,
    takes_images=True,
    facts=Facts(
        "NVIDIA NIM, on your own machines",
        limits=("512 passages a request",),
        billing=OWN_BILLING,
        scores="raw logits",
        pairs=CROSS_ENCODER,
        verified="NVIDIA's documents",
        unknown=("error bodies",),
    ),
)
