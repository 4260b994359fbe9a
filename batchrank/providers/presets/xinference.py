"""
Xinference: `POST /v1/rerank`, shaped as Cohere's v1.

Source: its server's code. What goes wrong is a 500 with `detail`, whatever it is.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import Check, ModelPlaces
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import BEHIND, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import ErrorShape, PresetOptions, Shape, decisive


class XinferenceOptions(PresetOptions):
    """
    Xinference's request fields.
    """

    FREE: ClassVar[frozenset[str]] = frozenset({"return_documents", "return_len"})

    max_chunks_per_doc: int | None = None
    return_len: bool | None = None
    return_documents: bool | None = Field(
        None, description="true: they come back, and are compared"
    )


SHAPE = Shape(path="/v1/rerank", errors=ErrorShape(message=("detail",), code=()))

CHECK = Check("/v1/models", model=ModelPlaces(tasks="model_type"), entries="data", complete=True)
"""Models by what they were launched as (`model_uid`): nothing else can be called."""

XINFERENCE = Vendor(
    name="xinference",
    options=XinferenceOptions,
    make=compatible("xinference", SHAPE),
    score_options=decisive(XinferenceOptions),
    **OWN_SERVER,
    checks=(CHECK,),
    splits=False,
    facts=Facts(
        "Xinference, on your own machines",
        billing=OWN_BILLING,
        pairs=BEHIND,
        verified="its server's code",
        unknown=("documents of one request", "what stands in meta", "the range of scores"),
    ),
)
