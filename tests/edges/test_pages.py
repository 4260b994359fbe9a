"""
Answers that come in pages: each is a request, and what fails on the way is not free.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from batchrank.domain import Answer, Failure, FailureKind, RateLimit, RerankReply
from batchrank.engine.scorer import HttpScorer
from batchrank.engine.waiting import Quotas, Turnstiles
from batchrank.providers import VENDORS
from batchrank.wire.auth import Anonymous
from batchrank.wire.carrier import HttpxCarrier
from batchrank.wire.exchange import Wire
from tests.playing import cases_of, provider_of, request_of

pytestmark = pytest.mark.anyio

CASE = cases_of("bedrock-rerank")["good"]
SCORES = (0.98, 0.1, 0.25)


def page(asked: Any) -> httpx.Response:
    """
    One result a page.
    """
    at = int(asked.get("nextToken", 0))
    body: dict[str, Any] = {"results": [{"index": at, "relevanceScore": SCORES[at]}]}
    return httpx.Response(200, json=body | ({"nextToken": str(at + 1)} if at < 2 else {}))


async def scored(
    answer: Callable[[Any], httpx.Response], one_more: Callable[[], None] = lambda: None
) -> Answer:
    """
    What a server that answers so is read as.
    """
    transport = httpx.MockTransport(lambda request: answer(json.loads(request.content)))
    wire = Wire(HttpxCarrier(transport, connect_timeout_s=1, timeout_s=1), Anonymous())
    provider = provider_of(VENDORS["bedrock-rerank"], CASE)
    scorer = HttpScorer(provider, wire, Anonymous(), time.time, one_more)
    return await scorer.score(request_of(CASE))


async def test_pages_are_one_answer_and_requests_each() -> None:
    """
    Those behind them wait for every page after the first.
    """
    turnstiles = Turnstiles(Quotas(requests=RateLimit(1.0, 1.0)))
    _, before, then = (turnstiles.requests.admit(1.0, 0.0) for _ in range(3))
    answer = await scored(page, turnstiles.one_more)

    assert isinstance(answer, RerankReply)
    assert SCORES == answer.scores
    assert then + 3 * (then - before) == pytest.approx(turnstiles.requests.admit(1.0, 0.0))


async def test_a_page_that_was_never_sent_leaves_the_outcome_unknown() -> None:
    """
    The first may have been billed.
    """

    def answer(asked: Any) -> httpx.Response:
        if "nextToken" in asked:
            raise httpx.ConnectError("refused")
        return page(asked)

    failure = await scored(answer)

    assert isinstance(failure, Failure)
    assert (FailureKind.UNKNOWN, "connect") == (failure.kind, failure.code)
    assert failure.message == "on a later page: refused"
