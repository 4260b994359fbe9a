"""
What every carrier does on real sockets: each failure has its one class, and nothing is lost by it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from batchrank.domain import Failure, FailureKind
from batchrank.providers.base import HttpReply
from batchrank.wire import carrier as port
from batchrank.wire import failures
from tests.edges.carriers import CARRIERS, LOOPS, Carrier, carried, many, said, send
from tests.edges.wild_server import (
    BODY,
    CHUNKED,
    OK,
    Peer,
    Play,
    WildServer,
    breaks,
    drips,
    ok,
    says,
    waits,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("carrier", CARRIERS)]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """
    Both loops: they report broken connections in ways of their own.
    """
    return request.param


UNKNOWN, BAD_REPLY = FailureKind.UNKNOWN, FailureKind.BAD_REPLY
HEAD = b"HTTP/1.1 200 OK\r\n"
HALF_CHUNK = CHUNKED + b'5\r\n{"r'
TIMEOUT_S = 0.2
"""Long enough for what is to succeed beside it."""

REPLY_BYTES_MAX = 4000
LENGTH_AND_CHUNKS = HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
ZIPPED = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b"

BROKEN = [
    pytest.param(breaks(), failures.Closed, "closed", id="hangs up"),
    pytest.param(breaks(HEAD[:4]), failures.CutShort, "cut_short", id="hangs up in the status"),
    pytest.param(breaks(HEAD + b"X"), failures.CutShort, "cut_short", id="hangs up in the head"),
    pytest.param(breaks(OK[:-5]), failures.CutShort, "cut_short", id="hangs up in the body"),
    pytest.param(breaks(HALF_CHUNK), failures.CutShort, "cut_short", id="hangs up in a chunk"),
    pytest.param(
        breaks(CHUNKED + b"2\r\n{}\r\n"),
        failures.CutShort,
        "cut_short",
        id="hangs up before the last chunk",
    ),
    pytest.param(breaks(how=Peer.reset), httpx.ReadError, "reset", id="resets"),
    pytest.param(
        breaks(OK[:-5], how=Peer.reset), failures.CutShort, "cut_short", id="resets in the body"
    ),
    pytest.param(breaks(how=Peer.hang), httpx.ReadTimeout, "read_timeout", id="is silent"),
    pytest.param(
        breaks(HEAD, how=Peer.hang), httpx.ReadTimeout, "read_timeout", id="is silent in the head"
    ),
    pytest.param(
        breaks(OK[:-5], how=Peer.hang),
        httpx.ReadTimeout,
        "read_timeout",
        id="is silent in the body",
    ),
    pytest.param(
        breaks(HALF_CHUNK, how=Peer.hang),
        httpx.ReadTimeout,
        "read_timeout",
        id="is silent in a chunk",
    ),
    pytest.param(
        drips(HEAD + b"Content-Length: 999\r\n\r\n", b"x", 0.02),
        httpx.ReadTimeout,
        "read_timeout",
        id="drips its body",
    ),
    pytest.param(
        drips(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.02),
        httpx.ReadTimeout,
        "read_timeout",
        id="says for ever that it is at work",
    ),
    *(
        pytest.param(breaks(text, how=Peer.hang), failures.Garbage, "garbage", id=name)
        for name, text in {
            "speaks SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
            "speaks HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
            "sends bare HTML": b"<html>Bad Gateway</html>\r\n\r\n",
            "sends zeros": bytes(300),
            "sends a chunk without a length": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
            "sends a length that is no number": HEAD + b"Content-Length: two\r\n\r\n{}",
            "sends two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "sends the same length twice": HEAD + b"Content-Length: 2\r\n" * 2 + b"\r\n{}",
            "sends a length beside chunks": LENGTH_AND_CHUNKS + b"5\r\n{    \r\n0\r\n\r\n",
            "sends a header without an end": HEAD + b"X: " + b"x" * 500_000,
            "sends hundreds of headers": HEAD + b"X: x\r\n" * 200 + b"\r\n",
            "changes the protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n",
        }.items()
    ),
]


@pytest.mark.parametrize(("play", "error", "code"), BROKEN)
async def test_a_call_that_had_left_fails_as_unknown(
    carrier: Carrier, play: Play, error: type[Exception], code: str
) -> None:
    """
    After the request has left nobody knows what it cost; the exact class says how it ended.
    """
    timeout_s = TIMEOUT_S if code == "read_timeout" else 5.0
    with WildServer([play, ok]) as server:
        async with carried(carrier, timeout_s=timeout_s) as transport:
            first = await send(transport, server.url())
            second = await send(transport, server.url())

    assert error is transport.raised
    assert (UNKNOWN, code) == said(first)
    assert said(second) == 200, "the only place was lost"
    assert len(server.seen) == 2, "a request was sent twice"


@pytest.mark.parametrize(
    ("play", "error", "code", "reply_bytes"),
    [
        pytest.param(
            says(HEAD + b"Content-Length: 5000\r\n\r\n", b"x" * 5000),
            failures.TooBig,
            "too_big",
            5000,
            id="too large by its length",
        ),
        pytest.param(
            says(CHUNKED + b"1388\r\n" + b"x" * 5000 + b"\r\n0\r\n\r\n"),
            failures.TooBig,
            "too_big",
            5000,
            id="too large by its chunks",
        ),
        pytest.param(says(ZIPPED), failures.Encoded, "encoded", 2, id="compressed"),
    ],
)
async def test_a_success_that_cannot_be_read_is_a_bad_reply(
    carrier: Carrier, play: Play, error: type[Exception], code: str, reply_bytes: int
) -> None:
    """
    It was paid for, so its status and length are kept; the connection is dropped.
    """
    with WildServer([play, ok]) as server:
        async with carried(carrier, reply_bytes_max=REPLY_BYTES_MAX) as transport:
            first = await send(transport, server.url())
            second = await send(transport, server.url())

    assert error is transport.raised
    assert isinstance(first, Failure)
    assert (BAD_REPLY, code, 200) == (first.kind, first.code, first.status)
    assert reply_bytes == first.reply_bytes
    assert said(second) == 200


@pytest.mark.parametrize(
    ("play", "status", "body"),
    [
        pytest.param(says(b"HTTP/1.1 100 Continue\r\n\r\n", OK), 200, BODY, id="after a 100"),
        pytest.param(says(b"\r\n", OK), 200, BODY, id="after an empty line"),
        pytest.param(
            says(CHUNKED + b"1\r\n{\r\n", b"1\r\n}\r\n0\r\nX: y\r\n\r\n"), 200, b"{}", id="chunks"
        ),
        pytest.param(breaks(HEAD + b"\r\n{}"), 200, b"{}", id="a body that ends with the line"),
        pytest.param(breaks(b"HTTP/1.0 200 OK\r\n\r\n{}"), 200, b"{}", id="HTTP/1.0"),
        pytest.param(says(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b"", id="no content"),
        pytest.param(
            says(HEAD + b"X: " + b"x" * 20_000 + b"\r\nContent-Length: 2\r\n\r\n{}"),
            200,
            b"{}",
            id="a long header",
        ),
        pytest.param(
            says(b"HTTP/1.1 429 x\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\nxx"),
            429,
            b"",
            id="a compressed 429",
        ),
        pytest.param(
            says(b"HTTP/1.1 503 x\r\nContent-Length: 5000\r\n\r\n", b"x" * 5000),
            503,
            b"",
            id="a 503 with a huge body",
        ),
        pytest.param(
            says(b"HTTP/1.1 503 x\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n", b"x" * 5000),
            503,
            b"",
            id="a 503 with huge chunks",
        ),
    ],
)
async def test_a_reply_that_can_be_understood_is_a_reply(
    carrier: Carrier, play: Play, status: int, body: bytes
) -> None:
    """
    Of a failure, the status is enough: its body is left out rather than called a bad reply.
    """
    with WildServer([play, play, ok]) as server:
        async with carried(carrier, reply_bytes_max=REPLY_BYTES_MAX) as transport:
            replies = [await send(transport, server.url()) for _ in range(3)]

    assert [(status, body)] * 2 == [(r.status, getattr(r, "body", r)) for r in replies[:2]]
    assert said(replies[2]) == 200


async def test_a_reply_without_an_end_is_refused_when_it_is_too_large(carrier: Carrier) -> None:
    """
    Not when memory is full, nor when its time is up.
    """
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    with WildServer([drips(CHUNKED, chunk, 0.0)]) as server:
        async with carried(carrier, reply_bytes_max=2**20) as transport:
            answer = await send(transport, server.url())

    assert said(answer) == (BAD_REPLY, "too_big")


async def test_a_header_that_is_no_text_is_left_out(carrier: Carrier) -> None:
    """
    The reply is paid for, whatever a server puts beside it.
    """
    reply = HEAD + b"X-A: \xff\xfe\r\nX-B: b\r\nContent-Length: 2\r\n\r\n{}"
    with WildServer([says(reply)]) as server:
        async with carried(carrier) as transport:
            answer = await send(transport, server.url())

    assert answer == HttpReply(200, {"x-b": "b", "content-length": "2"}, b"{}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(carrier: Carrier, status: int) -> None:
    """
    The key does not travel: where the redirect leads, nobody ever calls.
    """
    with WildServer([ok]) as elsewhere:
        moved = (
            f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url()}\r\nContent-Length: 0\r\n\r\n"
        )
        with WildServer([says(moved.encode())]) as server:
            async with carried(carrier) as transport:
                reply = await send(transport, server.url())

    assert isinstance(reply, HttpReply)
    assert (status, elsewhere.url()) == (reply.status, reply.headers["location"])
    assert elsewhere.connections == 0


async def test_what_leaves_is_what_was_asked(carrier: Carrier) -> None:
    """
    One request with the key, a length, no compression asked for, and nobody's default headers.
    """
    body = json.dumps({"query": "Zürich"}).encode()
    with WildServer([ok]) as server:
        async with carried(carrier) as transport:
            await send(transport, server.url(), body=body)
    [seen] = server.seen

    assert seen.line == "POST /v1/rerank HTTP/1.1"
    assert body == seen.body
    agent = seen.headers.pop("user-agent")
    assert agent.startswith("batchrank/")
    assert seen.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "authorization": "Bearer sk-canary-0123456789",
    }


async def test_cookies_are_not_kept(carrier: Carrier) -> None:
    """
    A run is not a session: what a server wants remembered is forgotten.
    """
    cookie = HEAD + b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 0\r\n\r\n"
    with WildServer([says(cookie)]) as server:
        async with carried(carrier) as transport:
            first = await send(transport, server.url("localhost"))
            await send(transport, server.url("localhost"))

    assert isinstance(first, HttpReply)
    assert first.headers["set-cookie"] == "a=b, c=d"
    assert all("cookie" not in seen.headers for seen in server.seen)


async def test_a_body_larger_than_any_buffer_arrives(carrier: Carrier) -> None:
    """
    Bodies of megabytes go out in pieces and come in whole.
    """
    body = bytes(range(256)) * 20_000
    large = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with WildServer([says(large)]) as server:
        async with carried(carrier) as transport:
            reply = await send(transport, server.url(), body=body)

    assert isinstance(reply, HttpReply)
    assert body == server.seen[0].body
    assert body == reply.body


async def test_a_server_that_does_not_read_is_a_timeout(carrier: Carrier) -> None:
    """
    Half a request may be enough to be billed: unknown, and the place is free again.
    """
    with WildServer([breaks(how=Peer.hang), ok], reads_bodies=False) as server:
        async with carried(carrier, timeout_s=TIMEOUT_S) as transport:
            first = await send(transport, server.url(), body=bytes(20_000_000))
            second = await send(transport, server.url())

    assert said(first) == (UNKNOWN, "read_timeout")
    assert said(second) == 200


async def test_a_reply_before_the_request_has_left_is_a_reply(carrier: Carrier) -> None:
    """
    A 413 may come early; the rest of the body is not sent, and nothing else on that connection.
    """
    early = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    with WildServer([breaks(early, how=Peer.hang), ok], reads_bodies=False) as server:
        async with carried(carrier) as transport:
            first = await send(transport, server.url(), body=bytes(20_000_000))
            second = await send(transport, server.url())

    assert (413, 200) == (said(first), said(second))
    assert server.connections == 2


async def test_a_reply_before_the_server_hangs_up_on_a_large_body_is_a_reply(
    carrier: Carrier,
) -> None:
    """
    The end that follows it breaks only what we still had to say.
    """

    def refuses(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        time.sleep(0.05)
        peer.close()

    with WildServer([refuses, ok], reads_bodies=False) as server:
        async with carried(carrier) as transport:
            first = await send(transport, server.url(), body=bytes(20_000_000))
            second = await send(transport, server.url())

    assert (413, 200) == (said(first), said(second))


async def test_a_reply_to_head_has_no_body_whatever_it_says(carrier: Carrier) -> None:
    """
    It would be waited for in vain.
    """
    with WildServer([says(HEAD + b"Content-Length: 999\r\n\r\n"), ok]) as server:
        async with carried(carrier) as transport:
            first = await send(transport, server.url(), method="HEAD")
            second = await send(transport, server.url())

    assert first == HttpReply(200, {"content-length": "999"}, b"")
    assert said(second) == 200


@pytest.mark.parametrize(
    ("method", "line"),
    [
        pytest.param("POST /x HTTP/1.1\r\nX: y\r\n\r\nGET", ("x-a", "b"), id="a method"),
        pytest.param("POST", ("x-a", "b\r\nX-C: d"), id="a header's value"),
        pytest.param("POST", ("x-a: b\r\nx-c", "d"), id="a header's name"),
        pytest.param("POST", ("x-a", "zürich"), id="a letter that no header has"),
    ],
)
async def test_what_would_be_another_request_is_not_sent(
    carrier: Carrier, method: str, line: tuple[str, str]
) -> None:
    """
    Nothing that is put into a head can end it.
    """
    with WildServer([ok]) as server:
        async with carried(carrier) as transport:
            with pytest.raises(httpx.LocalProtocolError):
                await transport.carry(method, server.url(), (line,), b"")

    assert server.seen == []


# --- kept connections -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", [pytest.param(Peer.close, id="closes"), pytest.param(Peer.reset, id="resets")]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_kept_connection_that_ends_as_we_send_has_a_code_of_its_own(
    carrier: Carrier, how: Play, method: str
) -> None:
    """
    Unknown, as nobody knows what the server had read; and sent once, even where HTTP allows more.
    """
    with WildServer([ok, breaks(how=how), ok]) as server:
        async with carried(carrier) as transport:
            replies = [await send(transport, server.url(), method=method) for _ in range(3)]

    assert [200, (UNKNOWN, "closed_reused"), 200] == list(map(said, replies))
    assert [1, 1, 2] == [seen.connection for seen in server.seen]


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(b"", id="an end"),
        pytest.param(OK.replace(b"results", b"someone"), id="a reply that nobody asked for"),
        pytest.param(b"HTTP/1.1 408 Request Timeout\r\n\r\n", id="a farewell"),
        pytest.param(b"junk", id="junk"),
    ],
)
@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("read", [True, False])
async def test_a_kept_connection_that_speaks_out_of_turn_is_not_used(
    carrier: Carrier, late: bytes, end: bool, read: bool
) -> None:
    """
    Its bytes would be taken for the next reply: another group's scores.
    """
    done = threading.Event()

    def and_then(peer: Peer) -> None:
        says(OK)(peer)
        turn.wait(5)
        says(late)(peer)
        if end or not late:
            peer.close()
        done.set()

    turn = threading.Event()
    with WildServer([and_then, ok]) as server:
        async with carried(carrier) as transport:
            first = await send(transport, server.url())
            turn.set()
            if read:
                await anyio.to_thread.run_sync(done.wait, 5)
            else:
                done.wait(5)  # blocks the loop: the bytes wait in the socket
            second = await send(transport, server.url())

    assert [BODY, BODY] == [getattr(reply, "body", reply) for reply in (first, second)]
    assert server.connections == 2


@pytest.mark.parametrize(
    "how", [pytest.param(Peer.close, id="closes"), pytest.param(Peer.reset, id="resets")]
)
async def test_kept_connections_that_end_at_any_moment_cost_no_request_twice(
    carrier: Carrier, how: Play
) -> None:
    """
    A call that never left is free, or goes out on another connection; one that left goes once.
    """

    def soon(peer: Peer) -> None:
        says(OK)(peer)
        time.sleep(random.random() / 500)
        how(peer)

    with WildServer([soon]) as server:
        async with carried(carrier, connections_max=8) as transport:
            answers = []
            for _ in range(20):
                answers += await many(transport, server.url(), 8)
                await anyio.sleep(random.random() / 500)

    replied = sum(said(answer) == 200 for answer in answers)
    unknown = sum(isinstance(a, Failure) and a.kind == UNKNOWN for a in answers)
    assert replied <= len(server.seen) <= replied + unknown


async def test_a_connection_that_ends_as_it_begins_may_have_been_sent_upon(
    carrier: Carrier,
) -> None:
    """
    Free only where the request came back whole; the server, which reads nothing, cannot tell.
    """

    def accept() -> None:
        for _ in range(100):
            listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        async with carried(carrier, connections_max=20) as transport:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            answers = [answer for _ in range(5) for answer in await many(transport, url, 20)]

    assert {(UNKNOWN, "closed"), (UNKNOWN, "reset"), (NEVER_SENT, "connect")} >= set(
        map(said, answers)
    )


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), id="that says so"),
        pytest.param(OK.replace(b"1.1", b"1.0"), id="of HTTP/1.0"),
        pytest.param(OK + b"junk", id="with junk after it"),
        pytest.param(OK + OK, id="with another one after it"),
    ],
)
async def test_a_connection_is_not_kept_after_a_reply(carrier: Carrier, reply: bytes) -> None:
    """
    The reply counts, and the next request goes out on another connection.
    """
    with WildServer([says(reply)]) as server:
        async with carried(carrier) as transport:
            answers = [await send(transport, server.url()) for _ in range(3)]

    assert [200] * 3 == list(map(said, answers))
    assert server.connections == 3


async def test_a_connection_is_kept_for_so_long_and_no_longer(carrier: Carrier) -> None:
    """
    Servers close what is idle; no request should meet that moment.
    """
    with WildServer([ok]) as server:
        async with carried(carrier, kept_s=0.0) as transport:
            for _ in range(3):
                await send(transport, server.url())

    assert server.connections == 3


async def test_a_hundred_requests_at_once_share_their_connections(carrier: Carrier) -> None:
    """
    Rounds of a hundred open no more than a hundred connections.
    """
    with WildServer([ok]) as server:
        async with carried(carrier, connections_max=100) as transport:
            answers = [
                answer for _ in range(3) for answer in await many(transport, server.url(), 100)
            ]

    assert {200} == set(map(said, answers))
    assert len(server.seen) == 300
    assert server.connections <= 100


async def test_no_more_requests_are_under_way_than_there_are_places(carrier: Carrier) -> None:
    """
    The rest wait for a place and are sent when it is free.
    """
    with WildServer([waits(0.01, ok)]) as server:
        async with carried(carrier, connections_max=3) as transport:
            answers = await many(transport, server.url(), 12)

    assert {200} == set(map(said, answers))
    assert server.busy_max <= 3


# --- never sent -----------------------------------------------------------------------------------


NEVER_SENT, FATAL = FailureKind.NEVER_SENT, FailureKind.FATAL


@pytest.mark.parametrize(
    ("url", "error", "kind", "code"),
    [
        pytest.param(
            "http://127.0.0.1:{closed}/", failures.Refused, NEVER_SENT, "refused", id="refused"
        ),
        pytest.param(
            "http://localhost:{closed}/",
            failures.Refused,
            NEVER_SENT,
            "refused",
            id="refused at every address",
        ),
        pytest.param(
            "http://nonexistent.invalid/", failures.NameNotFound, NEVER_SENT, "dns", id="no name"
        ),
        pytest.param(
            f"http://{'a' * 64}.invalid/", httpx.InvalidURL, FATAL, "invalid_url", id="long label"
        ),
        pytest.param(
            "http://127.1:{closed}/",
            httpx.InvalidURL,
            FATAL,
            "invalid_url",
            id="not quite an address",
        ),
        pytest.param(
            "ftp://127.0.0.1/", httpx.UnsupportedProtocol, FATAL, "unsupported", id="not http"
        ),
        pytest.param(
            "http:///rerank", httpx.UnsupportedProtocol, FATAL, "unsupported", id="no host"
        ),
    ],
)
async def test_where_nobody_listens_nothing_is_sent(
    carrier: Carrier, url: str, error: type[Exception], kind: FailureKind, code: str
) -> None:
    """
    Free to try again, or never to be tried again; the place is kept.
    """
    url = url.format(closed=closed_port())
    with WildServer([ok]) as server:
        async with carried(carrier) as transport:
            first = await send(transport, url)
            second = await send(transport, server.url())

    assert error is transport.raised
    assert (kind, code) == said(first)
    assert said(second) == 200


def closed_port() -> int:
    """
    A port at which nobody listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def full_port() -> Iterator[int]:
    """
    A port whose queue is full: the kernel drops whoever knocks, as a dead host would.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listener.getsockname()
        with suppress(TimeoutError):
            while True:
                knock = stack.enter_context(socket.socket())
                knock.settimeout(0.02)
                knock.connect(address)
        yield address[1]


@pytest.mark.parametrize(
    "clock",
    [
        pytest.param({"connect_timeout_s": TIMEOUT_S}, id="for the connection"),
        pytest.param({"timeout_s": TIMEOUT_S}, id="for the whole call"),
    ],
)
async def test_a_host_that_does_not_answer_is_a_connect_timeout(
    carrier: Carrier, clock: dict[str, Any]
) -> None:
    """
    Nothing had left, whichever of the two clocks is the shorter.
    """
    with WildServer([ok]) as server, full_port() as port:
        async with carried(carrier, **clock) as transport:
            first = await send(transport, f"http://127.0.0.1:{port}/")
            second = await send(transport, server.url())

    assert said(first) == (NEVER_SENT, "connect_timeout")
    assert said(second) == 200


async def test_a_place_that_does_not_come_free_is_a_pool_timeout(carrier: Carrier) -> None:
    """
    Who waited for a place in vain has sent nothing.
    """
    clocks: dict[str, Any] = {"connect_timeout_s": TIMEOUT_S / 3, "timeout_s": TIMEOUT_S}
    with WildServer([breaks(how=Peer.hang), ok]) as server:
        async with carried(carrier, **clocks) as transport:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send, transport, server.url())
                await anyio.to_thread.run_sync(until, lambda: server.seen)
                first = await send(transport, server.url())
            second = await send(transport, server.url())

    assert said(first) == (NEVER_SENT, "pool_timeout")
    assert said(second) == 200


@contextmanager
def no_more_files() -> Iterator[Callable[[], None]]:
    """
    Use up what this process may open; what is yielded does it again.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.dup(0)]

    def take() -> None:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))

    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 16, hard))
    try:
        take()
        yield take
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in taken:
            os.close(descriptor)


@pytest.mark.parametrize("used", [True, False])
async def test_a_machine_without_sockets_sends_nothing(carrier: Carrier, used: bool) -> None:
    """
    Too many open files: no fault of the group, and it heals, also where nothing was open yet.
    """
    url = "http://127.0.0.1:1/"
    async with carried(carrier) as transport:
        if used:
            await send(transport, url)
        with no_more_files() as take:
            first = await send(transport, url)
            while said(first) == (NEVER_SENT, "refused"):  # another test's connection was closed
                take()
                first = await send(transport, url)
        with WildServer([ok]) as server:
            second = await send(transport, server.url())

    assert said(first) == (NEVER_SENT, "out_of_sockets")
    assert said(second) == 200


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(breaks(how=Peer.hang), id="before the reply"),
        pytest.param(breaks(HEAD, how=Peer.hang), id="in the head"),
        pytest.param(breaks(OK[:-5], how=Peer.hang), id="in the body"),
        pytest.param(breaks(HALF_CHUNK, how=Peer.hang), id="in a chunk"),
    ],
)
async def test_a_cancelled_call_leaves_its_place_at_once(carrier: Carrier, play: Play) -> None:
    """
    Cancelled from outside in mid-call, it ends, its connection closes, and its place is free.
    """
    with WildServer([play] * 5 + [ok]) as server:
        async with carried(carrier, connections_max=5) as transport:
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(send, transport, server.url())
                await anyio.to_thread.run_sync(until, lambda: len(server.seen) == 5)
                tasks.cancel_scope.cancel()
            answers = await many(transport, server.url(), 5)

    assert {200} == set(map(said, answers))


async def test_calls_cancelled_while_connecting_or_queued_leave_their_places(
    carrier: Carrier,
) -> None:
    """
    The same for those who wait for a connection, or for a place to have one.
    """
    with WildServer([ok]) as server, full_port() as port:
        async with carried(carrier, connections_max=2) as transport:
            async with anyio.create_task_group() as tasks:
                for _ in range(6):
                    tasks.start_soon(send, transport, f"http://127.0.0.1:{port}/")
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            answers = await many(transport, server.url(), 2)

    assert {200} == set(map(said, answers))


@pytest.mark.parametrize("millis", range(26, 35))
async def test_replies_that_race_with_the_clock_lose_no_place(
    carrier: Carrier, millis: int
) -> None:
    """
    Where reply and timeout meet, each call has one or the other, and no reply is another's.
    """
    with WildServer([waits(0.03, ok)] * 8 + [ok]) as server:
        async with carried(carrier, connections_max=8, timeout_s=millis / 1000) as transport:
            answers = await many(transport, server.url(), 8)
            after = await in_time(transport, server.url(), 8)

    assert {200, (UNKNOWN, "read_timeout"), (NEVER_SENT, "connect_timeout")} >= set(
        map(said, answers)
    )
    assert {200} == set(map(said, after))


async def test_closing_ends_what_waits_and_what_connects(carrier: Carrier) -> None:
    """
    As never sent.
    """
    answers = []

    async def one() -> None:
        answers.append(await send(transport, f"http://127.0.0.1:{port}/"))

    with full_port() as port:
        async with carried(carrier) as transport, anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            await transport.aclose()

    assert {(NEVER_SENT, "connect"), (NEVER_SENT, "pool_timeout")} == set(map(said, answers))


async def test_closing_ends_what_is_under_way(carrier: Carrier) -> None:
    """
    As unknown, for it had left; closing once more does no harm.
    """
    answers = []

    async def one() -> None:
        answers.append(await send(transport, server.url()))

    with WildServer([breaks(how=Peer.hang)]) as server:
        async with carried(carrier) as transport, anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            await anyio.to_thread.run_sync(until, lambda: server.seen)
            await transport.aclose()

    assert [(UNKNOWN, "closed")] == list(map(said, answers))


async def in_time(carrier: port.Carrier, url: str, count: int) -> list[HttpReply | Failure]:
    """
    Send *count* calls at once, again and again until all are replied to or patience has ended.
    """
    give_up_at = time.monotonic() + 5
    while True:
        answers = await many(carrier, url, count)
        if {200} == set(map(said, answers)) or time.monotonic() > give_up_at:
            return answers


def until(holds: Callable[[], object]) -> None:
    """
    Wait, in a thread, for what another thread does.
    """
    give_up_at = time.monotonic() + 5
    while not holds() and time.monotonic() < give_up_at:
        time.sleep(0.002)
