"""
Free questions over a mocked transport, on virtual time: all at once, once more, and never for long.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

import anyio
import httpx
import pytest

from batchrank.domain import Price
from batchrank.engine.asking import TIME_S_MAX, ask
from batchrank.job.checking import check
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpCall, HttpReply, Options, Settings
from batchrank.providers.told import Told
from batchrank.testing import run_virtually
from batchrank.wire.auth import Bearer, Secret
from batchrank.wire.carrier import HttpxCarrier
from batchrank.wire.exchange import Wire

KEY = "sk-canary-0123456789"
MODEL = "cohere/rerank-v3.5"
OPENROUTER = VENDORS["openrouter"]

Answering = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


def wire(answer: Answering) -> Wire:
    """
    A wire at whose other end is *answer*.
    """
    carrier = HttpxCarrier(httpx.MockTransport(answer), connect_timeout_s=3.0, timeout_s=60.0)
    return Wire(carrier, Bearer(Secret(KEY)))


def calls(count: int) -> list[HttpCall]:
    """
    So many questions.
    """
    return [HttpCall("GET", f"https://reranker.test/{number}", (), b"") for number in range(count)]


def asked(answer: Answering, count: int) -> tuple[list[int | str | None], float]:
    """
    What came of so many questions, by status or code, and how long it took.
    """

    async def run() -> tuple[list[int | str | None], float]:
        came = await ask(wire(answer), calls(count))
        seen = [r.status if isinstance(r, HttpReply) else r.code for r in came]
        return seen, anyio.current_time()

    return run_virtually(run)


def openrouter(answer: Answering) -> Told:
    """
    What OpenRouter's answers come to.
    """
    settings = Settings(MODEL, "https://reranker.test/api/v1", None, OPENROUTER.options())
    key, price = Secret(KEY), Price(usd_per_search_unit=0.001)

    async def run() -> Told:
        return await check(OPENROUTER, settings, price, wire(answer), key, 1_790_000_000.0)

    return run_virtually(run)


def test_all_are_asked_at_once_with_the_key() -> None:
    """
    Three answers of a second each take a second, and are told in the order of the questions.
    """
    seen: list[httpx.Request] = []

    async def slow(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        await anyio.sleep(1.0)
        return httpx.Response(200 + int(request.url.path[1:]))

    came, took_s = asked(slow, 3)

    assert [200, 201, 202] == came
    assert took_s == pytest.approx(1.0)
    assert {("GET", f"Bearer {KEY}")} == {(r.method, r.headers["authorization"]) for r in seen}


@pytest.mark.parametrize("trouble", [429, 500, 503, httpx.ConnectError, httpx.ReadTimeout])
@pytest.mark.parametrize("times", [1, 2])
def test_what_may_pass_is_asked_once_more(trouble: int | type[Exception], times: int) -> None:
    """
    And no third time.
    """
    seen: list[httpx.Request] = []

    async def at_first(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) > times:
            return httpx.Response(200)
        if isinstance(trouble, int):
            return httpx.Response(trouble)
        raise trouble("no luck")

    [came], _ = asked(at_first, 1)

    assert (2, times == 1) == (len(seen), came == 200)


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
def test_what_is_an_answer_is_not_asked_again(status: int) -> None:
    """
    A refusal does not change within half a second, and a redirect is not followed.
    """
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(status, headers={"location": "https://elsewhere.test"})

    assert ([status], 1) == (asked(answer, 1)[0], len(seen))


def test_who_never_answers_is_not_waited_for() -> None:
    """
    What another question brought meanwhile is kept.
    """

    async def one_hangs(request: httpx.Request) -> httpx.Response:
        await anyio.sleep(0.0 if request.url.path == "/0" else 3600)
        return httpx.Response(200)

    came, took_s = asked(one_hangs, 2)

    assert [200, "timeout"] == came
    assert took_s == pytest.approx(TIME_S_MAX)


def test_no_key_is_in_what_a_person_is_told() -> None:
    """
    Wherever a vendor repeats it: errors, names of models, of hosts; nor what a terminal obeys.
    """

    async def echo(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/key"):
            return httpx.Response(401, json={"error": {"message": f"no {KEY}\x1b[2J here"}})
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": [{"id": f"{KEY}/x"}]})
        return httpx.Response(500, text=KEY)

    found = openrouter(echo)

    assert "the key is refused (401: no *** [2J here)" == found.refused
    assert ("***/x",) == found.names
    assert KEY not in repr(found)


def test_who_is_out_of_reach_stops_nobody() -> None:
    """
    It is told for each question, and nothing is held against the job.
    """

    async def down(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    found = openrouter(down)

    assert ("", None, None) == (found.refused, found.served, found.left_usd)
    assert ["GET /key", "GET /models", "GET /models/<slug>/endpoints"] == [
        words.partition(":")[0] for words in found.trouble
    ]


@pytest.mark.parametrize("name", [name for name, vendor in VENDORS.items() if not vendor.checks])
def test_who_tells_nothing_is_not_asked(name: str) -> None:
    """
    No question, no answer, no words.
    """

    async def nobody(_request: httpx.Request) -> httpx.Response:
        raise AssertionError("nobody is to be asked")

    settings = Settings("m", "https://reranker.test", None, Options())

    async def run() -> Told:
        return await check(VENDORS[name], settings, None, wire(nobody), Secret(KEY), 0.0)

    assert Told() == run_virtually(run)
