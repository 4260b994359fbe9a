"""
Whoever has no preset: `compatible`, which a job file configures, and `llmapi`, of which nothing is
public.

Owns the usual names that both begin with, Cohere's. Every one of them can be set in the job file.
"""

from __future__ import annotations

from batchrank.providers.base import Facts, Vendor
from batchrank.providers.compatible import compatible
from batchrank.providers.presets.known import BEHIND
from batchrank.providers.shape import PresetOptions, ReplyShape, Shape, decisive

SHAPE = Shape(reply=ReplyShape(search_units="meta.billed_units.search_units"))

LLMAPI = Vendor(
    name="llmapi",
    base_url="",
    key_env="LLMAPI_API_KEY",
    address="LLM API publishes neither address nor interface: its support has to tell them; what is"
    " not shaped as at Cohere goes into provider.options (path, request, reply, errors)",
    options=PresetOptions,
    make=compatible("llmapi", SHAPE),
    score_options=decisive(PresetOptions),
    splits=False,
    facts=Facts(
        "LLM API (llmapi.ai), as its support describes it to you",
        pairs=BEHIND,
        verified="nothing: its page promises rerank-4-pro by Cohere, and tells no interface",
        unknown=("address", "path", "authentication", "request", "reply", "errors", "limits"),
    ),
)

COMPATIBLE = Vendor(
    name="compatible",
    base_url="",
    key_env="",
    address='say where it is, as in base_url = "https://rerank.example/v1"',
    options=PresetOptions,
    make=compatible("compatible", SHAPE),
    score_options=decisive(PresetOptions),
    needs_key=False,
    splits=False,
    facts=Facts(
        "anybody whose API is shaped as Cohere's: provider.options tells the rest",
        billing="as you state it in [provider.price]",
        pairs=BEHIND,
        verified="nothing: the job file tells",
        unknown=("everything",),
    ),
)
