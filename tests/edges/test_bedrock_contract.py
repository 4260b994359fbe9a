"""
Bedrock's calls, and the replies in its cases, held against the service models that botocore ships.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import create_parser
from botocore.session import Session
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import RerankRequest, Slice
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpReply, Settings
from batchrank.providers.compatible import address
from tests.laws import law
from tests.playing import Case, cases_of, provider_of, reply_of, request_of
from tests.shared import contract

OPERATIONS = {
    "bedrock": ("bedrock-runtime", "InvokeModel"),
    "bedrock-rerank": ("bedrock-agent-runtime", "Rerank"),
}


def operation(name: str) -> OperationModel:
    """
    The operation of one of the vendors.
    """
    service, called = OPERATIONS[name]
    model = Loader().load_service_model(service, "service-2")
    return ServiceModel(model, service).operation_model(called)


RERANK = operation("bedrock-rerank")


def parsed(model: OperationModel, reply: HttpReply) -> Any:
    """
    A reply as botocore's clients read it.
    """
    response = {"status_code": reply.status, "headers": reply.headers, "body": reply.body}
    shape = model.output_shape
    return create_parser(model.service_model.metadata["protocol"]).parse(response, shape)


def cases_with(name: str, part: str) -> Iterator[Case]:
    """
    The vendor's cases that have such a part.
    """
    return (case for case in cases_of(name).values() if part in case)


def problems(body: object) -> str:
    """
    What is wrong with the body of a `Rerank`.
    """
    return str(ParamValidator().validate(body, RERANK.input_shape).generate_report())


def test_the_model_that_is_shipped_is_the_one_that_facts_are_from() -> None:
    """
    What changes between versions of botocore is to be noticed.
    """
    held = contract("bedrock-rerank-shapes.json")
    for service, called in OPERATIONS.values():
        ours = Loader().load_service_model(service, "service-2")
        then = held[f"{service}.{called}"]

        assert then["operation"]["http"] == ours["operations"][called]["http"]
        for name, shape in then["shapes"].items():
            if "structure" == shape["type"]:
                assert set(shape["members"]) <= set(ours["shapes"][name]["members"])
                assert shape.get("required", []) == ours["shapes"][name].get("required", [])


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "us-gov-west-1"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_addresses_and_the_signed_name_are_botocores(name: str, region: str) -> None:
    """
    In every part of AWS that has Bedrock.
    """
    vendor, (service, _) = VENDORS[name], OPERATIONS[name]
    options = vendor.options.model_validate({"region": region})
    settings = Settings("m", vendor.base_url, None, options)
    client = Session().create_client(
        service, region_name=region, aws_access_key_id="a", aws_secret_access_key="s"
    )

    assert client.meta.endpoint_url == address(vendor.base_url, settings)
    assert vendor.signing is not None
    assert client.meta.service_model.signing_name == vendor.signing.service


def test_calls_are_those_of_the_service_model() -> None:
    """
    Path and body of every case, pages too.
    """
    for case in cases_with("bedrock-rerank", "call"):
        assert case["call"]["url"].endswith(RERANK.http["requestUri"])
        assert "" == problems(case["call"]["body"])
    pages = [page for case in cases_with("bedrock-rerank", "pages") for page in case["pages"]]
    assert pages
    for page in pages:
        assert "" == problems(page["call"])


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@law(60)
@given(query=TEXTS, documents=st.lists(TEXTS, min_size=1, max_size=5), top_n=st.none() | st.just(2))
def test_whatever_is_asked_the_call_is_one_of_the_service_model(
    query: str, documents: list[str], top_n: int | None
) -> None:
    """
    With any texts, and with top_n.
    """
    vendor, count = VENDORS["bedrock-rerank"], len(documents)
    options = vendor.options.model_validate({"region": "us-east-1"})
    provider = vendor.make(Settings("cohere.rerank-v3-5:0", "https://h", top_n, options))
    request = RerankRequest(Slice(0, 0, count), query, tuple(documents), tuple(range(count)))

    assert "" == problems(json.loads(provider.call(request).body))


@pytest.mark.parametrize("name", OPERATIONS)
def test_errors_are_named_as_botocore_names_them(name: str) -> None:
    """
    Every case with a code is read as the same error; every error of the service has a case.
    """
    model, seen = operation(name), set()
    for case in cases_with(name, "reply"):
        code = case["reading"].get("code")
        if "pages" in case or not code or code == "bad_results":
            continue
        if "x-amzn-errortype" in case["reply"].get(
            "headers", {}
        ):  # else botocore knows no `__type`
            assert code == parsed(model, reply_of(case))["Error"]["Code"]
            seen.add((code, case["reply"]["status"]))
    documented = {
        (shape.name, shape.metadata["error"]["httpStatusCode"]) for shape in model.error_shapes
    }
    assert documented
    assert documented <= seen


def test_good_replies_are_read_as_botocore_reads_them() -> None:
    """
    The same scores at the same places.
    """
    looked_at = 0
    for case in cases_with("bedrock-rerank", "reply"):
        if "scores" not in case["reading"] or "pages" in case:
            continue
        read = parsed(RERANK, reply_of(case))["results"]
        scores = case["reading"]["scores"]
        assert {line["index"]: line["relevanceScore"] for line in read} == {
            index: score for index, score in enumerate(scores) if score is not None
        }
        looked_at += 1
    assert looked_at > 2


def test_a_body_that_is_broken_is_noticed() -> None:
    """
    These tests can fail: without its query, and with a source of no type.
    """
    case = cases_of("bedrock-rerank")["good"]
    body = json.loads(provider_of(VENDORS["bedrock-rerank"], case).call(request_of(case)).body)

    assert "" == problems(body)
    assert "queries" in problems({key: body[key] for key in body if key != "queries"})
    body["sources"][0]["type"] = 3
    assert "sources" in problems(body)
