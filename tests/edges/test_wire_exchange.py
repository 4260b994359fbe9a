"""
The one call of the wire, over transports of httpx: its mock and an ASGI app.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import pytest

from batchrank import __version__
from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire import failures
from batchrank.wire.auth import Anonymous, Auth, Bearer, Secret
from batchrank.wire.carrier import HttpxCarrier
from batchrank.wire.exchange import Wire

pytestmark = pytest.mark.anyio

KEY = "sk-canary-0123456789"
CALL = HttpCall(
    "POST", "https://reranker.test/v1/rerank", (("Content-Type", "application/json"),), b'{"a":1}'
)


def wire(answer: Callable[[httpx.Request], httpx.Response], auth: Auth | None = None) -> Wire:
    """
    A wire at whose other end is *answer*.
    """
    carrier = HttpxCarrier(httpx.MockTransport(answer), connect_timeout_s=3.0, timeout_s=60.0)
    return Wire(carrier, auth or Bearer(Secret(KEY)))


async def test_a_call_becomes_a_request() -> None:
    """
    Method, URL and body as they are, our headers and the key's added, clocks beside them.
    """
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    await wire(answer).exchange(CALL)
    [request] = sent

    assert ("POST", CALL.url, CALL.body) == (request.method, str(request.url), request.content)
    assert dict(request.headers) == {
        "host": "reranker.test",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"batchrank/{__version__}",
        "content-type": "application/json",
        "content-length": "7",
        "authorization": f"Bearer {KEY}",
    }
    assert request.extensions["timeout"] == {
        "connect": 3.0,
        "pool": 3.0,
        "read": 60.0,
        "write": 60.0,
    }


async def test_a_call_may_have_its_own_headers() -> None:
    """
    Instead of ours, whatever their capitals; never instead of the key's.
    """
    headers = (("Accept", "text/plain"), ("AUTHORIZATION", "Basic x"))
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200)

    await wire(answer).exchange(HttpCall("POST", CALL.url, headers, b""))
    await wire(answer, Anonymous()).exchange(CALL)

    assert ["text/plain"] == sent[0].headers.get_list("accept")
    assert [f"Bearer {KEY}"] == sent[0].headers.get_list("authorization")
    assert "authorization" not in sent[1].headers


async def test_a_reply_has_names_in_lower_case() -> None:
    """
    Several lines of one name are joined, as HTTP says.
    """
    lines = [("Retry-After", "3"), ("X-A", "1"), ("x-a", "2")]
    reply = await wire(lambda _: httpx.Response(429, headers=lines, content=b"{}")).exchange(CALL)

    assert reply == HttpReply(
        429, {"retry-after": "3", "x-a": "1, 2", "content-length": "2"}, b"{}"
    )


async def test_a_reply_comes_as_it_is() -> None:
    """
    Even if it repeats the key: a document may hold the same letters, and its echo is compared.
    """
    headers = {"x-told": f"Bearer {KEY}"}
    body = f'{{"text":"{KEY}"}}'.encode()
    reply = await wire(lambda _: httpx.Response(401, headers=headers, content=body)).exchange(CALL)

    assert isinstance(reply, HttpReply)
    assert (body, f"Bearer {KEY}") == (reply.body, reply.headers["x-told"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            httpx.ReadTimeout("slow"),
            Failure(FailureKind.UNKNOWN, "slow", code="read_timeout"),
            id="an exception of httpx",
        ),
        pytest.param(
            failures.TooBig("large", status=200, reply_bytes=99),
            Failure(FailureKind.BAD_REPLY, "large", status=200, code="too_big", reply_bytes=99),
            id="a refused reply",
        ),
        pytest.param(
            httpx.ConnectError(""),
            Failure(FailureKind.NEVER_SENT, "ConnectError", code="connect"),
            id="without a word",
        ),
        pytest.param(
            httpx.ProxyError(f"http://u:{KEY}@proxy\x1b[31m\r\n"),
            Failure(FailureKind.NEVER_SENT, "http://u:***@proxy[31m", code="proxy"),
            id="with a secret and control characters",
        ),
        pytest.param(
            httpx.ConnectError("x" * 9999),
            Failure(FailureKind.NEVER_SENT, "x" * 500, code="connect"),
            id="with very many words",
        ),
    ],
)
async def test_what_the_world_does_is_a_failure(error: Exception, expected: Failure) -> None:
    """
    A value with a class, a code, and words that can be shown.
    """

    def answer(_request: httpx.Request) -> httpx.Response:
        raise error

    assert expected == await wire(answer).exchange(CALL)


@pytest.mark.parametrize("url", ["https://reranker.test:port/", "https://a\x00b/"])
async def test_an_address_that_is_none_is_fatal(url: str) -> None:
    """
    It was never sent, and never will be.
    """
    answer = await wire(lambda _: httpx.Response(200)).exchange(HttpCall("POST", url, (), b""))

    assert isinstance(answer, Failure)
    assert (FailureKind.FATAL, "invalid_url") == (answer.kind, answer.code)


async def test_a_bug_is_not_a_failure() -> None:
    """
    What no row of the table names passes through.
    """

    def answer(_request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await wire(answer).exchange(CALL)


Message = MutableMapping[str, Any]


async def test_an_application_in_this_process_answers() -> None:
    """
    The same call reaches an ASGI application, without a socket.
    """

    async def app(
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        reply: Callable[[Message], Awaitable[None]],
    ) -> None:
        body = (await receive())["body"]
        headers = [(b"X-Path", scope["path"].encode())]
        await reply({"type": "http.response.start", "status": 200, "headers": headers})
        await reply({"type": "http.response.body", "body": body * 2})

    carrier = HttpxCarrier(httpx.ASGITransport(app), connect_timeout_s=1, timeout_s=1)
    over_asgi = Wire(carrier, Anonymous())
    reply = await over_asgi.exchange(CALL)
    await over_asgi.aclose()

    assert HttpReply(200, {"x-path": "/v1/rerank"}, CALL.body * 2) == reply
