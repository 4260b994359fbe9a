"""
vLLM: `POST /v1/rerank`.

Source: its server's code at 055e47c (request, reply). Documents always come back.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import LISTING
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive


class VllmOptions(PresetOptions):
    """
    vLLM's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"priority", "cache_salt", "user"})

    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: str | None = None
    max_tokens_per_query: int | None = None
    max_tokens_per_doc: int | None = None
    instruction: str | None = None
    use_activation: bool | None = None
    priority: int | None = None
    cache_salt: str | None = None
    user: str | None = None


SHAPE = Shape(path="/v1/rerank", reply=ReplyShape(model="model", total_tokens="usage.total_tokens"))

VLLM = Vendor(
    name="vllm",
    options=VllmOptions,
    make=compatible("vllm", SHAPE),
    score_options=decisive(VllmOptions),
    **OWN_SERVER,
    checks=(LISTING,),
    facts=Facts(
        "vLLM, on your own machines",
        limits=("what is longer than the model's context is refused unless it is to be cut",),
        billing=OWN_BILLING,
        scores="depends on the model and use_activation",
        pairs=CROSS_ENCODER,
        verified="code at 055e47c",
        unknown=("error bodies", "documents of one request"),
    ),
)
