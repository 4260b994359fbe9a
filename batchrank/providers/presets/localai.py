"""
LocalAI: `POST /v1/rerank`.

Source: its documents. Documents always come back.
"""

from __future__ import annotations

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import OPEN_LISTING
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import BEHIND, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive

SHAPE = Shape(path="/v1/rerank", reply=ReplyShape(model="model"))

LOCALAI = Vendor(
    name="localai",
    options=PresetOptions,
    make=compatible("localai", SHAPE),
    score_options=decisive(PresetOptions),
    **OWN_SERVER,
    checks=(OPEN_LISTING,),
    splits=False,
    facts=Facts(
        "LocalAI, on your own machines",
        billing=OWN_BILLING,
        pairs=BEHIND,
        verified="its documents",
        unknown=("documents of one request", "what stands in usage", "error bodies", "scores"),
    ),
)
