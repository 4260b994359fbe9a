from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from batchrank.domain import (
    Document,
    Failure,
    FailureKind,
    RerankReply,
    RerankRequest,
    RichDocument,
    Slice,
)
from batchrank.local import scores as lexical
from batchrank.policy import billing
from batchrank.providers.base import HttpReply, Provider, Settings
from batchrank.providers.openrouter import OPENROUTER, OpenRouterOptions
from batchrank.rehearsal import Dials, Fault
from batchrank.rehearsal.faults import HINTED
from tests.rehearsing import KEY, MODEL, Server, asked, running
from tests.shared import contract, data

# --- the contract ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> Mapping[str, Any]:
    """
    OpenRouter's own specification.
    """
    return contract("openrouter-rerank.openapi.json")


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """
    A server with the real scorer.
    """
    with running(lexical) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """
    The same, for tests that turn dials: unturned afterwards.
    """
    yield shared
    shared.reset()
    shared.turn(**dict.fromkeys(Dials.__dataclass_fields__))


OPERATION = "#/paths/~1rerank/post"


def fits(document: Mapping[str, Any], place: str, value: object) -> bool:
    """
    Tell whether *value* is what the specification says at *place* of the rerank operation.
    """
    schema = {**document, "$ref": f"{OPERATION}/{place}/content/application~1json/schema"}
    return bool(Draft202012Validator(schema).is_valid(value))


SDK_FIELDS = Draft202012Validator(
    {
        "properties": {
            "user": {"type": "string"},
            "trace": {"type": "object"},
            "session_id": {"type": "string", "maxLength": 256},
        }
    }
)
"""What the Python SDK 1.3.84 knows beyond the specification."""


def fits_reply(document: Mapping[str, Any], status: int, value: object) -> bool:
    """
    The same for a reply. All documented errors have one shape; the others are to have it too.
    """
    known = document["paths"]["/rerank"]["post"]["responses"]
    return fits(document, f"responses/{status if str(status) in known else 400}", value)


def test_a_clone_by_itself_skips_and_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What does not lie beside the repository is a reason to skip, and in CI to fail.
    """
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no-such\.json does not lie beside"):
        contract("no-such.json")
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such does not lie beside"):
        data("no-such")


# --- requests -------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
IMAGES = st.sampled_from(["https://example.org/a.png", "data:image/png;base64,aGk="])
RICH = st.fixed_dictionaries({"text": TEXTS}, optional={"image": IMAGES}) | st.fixed_dictionaries(
    {"image": IMAGES}
)
NUMBERS = st.floats(0, 1000)
SORTS = st.sampled_from(["price", "throughput", "latency", "exacto"])
PREFERENCES = st.fixed_dictionaries(
    {},
    optional={
        "allow_fallbacks": st.booleans() | st.none(),
        "data_collection": st.sampled_from(["allow", "deny", None]),
        "ignore": st.lists(TEXTS, max_size=2) | st.none(),
        "max_price": st.dictionaries(st.sampled_from(["prompt", "request"]), TEXTS),
        "order": st.lists(st.sampled_from(["Cohere", "Nvidia"]), max_size=2),
        "preferred_max_latency": NUMBERS | st.fixed_dictionaries({"p50": NUMBERS}) | st.none(),
        "quantizations": st.lists(st.sampled_from(["fp8", "unknown"]), max_size=2) | st.none(),
        "sort": SORTS | st.fixed_dictionaries({"by": SORTS | st.none()}) | st.none(),
        "zdr": st.booleans(),
    },
)
REQUESTS = st.fixed_dictionaries(
    {"model": TEXTS, "query": TEXTS, "documents": st.lists(TEXTS | RICH, min_size=1, max_size=6)},
    optional={
        "top_n": st.integers(1, 10) | st.integers(1, 10).map(float),
        "provider": PREFERENCES | st.none(),
        "user": TEXTS,
        "trace": st.dictionaries(TEXTS, TEXTS, max_size=2),
        "session_id": TEXTS,
    },
)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(0.1, 0.9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


@given(REQUESTS)
def test_what_the_contract_allows_is_answered_as_it_says(
    document: Mapping[str, Any], shared: Server, body: dict[str, Any]
) -> None:
    """
    A request that fits the specification gets a 200 that does: sorted, echoed, as many as asked.
    """
    assert fits(document, "requestBody", body)

    got = shared.rerank(body)

    assert 200 == got.status
    assert fits_reply(document, 200, got.json)
    results = got.json["results"]
    sent = [{"text": d} if isinstance(d, str) else d for d in body["documents"]]
    assert min(len(sent), body.get("top_n", len(sent))) == len(results)
    assert len(results) == len({result["index"] for result in results})
    assert all(result["document"] == sent[result["index"]] for result in results)
    found = [result["relevance_score"] for result in results]
    assert sorted(found, reverse=True) == found


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """
    A request in which something is replaced or added: perhaps still a good one.
    """
    whole: Any = draw(REQUESTS)
    at: Any = whole
    key: Any = draw(st.sampled_from(sorted(whole)) | TEXTS)
    while isinstance(inner := _get(at, key), dict | list) and inner and draw(st.booleans()):
        at, key = (
            inner,
            draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))),
        )
    at[key] = draw(JSONS)
    return whole


def _get(at: Any, key: Any) -> Any:
    return at[key] if isinstance(at, list) else at.get(key)


def is_refused_in_words(request: Any) -> bool:
    """
    Tell whether a request breaks a rule that the specification tells only in its descriptions.
    """
    return any(
        isinstance(document, dict)
        and (
            not {"text", "image"} & set(document)
            or not document.get("image", "https://").startswith(("http", "data:image/"))
        )
        for document in request["documents"]
    )


@given(damaged() | JSONS)
def test_what_the_contract_forbids_is_a_400(
    document: Mapping[str, Any], shared: Server, body: Any
) -> None:
    """
    The server refuses exactly what the specification or the SDK does, with the error body it says.
    """
    preferences = body.get("provider") if isinstance(body, dict) else None
    assume(not (isinstance(preferences, dict) and "options" in preferences))  # newer than it
    good = fits(document, "requestBody", body) and SDK_FIELDS.is_valid(body)

    got = shared.rerank(json.dumps(body).encode())

    assert (200 if good and not is_refused_in_words(body) else 400) == got.status
    assert fits_reply(document, got.status, got.json)


@given(st.binary(max_size=60))
def test_noise_is_a_400(document: Mapping[str, Any], shared: Server, noise: bytes) -> None:
    """
    Bytes that are no request are refused in the same words as everything else.
    """
    got = shared.rerank(noise)

    assert 400 == got.status
    assert fits_reply(document, 400, got.json)


@pytest.mark.parametrize("usage", ["all", "no-cost", "none"])
def test_every_form_of_usage_is_in_the_contract(
    document: Mapping[str, Any], server: Server, usage: str
) -> None:
    """
    What replies leave out of their usage, the specification lets them.
    """
    server.turn(usage=usage)

    got = server.rerank()

    assert fits_reply(document, 200, got.json)


@pytest.mark.parametrize(
    "fault",
    [
        *("400", "401", "402", "403-key", "403-moderation", "404", "408", "413", "422"),
        *("429", "429-quota", "500", "502", "503", "504", "524", "529", "echo-key-error"),
    ],
)
def test_every_error_has_the_body_of_the_contract(
    document: Mapping[str, Any], server: Server, fault: str
) -> None:
    """
    Errors that are asked for come in the shape that the specification gives their status.
    """
    server.turn(faults=fault)

    got = server.rerank()

    assert got.status == got.json["error"]["code"]
    assert fits_reply(document, got.status, got.json)


def test_errors_of_the_server_s_own_have_it_too(
    document: Mapping[str, Any], server: Server
) -> None:
    """
    So do those for a missing key, a path, a method, a model, a limit and a body too large.
    """
    server.turn(models=MODEL, limit="1/day", body_bytes_max=1000)
    replies = [
        server.rerank(),
        server.rerank(),
        server.rerank(key=""),
        server.rerank({**asked(), "model": "no/such"}),
        server.rerank(b"x" * 1001),
        server.send("POST", "/api/v1/other"),
        server.send("GET", "/api/v1/rerank"),
    ]

    assert [200, 429, 401, 404, 413, 404, 405] == [got.status for got in replies]
    assert all(fits_reply(document, got.status, got.json) for got in replies)


# --- our own provider speaks with it --------------------------------------------------------------

DOCUMENTS: tuple[Document, ...] = (
    "the river bank",
    RichDocument("a boat"),
    RichDocument("river river", "https://example.org/a.png"),
    RichDocument(image="data:image/png;base64,aGk="),
    "Ünïcödé\u2028\x7f",
)


def provider(options: OpenRouterOptions | None = None, top_n: int | None = None) -> Provider:
    """
    Our OpenRouter, as a job makes it.
    """
    base_url = "http://127.0.0.1/api/v1"
    return OPENROUTER.make(Settings(MODEL, base_url, top_n, options or OpenRouterOptions()))


def request(*documents: Document) -> RerankRequest:
    """
    A request for these documents.
    """
    count = len(documents)
    return RerankRequest(Slice(0, 0, count), "river bank", documents, tuple(range(count)))


def exchanged(server: Server, ours: Provider, asking: RerankRequest) -> HttpReply:
    """
    What the server replies to a provider's call.
    """
    call = ours.call(asking)
    headers = {**dict(call.headers), "Authorization": f"Bearer {KEY}"}
    got = server.send(call.method, "/api/v1/rerank", call.body, headers)
    return HttpReply(got.status, got.headers, got.body)


def test_our_provider_is_understood_and_understands(server: Server) -> None:
    """
    Scores come back bound to their documents, with a bill within the bounds that we reckon with.
    """
    asking = request(*DOCUMENTS)

    answer = provider().read(asking, exchanged(server, provider(), asking))

    assert isinstance(answer, RerankReply)
    texts = [d if isinstance(d, str) else d.text or "" for d in DOCUMENTS]
    assert tuple(lexical("river bank", texts)) == answer.scores
    price, sizes = OPENROUTER.prices[MODEL], billing.sizes_of(asking)
    cost = billing.nano_usd(answer.usage.cost_usd or 0)
    assert billing.least(sizes, price) <= cost <= billing.most(sizes, price)


@given(
    st.text(st.characters(codec="utf-8"), max_size=3000),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=3000), min_size=1, max_size=5),
    st.sampled_from(sorted(OPENROUTER.prices)),
)
def test_no_bill_lies_outside_what_we_reckon_with(
    shared: Server, query: str, documents: list[str], model: str
) -> None:
    """
    What the server charges is at least our least and at most our most, whatever the texts.
    """
    asking = RerankRequest(
        Slice(0, 0, len(documents)), query, tuple(documents), tuple(range(len(documents)))
    )

    usage = shared.rerank({**asked(query, documents), "model": model}).json["usage"]

    price, sizes = OPENROUTER.prices[model], billing.sizes_of(asking)
    cost = billing.nano_usd(usage["cost"])
    assert billing.least(sizes, price) <= cost <= billing.most(sizes, price)


def test_every_option_of_ours_is_taken(server: Server) -> None:
    """
    A job with all of OpenRouter's options can be rehearsed.
    """
    options = OpenRouterOptions.model_validate(
        {
            "provider": {
                "allow_fallbacks": False,
                "data_collection": "deny",
                "enforce_distillable_text": True,
                "ignore": ["a"],
                "max_price": {"prompt": "1", "request": "0.1"},
                "only": ["Cohere"],
                "order": ["Cohere"],
                "preferred_max_latency": {"p50": 1.5},
                "preferred_min_throughput": 10.0,
                "quantizations": ["fp8"],
                "require_parameters": True,
                "sort": {"by": "price", "partition": "none"},
                "zdr": True,
                "options": {"cohere": {"max_tokens_per_doc": 512}},
            },
            "user": "somebody",
            "session_id": "one",
            "trace": {"a": 1},
            "title": "batchrank",
        }
    )
    asking = request("river", "boat")

    reply = exchanged(server, provider(options, top_n=1), asking)

    assert isinstance(provider(options, top_n=1).read(asking, reply), RerankReply)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("400", FailureKind.BAD_GROUP),
        ("400-model-not-found", FailureKind.FATAL),
        ("401", FailureKind.FATAL),
        ("402", FailureKind.FATAL),
        ("403-key", FailureKind.FATAL),
        ("403-moderation", FailureKind.BAD_GROUP),
        ("404", FailureKind.FATAL),
        ("404-no-endpoints", FailureKind.FATAL),
        ("404-privacy-restricted", FailureKind.FATAL),
        ("408", FailureKind.UNKNOWN),
        ("413", FailureKind.BAD_GROUP),
        ("422", FailureKind.BAD_GROUP),
        ("429", FailureKind.THROTTLED),
        ("429-capacity-exhausted", FailureKind.THROTTLED),
        ("429-quota", FailureKind.FATAL),
        ("500", FailureKind.UNKNOWN),
        ("502", FailureKind.UNKNOWN),
        ("503", FailureKind.THROTTLED),
        ("503-temporarily-unavailable", FailureKind.THROTTLED),
        ("504", FailureKind.UNKNOWN),
        ("524", FailureKind.UNKNOWN),
        ("529", FailureKind.THROTTLED),
        ("echo-key-error", FailureKind.UNKNOWN),
        ("redirect", FailureKind.FATAL),
        ("garbage", FailureKind.BAD_REPLY),
        ("html", FailureKind.BAD_REPLY),
        ("nan", FailureKind.BAD_REPLY),
        ("wrong-echo", FailureKind.BAD_REPLY),
        ("left-out", FailureKind.BAD_REPLY),
        ("duplicate-index", FailureKind.BAD_REPLY),
        ("out-of-range", FailureKind.BAD_REPLY),
        ("other-model", FailureKind.FATAL),
    ],
)
def test_our_provider_classes_every_fault(server: Server, fault: str, kind: FailureKind) -> None:
    """
    Each fault is to our provider what the design's table of failures says.
    """
    asking = request("river", "boat", "bank")
    server.turn(faults=fault)

    answer = provider().read(asking, exchanged(server, provider(), asking))

    assert isinstance(answer, Failure)
    assert kind is answer.kind
    assert (answer.retry_after_s == 1.0) == (Fault(fault) in HINTED)


def test_two_faults_that_cannot_be_told_from_a_good_reply(server: Server) -> None:
    """
    Swapped results and an echoed key are read as scores: nothing in the reply speaks against them.
    """
    asking = request("river", "boat", "bank")
    for fault in (Fault.SWAPPED, Fault.ECHO_KEY):
        server.turn(faults=fault)
        answer = provider().read(asking, exchanged(server, provider(), asking))

        assert isinstance(answer, RerankReply)
