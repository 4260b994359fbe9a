"""
DeepInfra: `POST /v1/inference/<model>`, where scores come back in the order of the documents.

Sources: the API pages of its models, LiteLLM 1.109.1. The query is sent once for every document.
"""

from __future__ import annotations

from typing import ClassVar

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.shape import PresetOptions, ReplyShape, RequestShape, Shape, decisive


class DeepInfraOptions(PresetOptions):
    """
    DeepInfra's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"service_tier"})

    instruction: str | None = None
    service_tier: str | None = None


SHAPE = Shape(
    path="/<model>",
    request=RequestShape(model="", query="queries", top_n="", query_form="repeated"),
    reply=ReplyShape(
        results="scores",
        index="",
        request_id="request_id",
        total_tokens="input_tokens",
        cost_usd="inference_status.cost",
    ),
)

DEEPINFRA = Vendor(
    name="deepinfra",
    options=DeepInfraOptions,
    make=compatible("deepinfra", SHAPE),
    score_options=decisive(DeepInfraOptions),
    base_url="https://api.deepinfra.com/v1/inference",
    key_env="DEEPINFRA_API_KEY",
    takes_top_n=False,
    scores_pairs_alone=True,  # its request is a list of pairs, each with a query of its own
    facts=Facts(
        "DeepInfra",
        billing="the cost is in the reply, taken as US dollars",
        pairs="the request is a list of pairs",
        verified="the API pages of its models and LiteLLM's code",
        unknown=("limits", "error bodies", "the currency of the cost", "the range of scores"),
    ),
)
