"""
Every vendor's translation, by case files: request, expected call, reply, expected reading.

Beside that what holds for all of them: a case for every class of failure, and no damaged reply that
is read as scores.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Failure, FailureKind, RerankReply, RerankRequest
from batchrank.engine.scorer import cleaned
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpReply, Onward, Provider
from batchrank.providers.shape import ErrorShape
from batchrank.wire.auth import Secret
from tests.laws import law
from tests.playing import (
    Case,
    cases_of,
    play_call,
    play_check,
    play_reading,
    provider_of,
    reply_of,
    request_of,
)


def cases(part: str) -> Iterator[Any]:
    """
    Every case of every vendor that has such a part.
    """
    for name in VENDORS:
        for title, case in cases_of(name).items():
            if part in case:
                yield pytest.param(name, case, id=f"{name}-{title}")


@pytest.mark.parametrize(("name", "case"), list(cases("call")))
def test_a_request_becomes_the_call_that_the_vendor_asks_for(name: str, case: Case) -> None:
    """
    Method, address, headers and body are those of the case file.
    """
    play_call(VENDORS[name], case)


@pytest.mark.parametrize(("name", "case"), list(cases("reading")))
def test_a_reply_is_read_as_the_case_says(name: str, case: Case) -> None:
    """
    A good reply gives scores bound to documents, anything else a failure of the right class.
    """
    play_reading(VENDORS[name], case)


@pytest.mark.parametrize(("name", "case"), list(cases("told")))
def test_what_a_vendor_tells_beforehand_is_read_as_the_case_says(name: str, case: Case) -> None:
    """
    A clear no refuses the job; whatever else is told is for a person.
    """
    play_check(VENDORS[name], case)


@pytest.mark.parametrize("name", [name for name, vendor in VENDORS.items() if vendor.checks])
def test_every_vendor_that_can_be_asked_has_cases_of_it(name: str) -> None:
    """
    A model that is there, and one that is not.
    """
    found = [case["told"] for case in cases_of(name).values() if "told" in case]

    assert any(told.get("served") for told in found)
    assert any(not told.get("served") for told in found)


KINDS = {kind.value for kind in FailureKind} - {FailureKind.NEVER_SENT.value}
"""What a reply can be, if it is none: what was never sent has no reply."""


@pytest.mark.parametrize("name", VENDORS)
def test_every_vendor_has_a_case_of_every_class(name: str) -> None:
    """
    A call, scores, and each class of failure that a reply can be.
    """
    held = cases_of(name).values()
    readings = [case["reading"] for case in held if "reading" in case]

    assert any("call" in case for case in held)
    assert any("scores" in reading for reading in readings)
    assert KINDS == {reading["kind"] for reading in readings if "kind" in reading}


# --- damage ---------------------------------------------------------------------------------------


def lists_in(value: Any) -> Iterator[list[Any]]:
    """
    Every list in a value of JSON.
    """
    if isinstance(value, list):
        yield value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for inner in inside:
        yield from lists_in(inner)


def results_of(body: Any) -> list[Any]:
    """
    The list of results of a good reply: the first list that is in it.
    """
    return next(lists_in(body))


def score_of(line: dict[str, Any]) -> str:
    """
    The name of a result's score: its only number that is not a whole one.
    """
    return next(key for key, value in line.items() if isinstance(value, float))


def place_of(line: dict[str, Any]) -> str:
    """
    The name of what tells which document a result is of.
    """
    return "index" if "index" in line else "id"


def without_the_last(results: list[Any]) -> None:
    """
    One result is missing.
    """
    results.pop()


def one_twice(results: list[Any]) -> None:
    """
    One result comes twice, another not at all.
    """
    results[0] = copy.deepcopy(results[1])


def one_more(results: list[Any]) -> None:
    """
    One result comes twice, beside all the others.
    """
    results.append(copy.deepcopy(results[0]))


def out_of_range(results: list[Any]) -> None:
    """
    An index that is not one of a document.
    """
    place = place_of(results[0])
    results[0][place] = type(results[0][place])(len(results))


def negative(results: list[Any]) -> None:
    """
    An index that counts from the end in Python.
    """
    place = place_of(results[0])
    results[0][place] = type(results[0][place])(-1)


def score_as_text(results: list[Any]) -> None:
    """
    A score that is no number.
    """
    if isinstance(results[0], dict):
        results[0][score_of(results[0])] = "0.5"
    else:
        results[0] = "0.5"


def no_score(results: list[Any]) -> None:
    """
    A result without a score.
    """
    if isinstance(results[0], dict):
        del results[0][score_of(results[0])]
    else:
        results[0] = None


def huge(results: list[Any]) -> None:
    """
    A score that no float holds.
    """
    if isinstance(results[0], dict):
        results[0][score_of(results[0])] = 10**400
    else:
        results[0] = 10**400


OF_INDICES = (one_twice, out_of_range, negative)

DAMAGES = (
    *OF_INDICES,
    *(without_the_last, one_more, score_as_text, no_score, huge),
)


@pytest.mark.parametrize("name", VENDORS)
def test_a_damaged_reply_is_never_read_as_scores(name: str) -> None:
    """
    Whatever is wrong with the results, it is a bad reply.
    """
    for damage in DAMAGES:
        case = copy.deepcopy(cases_of(name)["good"])
        results = results_of(case["reply"]["body"])
        if damage in OF_INDICES and not isinstance(results[0], dict):
            continue  # scores in input order have no index that could be wrong
        damage(results)

        assert FailureKind.BAD_REPLY is refused(name, case, reply_of(case)).kind, damage.__name__


def refused(name: str, case: Case, reply: HttpReply) -> Failure:
    """
    The failure that a reply is read as.
    """
    answer = provider_of(VENDORS[name], case).read(request_of(case), reply)
    assert isinstance(answer, Failure)
    return answer


NO_REPLIES = (b"", b"null", b"[]", b"{}", b"3", b'"x"', b"<html>", b"[" * 5000)


@pytest.mark.parametrize("name", VENDORS)
def test_no_body_is_read_as_scores_that_is_none(name: str) -> None:
    """
    Nor does any of them raise.
    """
    case = cases_of(name)["good"]

    for body in NO_REPLIES:
        assert FailureKind.BAD_REPLY is refused(name, case, HttpReply(200, {}, body)).kind


BY_STATUS = {
    302: FailureKind.FATAL,
    400: FailureKind.BAD_GROUP,
    401: FailureKind.FATAL,
    413: FailureKind.BAD_GROUP,
    429: FailureKind.THROTTLED,
    500: FailureKind.UNKNOWN,
    503: FailureKind.THROTTLED,
}


@pytest.mark.parametrize("name", VENDORS)
def test_an_error_without_words_is_classed_by_its_status(name: str) -> None:
    """
    Gateways and proxies answer in words of their own, or in none.
    """
    case = cases_of(name)["good"]

    for status, kind in BY_STATUS.items():
        for body in (*NO_REPLIES, b'{"error": 7}', b'{"error": {"message": [3]}}'):
            failure = refused(name, case, HttpReply(status, {}, body))

            assert (kind, status == 413) == (failure.kind, failure.too_large)


WORDS = st.sampled_from(
    (
        *("results", "data", "rankings", "scores", "index", "relevance_score", "score", "logit"),
        *("document", "text", "error", "message", "detail", "code", "type", "meta", "usage"),
        *("billed_units", "search_units", "total_tokens", "inference_status", "cost", "id"),
    )
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def asking() -> list[tuple[Provider, RerankRequest]]:
    """
    Every vendor's provider, and a request.
    """
    goods = [(vendor, cases_of(name)["good"]) for name, vendor in VENDORS.items()]
    return [(provider_of(vendor, good), request_of(good)) for vendor, good in goods]


@law(60)
@given(JSONS, st.sampled_from([200, 200, 400, 429, 500]))
def test_whatever_comes_nobody_raises(
    asking: list[tuple[Provider, RerankRequest]], body: object, status: int
) -> None:
    """
    Bodies of the words that vendors use, in any order: an answer, and no NaN for a score.
    """
    reply = HttpReply(status, {}, json.dumps(body).encode())
    for provider, request in asking:
        answer = provider.read(request, reply)

        if isinstance(answer, RerankReply):
            assert status == 200
            assert all(map(math.isfinite, answer.scores))


CANARY = "sk-canary-0123456789abcdef"


def echoing(shape: ErrorShape, words: str) -> Iterator[dict[str, Any]]:
    """
    Errors with *words* wherever this vendor's may stand, one place at a time, as text, as a finding
    of pydantic's, and as a code.
    """
    for place in (*shape.message, *shape.code):
        for told in (words, [{"msg": words, "input": words}]):
            body: Any = told
            for step in reversed(place.split(".")):
                body = {step: body}
            yield body


@pytest.mark.parametrize("name", VENDORS)
def test_no_error_leaves_with_the_key_or_a_text(name: str) -> None:
    """
    Whoever moderates repeats what was sent, and a 401 the key: wherever the vendor's errors stand.
    """
    vendor, case = VENDORS[name], cases_of(name)["good"]
    asked = request_of(case)
    provider, secret = provider_of(vendor, case), Secret(CANARY)
    document = asked.documents[0]
    text = document if isinstance(document, str) else document.text or ""
    usual = ErrorShape()  # what OpenRouter's own adapter reads is among these places, too
    shape = getattr(getattr(provider, "_shape", None), "errors", usual)

    bodies = list(echoing(shape, f"refused {CANARY}: {text} / {asked.query}"))
    for status, body in product((200, 400, 401, 403, 413, 422, 500), bodies):
        reply = HttpReply(status, {}, json.dumps(body).encode())
        answer = provider.read(asked, reply)
        assert not isinstance(answer, Onward)
        told = repr(cleaned(answer, asked, secret))

        assert CANARY not in told
        assert text not in told
        assert asked.query not in told


@pytest.mark.parametrize("name", VENDORS)
def test_results_go_to_their_documents_in_any_order(name: str) -> None:
    """
    The same lines the other way round are the same scores; nobody's order is relied on.
    """
    case = copy.deepcopy(cases_of(name)["good"])
    before = provider_of(VENDORS[name], case).read(request_of(case), reply_of(case))
    results = results_of(case["reply"]["body"])
    if not isinstance(results[0], dict):
        return  # scores in input order are bound by their order
    results.reverse()

    after = provider_of(VENDORS[name], case).read(request_of(case), reply_of(case))

    assert isinstance(before, RerankReply)
    assert before == after


@pytest.mark.parametrize("name", VENDORS)
def test_every_vendor_says_what_it_is(name: str) -> None:
    """
    For people: what is known, how, and an address or why there is none.
    """
    vendor = VENDORS[name]

    assert vendor.name == name
    assert vendor.facts.title
    assert vendor.facts.verified
    assert bool(vendor.base_url) != bool(vendor.address)
    assert all(price.as_of and price.source for price in vendor.prices.values())
    assert vendor.score_options <= set(vendor.options.model_fields)
    assert json.dumps(vendor.options.model_json_schema())
