"""
`batchrank providers`: what is told of whom.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date, timedelta

import pytest

from batchrank.errors import JobError
from batchrank.examine.providers import Providers, providers
from batchrank.job.inprocess import IN_PROCESS
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
    assert "checks GET /v1/models/<model> before the first call" in told
    assert "unknown Retry-After" in told
    assert "lexical" not in told


def test_programs_are_told_the_same() -> None:
    """
    As JSON: a list, with numbers where there are some.
    """
    (cohere,) = json.loads(json.dumps(providers("cohere").as_data()))

    assert "cohere" == cohere["name"]
    assert 1000 == cohere["documents_max"]
    assert ["/v1/models/<model>"] == cohere["checks"]
    assert 0.002 == cohere["prices"]["rerank-v3.5"]["usd_per_search_unit"]
    known = [*VENDORS, *IN_PROCESS]
    assert known == [told["name"] for told in providers().as_data()]
    assert known == [told["name"] for name in known for told in providers(name).as_data()]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_scorers_in_process_are_told_like_others(name: str) -> None:
    """
    Alone, too: whoever reads of one in the list asks for it.
    """
    told = providers(name).as_text()

    assert told.startswith(f"{name}: in process\n")
    assert told in providers().as_text()


def test_what_a_request_may_hold_is_told_with_what_sets_it() -> None:
    """
    Documents, bytes and tokens, as far as they are known; and whether groups are cut at all.
    """

    def told(name: str) -> str:
        return " ".join(providers(name).as_text().split())

    most = "requests of 32 documents and 2,000,000 bytes at most"
    assert f"{most}, unless documents_max and bytes_max say otherwise" in told("tei")
    assert "1,000 documents and 600,000 tokens at most" in told("voyage")
    never = "a group is never cut, unless splits = true says it may be; of a whole group, of 200"
    assert f"{never} documents to cohere-*" in told("pinecone")
    assert "of a whole group, unless documents_max says otherwise" in told("vllm")


def test_prices_that_are_too_old_are_told_as_such() -> None:
    """
    To people and to programs; on the ninetieth day they are not.
    """
    seen = date(2026, 11, 20)
    (cohere,) = providers("cohere", seen + timedelta(days=91)).as_data()
    fresh = providers("cohere", seen + timedelta(days=90))

    told = " ".join(providers("cohere", seen + timedelta(days=91)).as_text().split())
    assert "2026-11-20, 91 days ago: check, and state it in [provider.price])" in told
    assert cohere["prices"]["rerank-v3.5"]["too_old"]
    assert "days ago" not in fresh.as_text()
    assert not fresh.as_data()[0]["prices"]["rerank-v3.5"]["too_old"]


def test_whoever_is_not_there_is_refused_with_those_who_are() -> None:
    """
    Before a traceback.
    """
    with pytest.raises(JobError, match=r"nobody: is no provider \(there are openrouter, cohere"):
        providers("nobody")


def test_requests_that_are_signed_say_so_and_limits_of_models_are_told() -> None:
    """
    Where the credentials come from, and what else would do; which models take how many documents.
    """
    signed, either = (" ".join(providers(name).as_text().split()) for name in BEDROCKS)
    (pinecone,) = providers("pinecone").as_data()
    vendor = replace(VENDORS["pinecone"], splits=True)

    assert "signed with AWS credentials, found as AWS's own tools find them limits" in signed
    assert "or AWS_BEARER_TOKEN_BEDROCK (authorization: Bearer KEY)" in either
    assert (None, {"cohere-": 200}) == tuple(
        pinecone[name] for name in ("documents_max", "documents_max_by_model")
    )
    assert (200, None) == tuple(map(vendor.documents_max_of, ("cohere-rerank-3.5", "bge")))
    told = Providers((vendor,), date(2026, 11, 20)).as_text()
    assert "of a whole group, of 200 documents to cohere-*, unless documents_max" in told


BEDROCKS = ("bedrock-rerank", "bedrock")
