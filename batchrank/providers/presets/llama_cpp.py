"""
llama.cpp: `POST /v1/rerank`.

Source: its server's documents. Scores are as the model gives them.
"""

from __future__ import annotations

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.checks import OPEN_LISTING
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import CROSS_ENCODER, OWN_BILLING, OWN_SERVER
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive

SHAPE = Shape(path="/v1/rerank", reply=ReplyShape(model="model"))

LLAMA_CPP = Vendor(
    name="llama.cpp",
    options=PresetOptions,
    make=compatible("llama.cpp", SHAPE),
    score_options=decisive(PresetOptions),
    **OWN_SERVER,
    checks=(OPEN_LISTING,),
    facts=Facts(
        "llama.cpp's server, on your own machines",
        billing=OWN_BILLING,
        scores="raw",
        pairs=CROSS_ENCODER,
        verified="its documents",
        unknown=("documents of one request", "what stands in usage", "error bodies"),
    ),
)
