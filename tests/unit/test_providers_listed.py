"""
`batchrank providers`: what is told of whom.
"""

from __future__ import annotations

import json

import pytest

from batchrank.errors import JobError
from batchrank.examine.providers import providers
from batchrank.providers import VENDORS


def test_everybody_is_told_of_with_how_we_know() -> None:
    """
    In lines that fit a terminal, and nobody as if it had been tried.
    """
    told = providers().as_text()

    blocks = told.split("\n\n")
    told_of = [*VENDORS, "lexical", "crossencoder"]
    assert told_of == [block.partition("\n")[0].partition(":")[0] for block in blocks]
    assert len(VENDORS) == " ".join(told.split()).count("never tried on the real service")
    assert [] == [line for line in told.splitlines() if len(line) > 100]


def test_limits_prices_and_scores_are_told() -> None:
    """
    Of Cohere, say: each with its source and its day.
    """
    told = " ".join(providers("cohere").as_text().split())

    assert "10,000 are an error" in told
    assert "rerank-v4.0-pro $0.0025 a unit" in told
    assert "(LiteLLM 1.109.1's price map, 2026-11-20)" in told
    assert "scores 0 to 1" in told
    assert "unknown Retry-After" in told
    assert "lexical" not in told


def test_programs_are_told_the_same() -> None:
    """
    As JSON: a list, with numbers where there are some.
    """
    (cohere,) = json.loads(json.dumps(providers("cohere").as_data()))

    assert "cohere" == cohere["name"]
    assert 1000 == cohere["documents_max"]
    assert 0.002 == cohere["prices"]["rerank-v3.5"]["usd_per_search_unit"]
    assert list(VENDORS) == [vendor["name"] for vendor in providers().as_data()]


def test_whoever_is_not_there_is_refused_with_those_who_are() -> None:
    """
    Before a traceback.
    """
    with pytest.raises(JobError, match=r"nobody: is no provider \(there are openrouter, cohere"):
        providers("nobody")
