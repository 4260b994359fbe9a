"""
Which names are one model: a table of facts, and how it is asked.
"""

from __future__ import annotations

import pytest

from batchrank.providers import VENDORS
from batchrank.providers.same import SAME_MODELS, are_one, names_at


@pytest.mark.parametrize("names", SAME_MODELS, ids=lambda names: next(iter(names.values())))
def test_every_name_is_a_vendor_s_own(names: dict[str, str]) -> None:
    """
    Two vendors at least, all known; none calls two models alike.
    """
    assert 2 <= len(names)
    assert names.keys() <= VENDORS.keys()
    for vendor, model in names.items():
        assert 1 == sum(other.get(vendor) == model for other in SAME_MODELS)


def test_equal_names_say_something_at_one_vendor_only() -> None:
    """
    Two servers may scale the scores of one model differently.
    """
    assert are_one("tei", "BAAI/bge", "tei", "BAAI/bge")
    assert not are_one("tei", "BAAI/bge", "vllm", "BAAI/bge")
    assert not are_one("openrouter", "cohere/rerank-v3.5", "openrouter", "cohere/rerank-4-pro")


def test_what_is_known_holds_both_ways() -> None:
    """
    And says what the other one calls it.
    """
    assert are_one("openrouter", "cohere/rerank-v3.5", "cohere", "rerank-v3.5")
    assert are_one("cohere", "rerank-v3.5", "openrouter", "cohere/rerank-v3.5")
    assert "Cohere-rerank-v4.0-pro" == names_at("cohere", "rerank-v4.0-pro", "azure")
    assert names_at("cohere", "rerank-v3.5", "azure") is None
    assert "x" == names_at("tei", "x", "tei")
