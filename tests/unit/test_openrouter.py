"""
What `test_vendors` cannot play of OpenRouter from its cases.
"""

from __future__ import annotations

import pytest

from batchrank.domain import Failure
from batchrank.providers import OPENROUTER
from batchrank.providers.base import same_model
from tests.playing import cases_of, provider_of, reply_of, request_of


def test_a_refused_reply_leaves_its_length_and_digest() -> None:
    """
    Of a bad reply its digest, length and status are kept, so that it can be recognised.
    """
    case = cases_of("openrouter")["bad-not-json"]

    answer = provider_of(OPENROUTER, case).read(request_of(case), reply_of(case))

    assert isinstance(answer, Failure)
    assert 24 == answer.reply_bytes
    assert 64 == len(answer.reply_sha256 or "")


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5", True),
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5-20260901", True),
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5-2026-09-01", True),
        ("cohere/rerank-v3.5:floor", "cohere/rerank-v3.5", True),
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5-20269901", False),
        ("cohere/rerank-v3.5", "cohere/rerank-v3", False),
        ("cohere/rerank-v3.5", "cohere/rerank-v3.5-fast", False),
        ("cohere/rerank-v3.5", "", False),
    ],
)
def test_the_served_model_is_the_one_asked_for_or_that_plus_a_date(
    asked: str, served: str, same: bool
) -> None:
    """
    Nothing else counts as the same model.
    """
    assert same is same_model(asked, served)
