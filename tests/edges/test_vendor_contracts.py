"""
Vendors' calls, and the replies in their cases, held against the vendors' own specifications.

OpenRouter's is in `test_openrouter_contract`. Of the others three have published one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator

from batchrank.domain import (
    Answer,
    Failure,
    FailureKind,
    Group,
    RerankReply,
    RerankRequest,
    Slice,
    Usage,
)
from batchrank.policy.capacity import Bounds
from batchrank.policy.slicing import requests
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpReply, Onward, Settings
from batchrank.rehearsal import hashed_scores
from tests.playing import Case, cases_of, provider_of, request_of
from tests.rehearsing import KEY, Got, Server, running
from tests.shared import contract

OPERATIONS = {
    "cohere": ("cohere-v2-rerank.openapi.json", "/v2/rerank"),
    "tei": ("tei-rerank.openapi.json", "/rerank"),
    "infinity": ("infinity-rerank.openapi.json", "/rerank"),
}
"""Where the specification of a vendor's operation is."""


class Contract:
    """
    What a vendor's specification says of its rerank operation.
    """

    def __init__(self, name: str) -> None:
        file, self.path = OPERATIONS[name]
        self._document = _nullable(contract(file))
        self._post = self._document["paths"][self.path]["post"]
        self._request: Mapping[str, Any] = self._post["requestBody"]
        # OpenAPI 3.0 is of the time of draft 4, 3.1 says 2020-12.
        older = self._document["openapi"].startswith("3.0")
        self._validator = Draft4Validator if older else Draft202012Validator

    def problems(self, content: Mapping[str, Any], value: object) -> list[str]:
        """
        What is wrong with a request, or a reply, whose *content* the specification describes.
        """
        whole = {**self._document, **content["content"]["application/json"]["schema"]}
        return [error.message for error in self._validator(whole).iter_errors(value)]

    @property
    def request(self) -> Mapping[str, Any]:
        """
        What a request has to be.
        """
        return self._request

    def reply(self, status: int) -> Mapping[str, Any] | None:
        """
        What a reply with this status has to be; None if the specification has none.
        """
        found = self._post["responses"].get(str(status))
        if found is None or "$ref" not in found:
            return found
        *_, name = found["$ref"].split("/")
        return self._document["components"]["responses"][name]  # type: ignore[no-any-return] # JSON

    @property
    def properties(self) -> set[str]:
        """
        Every field that a request may have.
        """
        schema = self.request["content"]["application/json"]["schema"]
        if "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].split("/")[-1]]
        return set(schema["properties"])


def _nullable(schema: Any) -> Any:
    """
    A schema of OpenAPI 3.0 in words of JSON Schema, where null is a type like any other.
    """
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    mended = {key: _nullable(value) for key, value in schema.items() if key != "nullable"}
    if schema.get("nullable") is True and "type" in mended:
        mended["type"] = [mended["type"], "null"]
    return mended


@pytest.fixture(params=OPERATIONS)
def named(request: pytest.FixtureRequest) -> tuple[str, Contract]:
    """
    A vendor with its contract.
    """
    return request.param, Contract(request.param)


def cases_with(name: str, part: str) -> Iterator[tuple[str, Case]]:
    """
    The vendor's cases that have such a part.
    """
    return ((title, case) for title, case in cases_of(name).items() if part in case)


def test_calls_are_those_of_the_specification(named: tuple[str, Contract]) -> None:
    """
    Address and body of every case; no field but those of the specification, or what a job adds.
    """
    name, held = named
    for title, case in cases_with(name, "call"):
        body = case["call"]["body"]
        options = case["settings"].get("options", {})

        assert [] == held.problems(held.request, body), title
        assert set(body) - set(options.get("body", ())) <= held.properties, title
        assert case["call"]["url"].endswith(held.path) or "path" in options, title


def test_replies_of_the_cases_are_those_of_the_specification(named: tuple[str, Contract]) -> None:
    """
    What we read as scores and as errors is what the vendor may say.
    """
    name, held = named
    looked_at = 0
    for title, case in cases_with(name, "reply"):
        said = held.reply(case["reply"]["status"])
        if said is None or "body" not in case["reply"]:
            continue
        assert [] == held.problems(said, case["reply"]["body"]), title
        looked_at += 1
    assert looked_at > 2


def test_what_tei_tells_of_itself_is_what_its_specification_says() -> None:
    """
    The replies of its cases of `/info`.
    """
    document = _nullable(contract("tei-rerank.openapi.json"))
    said = document["paths"]["/info"]["get"]["responses"]["200"]["content"]["application/json"]
    validator = Draft4Validator({**document, **said["schema"]})
    bodies = [
        answer["body"]
        for _, case in cases_with("tei", "answers")
        for answer in case["answers"]
        if answer["status"] == 200 and "body" in answer
    ]

    assert [[]] * 8 == [list(validator.iter_errors(body)) for body in bodies]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.mark.parametrize("name", OPERATIONS)
@given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=5), top_n=st.integers(1, 9))
def test_whatever_is_asked_the_call_is_one_of_the_specification(
    name: str, query: str, documents: list[str], top_n: int
) -> None:
    """
    With any texts, and with top_n where there is a field for it.
    """
    held, vendor = contract_of(name), VENDORS[name]
    sent = top_n if vendor.takes_top_n else None
    provider = vendor.make(Settings("m", "http://127.0.0.1", sent, vendor.options()))
    count = len(documents)
    asking = RerankRequest(Slice(0, 0, count), query, tuple(documents), tuple(range(count)))

    body = json.loads(provider.call(asking).body)

    assert [] == held.problems(held.request, body)


SPOKEN = ("cohere", "tei")
"""Whose form the embedded server has beside OpenRouter's."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """
    An embedded server.
    """
    with running() as server:
        yield server


def said_to(server: Server, name: str, query: str, documents: list[str]) -> tuple[Got, Answer]:
    """
    What the embedded server says to a vendor's call, and how the vendor's adapter reads it.
    """
    vendor = VENDORS[name]
    provider = vendor.make(Settings("m", "", None, vendor.options()))
    asking = requests(Group(0, "q", query, tuple(documents)), Bounds())[0]
    call = provider.call(asking)
    key = {"Authorization": f"Bearer {KEY}"} if vendor.needs_key else {}
    got = server.send(call.method, call.url, call.body, {**dict(call.headers), **key})
    answer = provider.read(asking, HttpReply(got.status, got.headers, got.body))
    assert not isinstance(answer, Onward)
    return got, answer


@pytest.mark.parametrize("name", SPOKEN)
def test_the_embedded_server_replies_as_the_specification_says(server: Server, name: str) -> None:
    """
    The scores are those that OpenRouter's form would bring; tokens or units are told where the
    vendor tells them.
    """
    got, answer = said_to(server, name, "what", ["a", "b", "c"])

    good = contract_of(name).reply(200)
    assert good is not None
    assert [] == contract_of(name).problems(good, got.json)
    assert isinstance(answer, RerankReply)
    assert tuple(hashed_scores("what", ["a", "b", "c"])) == answer.scores
    assert answer.usage != Usage()


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    ("dials", "kind", "status"),
    [
        ({"documents_max": 2}, FailureKind.BAD_GROUP, {"cohere": 400, "tei": 422}),
        ({"body_bytes_max": 10}, FailureKind.BAD_GROUP, 413),
        ({"faults": ["400"]}, FailureKind.BAD_GROUP, 400),
        ({"faults": ["429"]}, FailureKind.THROTTLED, 429),
        ({"faults": ["500"]}, FailureKind.UNKNOWN, 500),
        ({"faults": ["503"]}, FailureKind.THROTTLED, 503),
        ({"faults": ["garbage"]}, FailureKind.BAD_REPLY, 200),
        ({"faults": ["left-out"]}, FailureKind.BAD_REPLY, 200),
        ({"keys": ["another"]}, FailureKind.FATAL, 401),
    ],
)
def test_the_embedded_server_refuses_as_the_vendor_does(
    server: Server, name: str, dials: dict[str, object], kind: FailureKind, status: Any
) -> None:
    """
    In a body that the specification allows, if it has one for that status, and that is read right;
    what is too large is known to be that.
    """
    server.turn(**dials)
    got, answer = said_to(server, name, "what", ["a", "b", "c"])
    server.turn(**dict.fromkeys(dials))

    assert isinstance(answer, Failure)
    expected = status[name] if isinstance(status, dict) else status
    assert (kind, expected) == (answer.kind, got.status)
    assert answer.too_large == any(dial.endswith("_max") for dial in dials)
    said = contract_of(name).reply(got.status)
    if said is not None and "content" in said and got.status != 200:
        assert [] == contract_of(name).problems(said, got.json)


_CONTRACTS: dict[str, Contract] = {}


def contract_of(name: str) -> Contract:
    """
    A vendor's contract, read once.
    """
    return _CONTRACTS.get(name) or _CONTRACTS.setdefault(name, Contract(name))


def test_a_specification_that_is_broken_is_noticed(named: tuple[str, Contract]) -> None:
    """
    These tests can fail: a body without its query, a reply without scores.
    """
    name, held = named
    case = cases_of(name)["good"]
    body = json.loads(provider_of(VENDORS[name], case).call(request_of(case)).body)
    del body["query"]
    good = held.reply(200)
    assert good is not None

    assert held.problems(held.request, body)
    assert held.problems(good, [{}] if name == "tei" else {"results": [{}]})
