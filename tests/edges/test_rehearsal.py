from __future__ import annotations

import asyncio
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

import pytest

from batchrank.errors import PortInUse
from batchrank.local import scores as lexical
from batchrank.rehearsal import Dials, Fault, hashed_scores, serve, turned
from batchrank.rehearsal.bill import PRICE, charge, tokens
from batchrank.rehearsal.tally import Arrivals, key_label
from tests.rehearsing import KEY, MODEL, RERANK, Server, asked, running, until_closed

JSON = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    """
    One server for every test that turns dials and leaves them as they were.
    """
    with running() as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    """
    The shared server, with nothing counted and no dial turned.
    """
    shared.reset()
    yield shared
    assert 200 == shared.turn(**dict.fromkeys(Dials.__dataclass_fields__)).status


# --- good replies ---------------------------------------------------------------------------------


def test_results_are_sorted_complete_and_echo_their_documents(server: Server) -> None:
    """
    Every document comes back once with its index and itself, the best first.
    """
    picture = "https://example.org/a.png"
    documents = ["one", {"text": "two"}, {"image": picture}, {"text": "four", "image": picture}]

    got = server.rerank(asked(documents=documents))

    found = [result["relevance_score"] for result in got.json["results"]]
    echoed = {result["index"]: result["document"] for result in got.json["results"]}
    assert sorted(found, reverse=True) == found
    assert {0: {"text": "one"}, **dict(enumerate(documents[1:], 1))} == echoed
    assert (MODEL, "batchrank-rehearsal") == (got.json["model"], got.json["provider"])
    assert got.json["id"].startswith("gen-rerank-1-")
    assert got.json["id"] == got.headers["x-generation-id"]


def test_equal_scores_come_by_index() -> None:
    """
    Where scores are equal, the document that was sent first comes first.
    """
    with running(lambda query, documents: [1.0, 2.0, 1.0, 2.0]) as server:
        got = server.rerank(asked(documents=["a", "b", "c", "d"]))

    assert [1, 3, 0, 2] == [result["index"] for result in got.json["results"]]


@pytest.mark.parametrize("top_n", [1, 2, 3, 99, 10**30, 1.0, 2e0, 1e30])
def test_top_n_keeps_the_best(server: Server, top_n: float) -> None:
    """
    With `top_n` only so many results come, the same as without it; 1.0 is an integer in JSON.
    """
    whole = server.rerank(asked()).json["results"]

    assert whole[: int(top_n)] == server.rerank(asked(top_n=top_n)).json["results"]


def test_the_same_request_always_gets_the_same_scores(server: Server) -> None:
    """
    Scores follow from the texts alone: not from time, number or other calls.
    """
    first, other, again = (server.rerank(asked(query)) for query in ("a", "b", "a"))

    assert first.scores == again.scores
    assert first.scores != other.scores
    assert first.json["id"] != again.json["id"]


def test_any_scorer_can_be_underneath() -> None:
    """
    Scores are those of the function that the server was given.
    """
    documents = ["a boat", "the river bank", "a river and a river"]
    with running(lexical) as server:
        got = server.rerank(asked("river bank", documents))

    assert dict(enumerate(lexical("river bank", documents))) == got.scores


def test_one_connection_carries_many_calls(server: Server) -> None:
    """
    Connections are kept, and requests that wait in line are answered in order.
    """
    body = json.dumps(asked()).encode()
    head = f"POST {RERANK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        one = head.encode() + b"\r\n" + body
        connection.sendall(one + one + head.encode() + b"Connection: close\r\n\r\n" + body)
        came = until_closed(connection)

    assert 3 == came.count(b"HTTP/1.1 200 OK\r\n")
    assert came.index(b"gen-rerank-1-") < came.index(b"gen-rerank-2-")


# --- bad requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"\xff\xfe", id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"{}", id="an empty object"),
        pytest.param(b'{"a":' + b"[" * 100_000, id="deep nesting"),
        pytest.param(b'{"model":"m","query":"\\ud800","documents":["a"]}', id="half a character"),
        pytest.param({"query": "q", "documents": ["a"]}, id="no model"),
        pytest.param({"model": 1, "query": "q", "documents": ["a"]}, id="a model that is a number"),
        pytest.param({"model": "m", "documents": ["a"]}, id="no query"),
        pytest.param({"model": "m", "query": None, "documents": ["a"]}, id="a null query"),
        pytest.param({"model": "m", "query": "q"}, id="no documents"),
        pytest.param(asked(documents=[]), id="empty documents"),
        pytest.param({"model": "m", "query": "q", "documents": "a"}, id="documents not a list"),
        pytest.param(asked(documents=["a", None]), id="a null document"),
        pytest.param(asked(documents=[1]), id="a document that is a number"),
        pytest.param(asked(documents=[{}]), id="a document with neither text nor image"),
        pytest.param(asked(documents=[{"text": None}]), id="a document with a null text"),
        pytest.param(asked(documents=[{"image": "file:///etc/passwd"}]), id="an image elsewhere"),
        pytest.param(asked(top_n=0), id="top_n 0"),
        pytest.param(asked(top_n=1.5), id="top_n with a fraction"),
        pytest.param(asked(top_n="3"), id="top_n as a text"),
        pytest.param(asked(top_n=True), id="top_n as a flag"),
        pytest.param(asked(top_n=None), id="a null top_n"),
        pytest.param(asked(user=3), id="a user who is a number"),
        pytest.param(asked(user=None), id="a null user"),
        pytest.param(asked(trace="x"), id="a trace that is a text"),
        pytest.param(asked(session_id="s" * 257), id="a session of too many letters"),
        pytest.param(asked(session_id=1), id="a session that is a number"),
        pytest.param(asked(provider=[]), id="preferences that are a list"),
        pytest.param(asked(provider={"ordr": ["Cohere"]}), id="an unknown preference"),
        pytest.param(asked(provider={"order": "Cohere"}), id="an order that is not a list"),
        pytest.param(asked(provider={"data_collection": "maybe"}), id="no such choice"),
        pytest.param(asked(provider={"quantizations": ["fp7"]}), id="no such quantization"),
        pytest.param(asked(provider={"sort": {"by": "colour"}}), id="no such order"),
    ],
)
def test_a_bad_request_is_a_400_and_free(server: Server, body: object) -> None:
    """
    Whatever is wrong with a body, the answer is a 400 that says so, and nothing is billed.
    """
    got = server.rerank(body)

    assert (400, 400) == (got.status, got.json["error"]["code"])
    assert got.json["error"]["message"]
    assert {} == server.admin()["bill"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        pytest.param("POST", "/api/v1/chat", JSON, 404, id="another path"),
        pytest.param("POST", "/v1/rerank", JSON, 404, id="a path without its beginning"),
        pytest.param("POST", RERANK + "/", JSON, 404, id="a slash too many"),
        pytest.param("GET", RERANK, JSON, 405, id="GET"),
        pytest.param("PUT", RERANK, JSON, 405, id="PUT"),
        pytest.param("GET", "/admin/reset", {}, 405, id="GET of what changes something"),
        pytest.param("POST", RERANK, {"Content-Type": "application/json"}, 401, id="no key"),
        pytest.param(
            "POST",
            RERANK,
            {"Content-Type": "application/json", "Authorization": "Bearer "},
            401,
            id="an empty key",
        ),
        pytest.param(
            "POST",
            RERANK,
            {"Content-Type": "application/json", "Authorization": f"Basic {KEY}"},
            401,
            id="another scheme",
        ),
        pytest.param("POST", RERANK, {**JSON, "Content-Type": "text/plain"}, 400, id="text"),
        pytest.param("POST", RERANK, {"Authorization": f"Bearer {KEY}"}, 400, id="no content type"),
        pytest.param(
            "POST",
            RERANK,
            {**JSON, "Content-Type": "Application/JSON; charset=utf-8"},
            200,
            id="a content type with its charset",
        ),
    ],
)
def test_where_and_how_one_must_ask(
    server: Server, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """
    Path, method, key and content type are checked before the body.
    """
    got = server.send(method, path, json.dumps(asked()).encode(), headers)

    assert status == got.status
    assert status == 200 or status == got.json["error"]["code"]


def test_keys_models_and_size_can_be_restricted(server: Server) -> None:
    """
    Unknown keys get a 401, unknown models a 404, bodies that are too large a 413.
    """
    server.turn(keys=[KEY], models=[MODEL], body_bytes_max=10_000)

    assert 200 == server.rerank().status
    assert 401 == server.rerank(key="another").status
    assert 404 == server.rerank({**asked(), "model": "no/such"}).status
    assert 413 == server.rerank(asked(documents=["x" * 10_000])).status
    assert 413 == server.rerank(asked(documents=["x" * 1_000_000])).status
    assert {"200": 1, "401": 1, "404": 1, "413": 2} == server.admin()["by_status"]


def test_what_is_not_http_harms_nobody(server: Server) -> None:
    """
    Noise gets a 400 or nothing, half a request nothing, and the next caller is served.
    """
    for noise in (b"\x16\x03\x01\x02\x00\x01\x00" * 50, b"GET\r\n\r\n", b"POST / HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            assert not until_closed(connection).startswith(b"HTTP/1.1 200")
    half = server.begin()
    half.close()

    assert 200 == server.rerank().status


def test_a_caller_who_leaves_early_is_counted_and_not_billed(server: Server) -> None:
    """
    A request that never arrived whole costs nothing.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = f"POST {RERANK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(head.encode() + b"Content-Length: 100\r\n\r\n{")
        wait_for(server, "in_flight", 1)
    wait_for(server, "in_flight", 0)

    admin = server.admin()
    assert ({"0": 1}, {}) == (admin["by_status"], admin["bill"])


def wait_for(server: Server, count: str, expected: int) -> None:
    """
    Ask until a count of the server is as expected; the test's own timeout ends a vain wait.
    """
    while server.admin()[count] != expected:
        pass


# --- the bill -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query_tokens", "document_tokens", "units"),
    [
        pytest.param(10, [100] * 100, 1, id="a hundred short documents"),
        pytest.param(10, [100] * 101, 2, id="one more"),
        pytest.param(10, [490] * 100, 1, id="just 500 tokens with the query"),
        pytest.param(10, [491] * 100, 2, id="one more than 500"),
        pytest.param(10, [0], 1, id="at least one"),
    ],
)
def test_search_units(query_tokens: int, document_tokens: list[int], units: int) -> None:
    """
    A hundred documents are a unit; one over 500 tokens, the query's included, counts as several.
    """
    texts = ["word" * count for count in document_tokens]
    cost = charge("word" * query_tokens, texts, PRICE)

    assert units == cost.search_units
    assert units * 1_000_000 == cost.nano_usd
    assert query_tokens * len(texts) + sum(document_tokens) == cost.total_tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", 0, id="nothing"),
        pytest.param("a", 1, id="one letter"),
        pytest.param("abcde", 2, id="five letters"),
        pytest.param("éé", 1, id="two letters of two bytes"),
        pytest.param("語" * 4, 3, id="four letters of three bytes"),
    ],
)
def test_tokens_are_four_bytes(text: str, expected: int) -> None:
    """
    The server's guess at tokens goes by bytes of UTF-8, rounded up.
    """
    assert expected == tokens(text)


def test_each_key_has_its_bill_and_replies_tell_the_same(server: Server) -> None:
    """
    What replies say they cost adds up to the bill, key by key; keys are shown by a label only.
    """
    costs: dict[str, int] = {"one": 0, "two": 0}
    for key, model, documents in (
        ("one", MODEL, ["a"] * 3),
        ("one", "cohere/rerank-4-pro", ["a" * 4000] * 30),
        ("two", "cohere/rerank-5-fast", ["abc"] * 10),
        ("two", "some/other", ["a"] * 101),
    ):
        usage = server.rerank({**asked(documents=documents), "model": model}, key).json["usage"]
        costs[key] += round(usage["cost"] * 1e9)

    bill = server.admin()["bill"]
    assert {key_label(key): cost for key, cost in costs.items()} == {
        label: entry["nano_usd"] for label, entry in bill.items()
    }
    assert {"one": 1_000_000 + 2_500_000, "two": 400 + 2_000_000} == costs
    assert "two" not in server.send("GET", "/admin").body.decode()


@pytest.mark.parametrize(
    ("price", "expected"),
    [("0.5/unit", 500_000_000), ("1000/mtok", 6_000_000), ("0/unit", 0), (None, 1_000_000)],
)
def test_the_price_can_be_set(server: Server, price: str | None, expected: int) -> None:
    """
    It holds for every model, in replies as on the bill.
    """
    server.turn(price=price)

    usage = server.rerank(asked("q", ["a", "b", "c"])).json["usage"]

    (bill,) = server.admin()["bill"].values()
    assert (expected, expected) == (round(usage["cost"] * 1e9), bill["nano_usd"])


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("all", {"search_units", "total_tokens", "cost"}, id="everything"),
        pytest.param("no-cost", {"search_units", "total_tokens"}, id="no cost"),
        pytest.param("none", None, id="nothing"),
    ],
)
def test_how_much_a_reply_tells_of_its_bill(
    server: Server, told: str, expected: set[str] | None
) -> None:
    """
    Usage, or the cost in it, can be left out; the bill is kept all the same.
    """
    server.turn(usage=told)

    usage = server.rerank().json.get("usage")

    assert expected == (None if usage is None else set(usage))
    assert 1 == server.admin()["billed_calls"]


def test_a_key_without_credit_is_refused(server: Server) -> None:
    """
    A key never spends more than its credit; others are served on.
    """
    server.turn(credit_usd=0.003)

    statuses = [server.rerank(key="poor").status for _ in range(5)]

    assert [200, 200, 200, 402, 402] == statuses
    assert 200 == server.rerank(key="other").status
    assert 3_000_000 == server.admin()["bill"][key_label("poor")]["nano_usd"]


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sliding", "fixed", "bucket"])
def test_a_limit_turns_away_what_is_too_much(server: Server, kind: str) -> None:
    """
    Beyond the limit comes a 429 with the time to wait; it is not billed.
    """
    server.turn(limit=f"{kind}:5/day")

    got = [server.rerank() for _ in range(8)]

    assert [200] * 5 + [429] * 3 == [reply.status for reply in got]
    assert 0 < int(got[-1].headers["retry-after"]) <= 86_400
    admin = server.admin()
    assert (5, 3) == (admin["billed_calls"], admin["limit_refusals"])


def test_a_limit_lets_through_again_when_its_time_has_passed(server: Server) -> None:
    """
    Whoever stays away for as long as the 429 says is served.
    """
    server.turn(limit="1/0.3s", retry_after="milliseconds")
    assert 200 == server.rerank().status
    # On a machine that is slow enough, the next one may be in time for its turn, too.
    late = next(reply for _ in range(50) if (reply := server.rerank()).status == 429)

    time.sleep(int(late.headers["retry-after-ms"]) / 1000)

    assert 200 == server.rerank().status


def test_a_429_of_the_limit_describes_it(server: Server) -> None:
    """
    In the headers that OpenRouter has for its own limits, and only there.
    """
    server.turn(limit="2/100s", retry_after="absent", faults="429@1")
    fault, good, _, late = (server.rerank() for _ in range(4))

    told = {name: int(v) for name, v in late.headers.items() if name.startswith("x-ratelimit-")}
    reset_s = told.pop("x-ratelimit-reset") / 1000 - time.time()
    assert [429, 200, 429] == [fault.status, good.status, late.status]
    assert {"x-ratelimit-limit": 2, "x-ratelimit-remaining": 0} == told
    assert 90 < reset_s <= 101
    assert not [name for got in (fault, good) for name in got.headers if "ratelimit" in name]


def test_documents_have_a_limit_of_their_own(server: Server) -> None:
    """
    Requests and documents are counted apart, and only what both let through is counted at all.
    """
    server.turn(limit="10/day", document_limit="7/day")

    statuses = [server.rerank(asked(documents=["a"] * n)).status for n in (5, 3, 2, 8)]

    assert [200, 429, 200, 429] == statuses
    assert "retry-after" not in server.rerank(asked(documents=["a"] * 8)).headers


def test_turning_another_dial_is_no_fresh_start_for_a_limit(server: Server) -> None:
    """
    A limit keeps what it has counted until it is itself turned, or everything is reset.
    """
    server.turn(limit="1/day")
    statuses = [server.rerank().status]
    for turn in ({"latency": "0"}, {"limit": "1/day"}, {"limit": "2/day"}):
        server.turn(**turn)
        statuses.append(server.rerank().status)
    server.reset()

    assert [200, 429, 429, 200, 200] == [*statuses, server.rerank().status]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("absent", {}, id="nothing"),
        pytest.param("seconds", {"retry-after": "1"}, id="seconds"),
        pytest.param("milliseconds", {"retry-after-ms": "1000"}, id="milliseconds"),
        pytest.param("absurd", {"retry-after": "-5"}, id="nonsense"),
    ],
)
@pytest.mark.parametrize("fault", ["429", "503", "429-capacity-exhausted"])
def test_how_it_is_said_when_to_come_back(
    server: Server, fault: str, told: str, expected: dict[str, str]
) -> None:
    """
    With a 429 and a 503 the hint comes in several forms, or not at all.
    """
    server.turn(faults=fault, retry_after=told)

    headers = server.rerank().headers

    assert expected == {name: v for name, v in headers.items() if name.startswith("retry")}


def test_a_429_can_name_a_date(server: Server) -> None:
    """
    As a date the hint lies a second or two after the reply's own.
    """
    server.turn(faults="429", retry_after="date")

    headers = server.rerank().headers

    at, now = (parsedate_to_datetime(headers[name]) for name in ("retry-after", "date"))
    assert 1 <= (at - now).total_seconds() <= 3


def test_too_many_at_once_are_refused(server: Server) -> None:
    """
    More calls under way than allowed get a 529 at once, until one of the others has ended.
    """
    server.turn(concurrency_max=2, faults="timeout@1..2")
    with server.begin(), server.begin():
        wait_for(server, "in_flight", 2)
        assert 529 == server.rerank().status
    wait_for(server, "in_flight", 0)

    assert 200 == server.rerank().status
    admin = server.admin()
    assert (1, 3, 3) == (
        admin["concurrency_refusals"],
        admin["in_flight_max"],
        admin["billed_calls"],
    )


def test_latency_is_for_what_is_worked_on(server: Server) -> None:
    """
    A served call takes its time, and so does one that fails at work; a refused one takes none.
    """
    server.turn(latency="0.15", faults=["500@2", "429@3..9"])

    took = [timed(server) for _ in range(9)]

    assert [200, 500, *[429] * 7] == [status for status, _ in took]
    assert min(seconds for _, seconds in took[:2]) >= 0.1
    # The quickest of several: a machine that is busy elsewhere may hold up any one of them.
    assert min(seconds for _, seconds in took[2:]) < 0.1


def timed(server: Server) -> tuple[int, float]:
    """
    The status of one call, and how long it took.
    """
    begun = time.perf_counter()
    status = server.rerank().status
    return status, time.perf_counter() - begun


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status", "billed"),
    [
        ("400", 400, False),
        ("400-model-not-found", 400, False),
        ("401", 401, False),
        ("402", 402, False),
        ("403-key", 403, False),
        ("403-moderation", 403, False),
        ("404", 404, False),
        ("404-no-endpoints", 404, False),
        ("404-privacy-restricted", 404, False),
        ("408", 408, False),
        ("413", 413, False),
        ("422", 422, False),
        ("429", 429, False),
        ("429-capacity-exhausted", 429, False),
        ("429-quota", 429, False),
        ("500", 500, True),
        ("502", 502, True),
        ("503", 503, False),
        ("503-temporarily-unavailable", 503, False),
        ("504", 504, True),
        ("524", 524, True),
        ("529", 529, False),
        ("echo-key-error", 502, True),
        ("redirect", 307, False),
        ("error-in-200", 200, True),
        ("garbage", 200, True),
        ("html", 200, True),
        ("nan", 200, True),
        ("wrong-echo", 200, True),
        ("swapped", 200, True),
        ("left-out", 200, True),
        ("duplicate-index", 200, True),
        ("out-of-range", 200, True),
        ("other-model", 200, True),
        ("echo-key", 200, True),
    ],
)
def test_a_fault_has_its_status_and_its_place_on_the_bill(
    server: Server, fault: str, status: int, billed: bool
) -> None:
    """
    On the call it was asked for a fault comes, and on no other; admin knows of it.
    """
    server.turn(faults=f"{fault}@2")

    assert [200, status, 200] == [server.rerank().status for _ in range(3)]
    admin = server.admin()
    assert {fault: 1} == admin["by_fault"]
    assert 2 + billed == admin["billed_calls"]
    assert [None, fault, None] == [row["fault"] for row in server.arrivals()]


@pytest.mark.parametrize(
    ("fault", "error_type", "code", "retryable"),
    [
        ("400-model-not-found", "invalid_request", "model_not_found", False),
        ("404-no-endpoints", "not_found", "no_endpoints", False),
        ("404-privacy-restricted", "not_found", "privacy_restricted", False),
        ("429-capacity-exhausted", "rate_limit_exceeded", "capacity_exhausted", True),
        ("503-temporarily-unavailable", "provider_overloaded", "temporarily_unavailable", True),
    ],
)
def test_a_model_that_is_not_available(
    server: Server, fault: str, error_type: str, code: str, retryable: bool
) -> None:
    """
    Such an error has no code of its own: what it is, and for how long, is told beside it.
    """
    server.turn(faults=fault)

    got = server.rerank()

    error = got.json["error"]
    availability = error["availability"]
    assert {"message", "error_type", "http_status", "availability"} == set(error)
    assert (got.status, error_type) == (error["http_status"], error["error_type"])
    assert (code, retryable) == (availability["code"], availability["retryable"])
    assert [MODEL] == availability["requested_models"]
    assert f"https://openrouter.ai/docs/errors#{code}" == availability["docs_url"]
    assert got.headers.get("retry-after") == (
        str(availability["retry_after"]) if retryable else None
    )
    assert retryable == ("retry_after" in availability)


def test_a_moderated_reply_repeats_at_most_100_characters(server: Server) -> None:
    """
    The input is echoed as the real service does it, cut at 100 characters.
    """
    server.turn(faults="403-moderation")

    metadata = server.rerank(asked("ü" * 500)).json["error"]["metadata"]

    assert ("ü" * 100, MODEL) == (metadata["flagged_input"], metadata["model_slug"])
    assert metadata["reasons"]


def test_a_key_can_be_echoed(server: Server) -> None:
    """
    These two faults put the key where a careless client writes it down.
    """
    server.turn(faults=["echo-key@1", "echo-key-error@2"])

    good, bad = server.rerank(), server.rerank()

    assert KEY in good.json["id"]
    assert KEY in good.json["provider"]
    assert KEY in bad.json["error"]["message"]


def test_a_redirect_leads_where_it_is_counted(server: Server) -> None:
    """
    A client that follows arrives at a path that admin counts.
    """
    server.turn(faults="redirect")
    location = server.rerank().headers["location"]

    assert 404 == server.send("POST", location, b"{}", JSON).status
    assert 1 == server.admin()["strays"]


# --- what is told for nothing ---------------------------------------------------------------------


def test_a_key_is_told_what_it_may_still_spend(server: Server) -> None:
    """
    As OpenRouter tells it; to ask is on no bill, and begins none.
    """
    server.turn(credit_usd=0.0025, price="0.001/unit", key_expires_at="2099-01-01T00:00:00+02:00")
    before = server.send("GET", "/api/v1/key", headers=JSON).json["data"]
    unasked = server.admin()
    server.rerank()
    after = server.send("GET", "/api/v1/key", headers=JSON).json["data"]

    assert (0.0025, 0.0025, 0.0) == (before["limit"], before["limit_remaining"], before["usage"])
    assert "2098-12-31T22:00:00Z" == before["expires_at"]
    assert (0.0015, 0.001) == pytest.approx((after["limit_remaining"], after["usage"]))
    assert (1, 0, {}) == (unasked["questions"], unasked["calls"], unasked["bill"])
    assert KEY not in json.dumps(after)


def test_a_key_that_is_none_is_told_nothing_and_scores_nothing(server: Server) -> None:
    """
    Not known, out of date, or not there at all.
    """
    server.turn(keys="sk-another")
    assert 401 == server.send("GET", "/api/v1/key", headers=JSON).status
    server.turn(keys=None, key_expires_at="2026-01-01T00:00:00Z")
    assert [401, 401] == [
        server.send("GET", "/api/v1/key", headers=JSON).status,
        server.rerank().status,
    ]
    server.turn(key_expires_at=None)
    assert 401 == server.send("GET", "/api/v1/key").status
    assert 0 == server.admin()["billed_calls"]


def test_models_are_told_with_their_prices_and_who_serves_them(server: Server) -> None:
    """
    Those of the dial; without it those whose price is known, and any other is served as well.
    """
    unturned = server.send("GET", "/api/v1/models?output_modalities=rerank").json
    any_model = server.send("GET", "/api/v1/models/a/b/endpoints")
    server.turn(models="c/d", price="0.05/mtok")
    turned_to = server.send("GET", "/api/v1/models").json
    served = server.send("GET", "/api/v1/models/c/d/endpoints").json["data"]

    assert MODEL in [model["id"] for model in unturned["data"]]
    assert 200 == any_model.status
    assert [("c/d", "0.00000005")] == [(m["id"], m["pricing"]["prompt"]) for m in turned_to["data"]]
    assert ["batchrank-rehearsal"] == [host["provider_name"] for host in served["endpoints"]]
    assert 404 == server.send("GET", "/api/v1/models/a/b/endpoints").status
    assert 405 == server.send("POST", "/admin").status


@pytest.mark.parametrize("given", ["soon", "2026-11-20T22:00:00", "", True])
def test_a_time_without_a_zone_is_none(server: Server, given: object) -> None:
    """
    And is refused with a remedy.
    """
    refused = server.turn(key_expires_at=given)

    assert 400 == refused.status
    assert "key_expires_at" in refused.json["error"]["message"]


Results = list[dict[str, Any]]


def spoiled(server: Server, fault: str, documents: list[str]) -> tuple[Results, Results]:
    """
    The good results, and those that a fault made of them.
    """
    request = asked(documents=documents)
    good: Results = server.rerank(request).json["results"]
    server.turn(faults=fault)
    bad: Results = server.rerank(request).json["results"]
    return good, bad


def test_a_wrong_echo(server: Server) -> None:
    """
    One result echoes the document of another index; all else is right.
    """
    good, bad = spoiled(server, "wrong-echo", ["a", "b", "c"])

    (was, now), *others = zip(good, bad, strict=True)
    assert {**was, "document": now["document"]} == now
    assert now["document"] in [result["document"] for result in good[1:]]
    assert all(before == after for before, after in others)


@pytest.mark.parametrize("documents", [["a"], ["a", "a"]])
def test_a_wrong_echo_where_documents_are_all_the_same(
    server: Server, documents: list[str]
) -> None:
    """
    Where no other document could be told apart, one comes that nobody sent.
    """
    good, bad = spoiled(server, "wrong-echo", documents)

    assert good[0]["document"] != bad[0]["document"]


def test_swapped_results(server: Server) -> None:
    """
    Two results exchange index and echo: consistent, complete, sorted, and wrong.
    """
    good, bad = spoiled(server, "swapped", ["a", "b", "c"])

    bound = [(result["index"], result["document"]) for result in good]
    assert [bound[2], bound[1], bound[0]] == [(r["index"], r["document"]) for r in bad]
    assert [r["relevance_score"] for r in good] == [r["relevance_score"] for r in bad]


@pytest.mark.parametrize(
    ("fault", "documents", "expected"),
    [
        pytest.param("swapped", ["a"], [0], id="nothing to swap"),
        pytest.param("left-out", ["a", "b", "c"], [2, 1], id="one left out"),
        pytest.param("left-out", ["a"], [], id="the only one left out"),
        pytest.param("duplicate-index", ["a", "b", "c"], [2, 1, 2], id="one twice, one missing"),
        pytest.param("duplicate-index", ["a"], [0, 0], id="the only one twice"),
        pytest.param("out-of-range", ["a", "b", "c"], [2, 1, 3], id="one past the end"),
    ],
)
def test_wrong_indices(fault: str, documents: list[str], expected: list[int]) -> None:
    """
    These faults leave results out, repeat them, or number them past the end.
    """
    with running(lambda query, texts: [float(n) for n in range(len(texts))]) as server:
        _, bad = spoiled(server, fault, documents)

    assert expected == [result["index"] for result in bad]


def test_a_score_that_is_no_number(server: Server) -> None:
    """
    The literal NaN stands where the first score was, whatever the texts say.
    """
    server.turn(faults="nan")
    bait = '"relevance_score":1'

    body = server.rerank({**asked(bait, [bait]), "model": bait}).body

    assert 1 == body.count(b"NaN")
    assert math.isnan(json.loads(body)["results"][0]["relevance_score"])


@pytest.mark.parametrize("fault", ["garbage", "html", "error-in-200"])
def test_a_200_that_is_no_reply(server: Server, fault: str) -> None:
    """
    These have the status of success and no results.
    """
    server.turn(faults=fault)

    got = server.rerank()

    assert 200 == got.status
    assert b'"results"' not in got.body
    assert ("html" in got.headers["content-type"]) == (fault == "html")


def test_a_dropped_call_gets_not_a_byte(server: Server) -> None:
    """
    The connection closes without a word, and the call is on the bill.
    """
    server.turn(faults="drop")
    with server.begin() as connection:
        assert b"" == until_closed(connection)
    wait_for(server, "in_flight", 0)

    assert (1, {"0": 1}) == (server.admin()["billed_calls"], server.admin()["by_status"])


def test_a_body_can_be_cut(server: Server) -> None:
    """
    Half of the body comes, with the length of the whole.
    """
    server.turn(faults="drop-body")
    with server.begin() as connection:
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")

    length = int(re.findall(rb"content-length: (\d+)", head)[0])
    assert length // 2 == len(body)


def test_a_large_body_can_be_cut(server: Server) -> None:
    """
    Also a body that is larger than any buffer is cut in its middle, after every byte of the half.
    """
    server.turn(faults="drop-body")
    with server.begin(asked(documents=["x" * 3_000_000])) as connection:
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")

    assert int(re.findall(rb"content-length: (\d+)", head)[0]) // 2 == len(body)


def test_a_body_can_drip(server: Server) -> None:
    """
    A slow body comes whole, but in pieces over the time that was asked for.
    """
    server.turn(faults="slow-body", slow_body_s=0.1)

    status, seconds = timed(server)

    assert 200 == status
    assert seconds >= 0.05


def test_a_call_can_hang(server: Server) -> None:
    """
    Nothing comes until the caller gives up; then the call is no longer under way.
    """
    server.turn(faults="timeout")
    with server.begin() as connection:
        wait_for(server, "in_flight", 1)
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    wait_for(server, "in_flight", 0)

    assert 1 == server.admin()["billed_calls"]


def test_the_same_seed_brings_the_same_faults(server: Server) -> None:
    """
    Faults by chance follow from seed and call number; another seed brings others.
    """
    met = []
    for seed in (1, 1, 2):
        server.reset()
        server.turn(seed=seed, faults=["529:0.3", "nan:0.3"])
        for _ in range(20):
            server.rerank()
        met.append([row["fault"] for row in server.arrivals()])

    assert met[0] == met[1]
    assert met[0] != met[2]
    assert {None, "529", "nan"} == set(met[0])


# --- admin ----------------------------------------------------------------------------------------


def test_an_outage_can_begin_and_end_in_mid_run(server: Server) -> None:
    """
    Dials turn while the server runs; what was counted stays.
    """
    statuses = [server.rerank().status]
    for faults in ("503", None):
        server.turn(faults=faults)
        statuses.append(server.rerank().status)

    assert [200, 503, 200] == statuses
    assert {"200": 2, "503": 1} == server.admin()["by_status"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "JSON object", id="nothing"),
        pytest.param(b"[]", "JSON object", id="a list"),
        pytest.param(b"{" * 100_000, "JSON object", id="deep nesting"),
        pytest.param(b'{"latncy": 1}', "did you mean latency?", id="a misspelt dial"),
        pytest.param(b'{"seed": 1, "faults": ["x"]}', "no fault 'x'", id="one right, one wrong"),
    ],
)
def test_dials_that_cannot_be_read_turn_nothing(server: Server, body: bytes, words: str) -> None:
    """
    A wrong dial is a 400 with the remedy, and the others stay as they are.
    """
    before = server.rerank().json

    got = server.send("POST", "/admin/dials", body)

    server.reset()
    assert 400 == got.status
    assert words in got.json["error"]["message"]
    assert before == server.rerank().json


def test_arrivals_tell_when_what_came_and_how_it_ended(server: Server) -> None:
    """
    Each call has its number, time, status, fault and a digest of its body.
    """
    server.turn(faults="429@2")
    begun = time.monotonic()
    for query in ("a", "b", "a"):
        server.rerank(asked(query))
    server.rerank(b"nonsense", "")

    rows = server.arrivals()

    times = [row["at_s"] for row in rows]
    digests = [row["digest"] for row in rows]
    assert [1, 2, 3, 4] == [row["call"] for row in rows]
    assert [200, 429, 200, 401] == [row["status"] for row in rows]
    assert all(before <= after for before, after in pairwise([begun, *times, time.monotonic()]))
    assert digests[0] == digests[2]
    assert 3 == len(set(digests))


def test_arrivals_are_bounded() -> None:
    """
    The log keeps the latest calls and forgets the oldest.
    """
    log = Arrivals(most=3)
    for number in range(1, 9):
        log.add(number, number / 10, 200, Fault.NAN if number == 7 else None, b"%d" % number)

    columns = log.columns()
    assert {6, 7, 8} == set(columns["call"])
    assert {(7, "nan"), (6, None), (8, None)} == set(
        zip(columns["call"], columns["fault"], strict=True)
    )


def test_a_reset_forgets_everything_but_the_dials(server: Server) -> None:
    """
    Numbers begin again at 1, also for faults; a call under way stays under way.
    """
    server.turn(faults=["nan@1", "timeout@3"])
    for _ in range(2):
        server.rerank()
    with server.begin():
        wait_for(server, "in_flight", 1)
        server.reset()
        admin = server.admin()

        assert (0, 1, {}, {}) == (
            admin["calls"],
            admin["in_flight"],
            admin["by_fault"],
            admin["bill"],
        )
        assert b"NaN" in server.rerank().body


# --- the life of the server -----------------------------------------------------------------------


def test_a_port_that_is_taken_is_told(server: Server) -> None:
    """
    The error names the port and what to do.
    """
    words = rf"port {server.port}: another program listens there already\n.*another port"
    with pytest.raises(PortInUse, match=words) as caught:
        asyncio.run(serve(Dials(), hashed_scores, port=server.port))

    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70_000, "ports go from 0 to 65535\n.*another port"),
        ("192.0.2.1", 0, "does not have that address\n.*another host"),
        ("no-such-host.invalid", 0, "no host of that name is known\n.*another host"),
        ("a..b", 0, "no host of that name is known\n.*another host"),
    ],
)
def test_a_place_where_nobody_can_listen_is_told(host: str, port: int, words: str) -> None:
    """
    Ports that do not exist and addresses of others, in plain words and with a remedy.
    """
    with pytest.raises(
        PortInUse, match=f"cannot listen on {host} port {port}: .*{words}"
    ) as caught:
        asyncio.run(serve(Dials(), hashed_scores, host, port))

    assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("how", ["stop", "cancel"])
@pytest.mark.parametrize(
    "dials", [{"faults": "timeout"}, {"latency": "60"}, {"faults": "slow-body", "slow_body_s": 60}]
)
def test_calls_under_way_do_not_hold_up_the_end(
    how: str, dials: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    """
    A server with hung and slow calls is gone within its grace, quietly, and its callers are let go.
    """

    async def main() -> float:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        running = asyncio.create_task(
            serve(
                turned(Dials(), dials),
                hashed_scores,
                ready=ready.set_result,
                stop=stop,
                grace_s=0.1,
            )
        )
        server = Server(await ready)
        connection = await asyncio.to_thread(server.begin)
        while not (await asyncio.to_thread(server.admin))["by_status"]:
            pass
        begun = time.perf_counter()
        if how == "stop":
            stop.set()
        else:
            running.cancel()
        await asyncio.wait([running])
        await asyncio.to_thread(until_closed, connection)
        connection.close()
        return time.perf_counter() - begun

    assert asyncio.run(main()) < 3
    assert [] == caplog.messages


def test_a_quick_call_is_finished_before_the_end() -> None:
    """
    A stop lets a call under way come home.
    """
    with running(latency="0.1") as server:
        connection = server.begin()
        wait_for(server, "in_flight", 1)

    with connection:
        assert until_closed(connection).startswith(b"HTTP/1.1 200")


SERVER = """
from batchrank.rehearsal import Dials, hashed_scores, run, turned
dials = turned(Dials(), {"faults": "timeout"})
run(dials, hashed_scores, ready=lambda port: print(port, flush=True), until_stdin_closes=True)
"""


@pytest.mark.parametrize("how", ["stdin closes", "SIGTERM", "SIGINT"])
def test_a_process_of_its_own_ends_in_order(how: str) -> None:
    """
    It leaves when its parent's pipe closes or a signal asks, with a call that hangs, in silence.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    server = Server(int(process.stdout.readline()))
    with server.begin() as connection:
        wait_for(server, "in_flight", 1)
        if how == "stdin closes":
            process.stdin.close()
            process.stdin = None
        else:
            os.kill(process.pid, getattr(signal, how))
        assert b"" == until_closed(connection)
    _, said = process.communicate(timeout=5)

    assert (0, b"") == (process.returncode, said)
