"""
Cases as files: a request, the call that is expected of it, a reply, the reading expected of that.

One folder of `tests/cases` is one vendor's. Whoever adds a vendor writes such files and nothing
else: `test_vendors` plays them all.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec.structs import asdict

from batchrank.domain import (
    Document,
    Failure,
    Price,
    RerankReply,
    RerankRequest,
    RichDocument,
    Slice,
)
from batchrank.providers import Vendor
from batchrank.providers.base import HttpReply, Onward, Provider, Settings
from batchrank.providers.told import questions, together, told

CASES = Path(__file__).parent / "cases"

Case = dict[str, Any]


@lru_cache
def _read(folder: Path) -> dict[str, Case]:
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }


def cases_of(name: str) -> dict[str, Case]:
    """
    Every case of a vendor, by its name. One that is `like` another has its settings and request.
    """
    held = _read(CASES / name)
    return {title: {**_given(held, case.get("like")), **case} for title, case in held.items()}


def _given(held: Mapping[str, Case], like: str | None) -> Case:
    return {part: held[like][part] for part in ("settings", "request")} if like else {}


def request_of(case: Case) -> RerankRequest:
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


def provider_of(vendor: Vendor, case: Case) -> Provider:
    """
    The vendor's provider with the settings of a case.
    """
    given = case["settings"]
    options = vendor.options.model_validate(given.get("options", {}))
    base_url = given.get("base_url", vendor.base_url)
    return vendor.make(Settings(given["model"], base_url, given.get("top_n"), options))


def reply_of(case: Case) -> HttpReply:
    """
    The reply of a case.
    """
    reply = case["reply"]
    body = reply["raw"] if "raw" in reply else json.dumps(reply["body"])
    return HttpReply(reply["status"], reply.get("headers", {}), body.encode())


def play_call(vendor: Vendor, case: Case) -> None:
    """
    Method, address, headers and body are those of the case.
    """
    call = provider_of(vendor, case).call(request_of(case))

    assert case["call"] == {
        "method": call.method,
        "url": call.url,
        "headers": dict(call.headers),
        "body": json.loads(call.body),
    }


def play_reading(vendor: Vendor, case: Case) -> None:
    """
    A good reply gives scores bound to documents, anything else a failure of the right class.
    """
    now = case.get("now_epoch_s")
    answer = provider_of(vendor, case).read(request_of(case), reply_of(case), now)
    for page in case.get("pages", ()):
        assert isinstance(answer, Onward)
        assert page["call"] == json.loads(answer.call.body)
        answer = answer.read(reply_of(page), now)

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


def play_check(vendor: Vendor, case: Case) -> None:
    """
    What is asked for nothing before the first call, and what the answers come to.
    """
    given = case["settings"]
    options = vendor.options.model_validate(given.get("options", {}))
    base_url = given.get("base_url", vendor.base_url)
    settings = Settings(given["model"], base_url, None, options)
    calls = questions(vendor.checks, settings)
    assert case.get("asks", [call.url for call in calls]) == [call.url for call in calls]
    assert {("GET", b"")} >= {(call.method, call.body) for call in calls}

    price, now_s = Price(**case["price"]) if "price" in case else None, case.get("now_epoch_s", 0.0)
    came = [reply_of({"reply": answer}) for answer in case["answers"]]
    answers = [
        told(check, reply, settings, price, now_s)
        for check, reply in zip(vendor.checks, came, strict=True)
    ]
    found = dataclasses.asdict(together(answers, given["model"]))
    said = {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}
    assert case["told"] == {name: said[name] for name in said if said[name] not in ("", [], None)}


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
    names = ("status", "code", "retry_after_s", "too_large", "too_many", "documents_max")
    return seen | {"kind": answer.kind.value} | {name: getattr(answer, name) for name in names}
