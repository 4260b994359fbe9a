"""
OpenRouter's translation, by case files: request, expected call, reply, expected reading.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict

from batchrank.domain import Document, Failure, RerankReply, RerankRequest, RichDocument, Slice
from batchrank.providers import OPENROUTER
from batchrank.providers.base import HttpReply, Settings, same_model

CASES = sorted((Path(__file__).parents[1] / "cases" / "openrouter").glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    """
    One case.
    """
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return] # our own files


def request_of(case: dict[str, Any]) -> RerankRequest:
    """
    The request of a case.
    """
    documents: list[Document] = [
        document if isinstance(document, str) else RichDocument(**document)
        for document in case["request"]["documents"]
    ]
    count = len(documents)
    query = case["request"]["query"]
    return RerankRequest(Slice(0, 0, count), query, tuple(documents), tuple(range(count)))


def settings_of(case: dict[str, Any]) -> Settings:
    """
    The settings of a case.
    """
    given = case["settings"]
    options = OPENROUTER.options.model_validate(given.get("options", {}))
    return Settings(given["model"], OPENROUTER.base_url, given.get("top_n"), options)


def reply_of(case: dict[str, Any]) -> HttpReply:
    """
    The reply of a case.
    """
    reply = case["reply"]
    body = reply["raw"] if "raw" in reply else json.dumps(reply["body"])
    return HttpReply(reply["status"], reply.get("headers", {}), body.encode())


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=p.stem) for p in CASES if "call" in (c := read(p))]
)
def test_a_request_becomes_the_call_that_the_specification_asks_for(case: dict[str, Any]) -> None:
    """
    Method, address, headers and body are those of the case file.
    """
    call = OPENROUTER.make(settings_of(case)).call(request_of(case))

    assert case["call"] == {
        "method": call.method,
        "url": call.url,
        "headers": dict(call.headers),
        "body": json.loads(call.body),
    }


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=p.stem) for p in CASES if "reading" in (c := read(p))]
)
def test_a_reply_is_read_as_the_case_says(case: dict[str, Any]) -> None:
    """
    A good reply gives scores bound to documents, anything else a failure of the right class.
    """
    provider = OPENROUTER.make(settings_of(case))

    answer = provider.read(request_of(case), reply_of(case), case.get("now_epoch_s"))

    expected = case["reading"]
    if "scores" in expected:
        assert isinstance(answer, RerankReply)
    else:
        assert isinstance(answer, Failure)
        assert expected.get("says", "") in answer.message
    seen = _seen(answer)
    assert {k: v for k, v in expected.items() if k != "says"} == {
        key: seen[key] for key in expected if key != "says"
    }


def _seen(answer: RerankReply | Failure) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "search_units": answer.usage.search_units,
        "total_tokens": answer.usage.total_tokens,
        "cost_usd": answer.usage.cost_usd,
        "request_id": answer.request_id,
        "model": answer.served.model if answer.served else None,
        "provider": answer.served.provider if answer.served else None,
        "advertised": answer.advertised and asdict(answer.advertised),
    }
    if isinstance(answer, RerankReply):
        scores = [None if math.isnan(s) else s for s in answer.scores]
        return seen | {"scores": scores, "echoed": answer.echoed}
    names = ("status", "code", "retry_after_s", "too_large")
    return seen | {"kind": answer.kind.value} | {name: getattr(answer, name) for name in names}


def test_a_refused_reply_leaves_its_length_and_digest() -> None:
    """
    Of a bad reply its digest, length and status are kept, so that it can be recognised.
    """
    case = read(CASES[0].with_name("bad-not-json.json"))

    answer = OPENROUTER.make(settings_of(case)).read(request_of(case), reply_of(case))

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
