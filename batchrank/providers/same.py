"""
Which models of different vendors are one: the names under which each offers it.

Owns these facts, as data. Equal names alone say nothing: two servers may scale the scores of one
model differently. What nobody documents is not here; a job file can state it.

Sources: the vendors' own names as in their presets; OpenRouter's model pages, which name Cohere as
who serves them; Microsoft's page on Cohere's models at Foundry, whose deployments have these names
unless somebody chooses others.
"""

from __future__ import annotations

from collections.abc import Mapping

SAME_MODELS: tuple[Mapping[str, str], ...] = (
    {"openrouter": "cohere/rerank-v3.5", "cohere": "rerank-v3.5"},
    {
        "openrouter": "cohere/rerank-4-pro",
        "cohere": "rerank-v4.0-pro",
        "azure": "Cohere-rerank-v4.0-pro",
    },
    {
        "openrouter": "cohere/rerank-4-fast",
        "cohere": "rerank-v4.0-fast",
        "azure": "Cohere-rerank-v4.0-fast",
    },
    {"openrouter": "cohere/rerank-5-pro", "cohere": "rerank-v5.0-pro"},
    {"openrouter": "cohere/rerank-5-fast", "cohere": "rerank-v5.0-fast"},
)
"""Each is one model: vendor → what it calls it."""


def are_one(vendor: str, model: str, other_vendor: str, other_model: str) -> bool:
    """
    Tell whether the *model* of *vendor* is known to be the *other_model* of *other_vendor*.
    """
    if vendor == other_vendor:
        return model == other_model
    return any(
        names.get(vendor) == model and names.get(other_vendor) == other_model
        for names in SAME_MODELS
    )


def names_at(vendor: str, model: str, other_vendor: str) -> str | None:
    """
    What *other_vendor* calls the *model* of *vendor*, if that is known.
    """
    if vendor == other_vendor:
        return model
    found = (names for names in SAME_MODELS if names.get(vendor) == model)
    return next((names[other_vendor] for names in found if other_vendor in names), None)
