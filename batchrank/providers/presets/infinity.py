"""
Infinity: `POST /rerank`.

Sources: its OpenAPI document 0.0.77 and its server's code at fcb951c. A server with a `url_prefix`
has it in `base_url`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.domain import FailureKind
from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import Check, ModelPlaces
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import ErrorShape, Phrase, PresetOptions, ReplyShape, Shape, decisive


class InfinityOptions(PresetOptions):
    """
    Infinity's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents"})

    raw_scores: bool | None = None
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(
    reply=ReplyShape(model="model", total_tokens="usage.total_tokens"),
    errors=ErrorShape(
        phrases=(
            # the one 400 of its own is for a model that it does not serve; with one model it asks
            # that one, and the reply's name tells
            Phrase(status=400, says="model", kind=FailureKind.FATAL),
            # pydantic's words; of a document that is too long it says "string"
            Phrase(
                status=422,
                says="list should have at most",
                too_many=True,
                most_after="list should have at most",
            ),
        ),
    ),
)

CHECK = Check("/models", model=ModelPlaces(tasks="capabilities"), entries="data", complete=True)
"""
With what each model can do, in newer versions. A server with one model answers whatever is asked,
and names its own in the reply: then that is another model's.
"""

INFINITY = Vendor(
    name="infinity",
    options=InfinityOptions,
    make=compatible("infinity", SHAPE),
    score_options=decisive(InfinityOptions),
    **OWN_SERVER,
    checks=(CHECK,),
    documents_max=2048,
    facts=Facts(
        "Infinity, on your own machines",
        limits=("2,048 documents a request, each of 122,880 characters at most",),
        billing=OWN_BILLING,
        scores="raw with raw_scores; their range is not documented",
        pairs=CROSS_ENCODER,
        verified="OpenAPI 0.0.77 (calls and replies are held against it), code at fcb951c,"
        " and a server of 0.0.78 with a small model (`make others`)",
    ),
)
