"""
LiteLLM's proxy: `POST /v2/rerank`, shaped as Cohere's.

Source: LiteLLM 1.109.1, and a proxy of 1.106.2 that was asked. What a call cost stands in a header;
its errors are in OpenAI's form.
"""

from __future__ import annotations

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import OPEN_LISTING
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import BEHIND, OWN_ADDRESS
from batchrank.providers.shape import ErrorShape, Phrase, PresetOptions, ReplyShape, Shape, decisive

SHAPE = Shape(
    path="/v2/rerank",
    reply=ReplyShape(
        request_id="header:x-litellm-call-id",
        search_units="meta.billed_units.search_units",
        cost_usd="header:x-litellm-response-cost",
    ),
    errors=ErrorShape(
        kinds={"insufficient_quota": FailureKind.FATAL},
        phrases=(
            # another key than the master's, where there is no database to look it up in
            Phrase(status=400, says="no connected db", kind=FailureKind.FATAL),
            Phrase(status=400, says="invalid model name", kind=FailureKind.FATAL),
        ),
    ),
)

LITELLM_PROXY = Vendor(
    name="litellm",
    options=PresetOptions,
    make=compatible("litellm", SHAPE),
    score_options=decisive(PresetOptions),
    base_url="",
    key_env="",
    address=OWN_ADDRESS,
    needs_key=False,
    checks=(OPEN_LISTING,),
    splits=False,
    facts=Facts(
        "LiteLLM's proxy, on your own machines",
        billing="as the vendor behind it; the cost is in the header x-litellm-response-cost",
        scores="as the vendor behind it gives them",
        pairs=BEHIND,
        verified="LiteLLM's code, and its proxy in front of the embedded server (`make others`)",
        unknown=("whose model answered",),
    ),
)
