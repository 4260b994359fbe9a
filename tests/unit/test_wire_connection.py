"""
One connection without a socket: what it makes of bytes, however they are cut and whatever they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.providers.base import HttpReply
from batchrank.wire.connection import HEADER_LINES_MAX, SILENT_BYTES_MAX, Connection, Ended, How
from batchrank.wire.failures import Encoded, ReplyRefused, TooBig
from tests.laws import law

REPLY_BYTES_MAX = 1000
HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"Content-Length: 2\r\nX-A: b\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

Outcome = HttpReply | tuple[type[Exception], object]


class Wired(asyncio.Transport):
    """
    A transport that leads nowhere; *unsent_bytes* are still to be written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = 0
        self.unsent_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Remember it.
        """
        self.written.append(bytes(data))

    def abort(self) -> None:
        """
        Count it.
        """
        self.aborted += 1

    def get_write_buffer_size(self) -> int:
        """
        What the test says.
        """
        return self.unsent_bytes


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """
    A loop that never runs: futures want one.
    """
    made = asyncio.new_event_loop()
    yield made
    made.close()


def wired(loop: asyncio.AbstractEventLoop) -> tuple[Connection, Wired]:
    """
    A connection on a transport that leads nowhere.
    """
    connection, transport = Connection(loop, REPLY_BYTES_MAX), Wired()
    connection.connection_made(transport)
    return connection, transport


def outcome(asked: asyncio.Future[HttpReply]) -> Outcome | None:
    """
    What a test can compare; None while there is nothing.
    """
    if not asked.done():
        return None
    error = asked.exception()
    if error is None:
        return asked.result()
    assert isinstance(error, Ended | ReplyRefused)
    return type(error), error.how if isinstance(error, Ended) else error.status


def fed(connection: Connection, pieces: Sequence[bytes]) -> None:
    """
    Receive *pieces*, as far as the loop would: what is closed hears no more.
    """
    for piece in pieces:
        if connection.is_open and piece:
            connection.data_received(piece)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """
    *data* in pieces.
    """
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]


JSON = {"content-length": "2", "x-a": "b"}
LARGE = HEAD + b"Content-Length: 5000\r\n\r\n"

REPLIES: dict[str, tuple[bytes, Outcome, bool]] = {
    "a length": (OK, HttpReply(200, JSON, b"{}"), True),
    "chunks": (
        CHUNKED + b"1;x=y\r\n{\r\n1\r\n}\r\n0\r\nX-T: trailer\r\n\r\n",
        HttpReply(200, {"transfer-encoding": "chunked"}, b"{}"),
        True,
    ),
    "an end": (HEAD + b"\r\n{}", HttpReply(200, {}, b"{}"), False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}", HttpReply(200, {}, b"{}"), False),
    "HTTP/1.0, kept": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        HttpReply(200, {"connection": "keep-alive", "content-length": "0"}, b""),
        True,
    ),
    "says that it closes": (
        HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        HttpReply(200, {"connection": "close", "content-length": "2"}, b"{}"),
        False,
    ),
    "100 and 103 before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX-A: early\r\nLink: x\r\n\r\n" + OK,
        HttpReply(200, JSON, b"{}"),
        True,
    ),
    "an empty line before it": (b"\r\n" + OK, HttpReply(200, JSON, b"{}"), True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", HttpReply(204, {}, b""), True),
    "304 with a length": (
        b"HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n",
        HttpReply(304, {"content-length": "9"}, b""),
        True,
    ),
    "two lines of one name": (
        HEAD + b"X-A: b\r\nx-a:c \r\nContent-Length: 0\r\n\r\n",
        HttpReply(200, {"x-a": "b, c", "content-length": "0"}, b""),
        True,
    ),
    "a line that is no text": (
        HEAD + b"X-B: \xff\r\nX-A: b\r\nContent-Length: 2\r\n\r\n{}",
        HttpReply(200, JSON, b"{}"),
        True,
    ),
    "a hundred lines": (
        HEAD + b"X: y\r\n" * 100 + b"Content-Length: 0\r\n\r\n",
        HttpReply(200, {"x": ", ".join("y" * 100), "content-length": "0"}, b""),
        True,
    ),
    "too large": (LARGE + b"x" * 99, (TooBig, 200), False),
    "too large, a failure": (
        LARGE.replace(b"200", b"429"),
        HttpReply(429, {"content-length": "5000"}, b""),
        False,
    ),
    "compressed": (
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
        (Encoded, 200),
        False,
    ),
    "compressed on the way": (
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        (Encoded, 200),
        False,
    ),
    **{
        name: (text, (Ended, How.GARBAGE), False)
        for name, text in {
            "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "101": b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "a length beside chunks": HEAD
            + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n",
            "a length that is none": HEAD + b"Content-Length: -1\r\n\r\n",
            "a chunk without a length": CHUNKED + b"zz\r\n",
            "too many lines": HEAD + b"X: y\r\n" * (HEADER_LINES_MAX + 2),
            "too many trailers": CHUNKED + b"0\r\n" + b"X: y\r\n" * (HEADER_LINES_MAX + 2),
        }.items()
    },
    "cut short": (OK[:-1], (Ended, How.HUNG_UP), False),
    "cut in a chunk": (CHUNKED + b"5\r\n{", (Ended, How.HUNG_UP), False),
    "cut before the last chunk": (CHUNKED + b"1\r\n1\r\n", (Ended, How.HUNG_UP), False),
    "cut in the head": (HEAD, (Ended, How.HUNG_UP), False),
    "cut after a 100": (b"HTTP/1.1 100 x\r\n\r\n", (Ended, How.HUNG_UP), False),
}


@given(places=st.lists(st.integers(0, 10_000), max_size=30), name=st.sampled_from(list(REPLIES)))
@law(300)
def test_however_a_reply_is_cut_it_is_the_same(
    loop: asyncio.AbstractEventLoop, places: list[int], name: str
) -> None:
    """
    Its meaning, and whether the connection serves again; its end comes last.
    """
    data, expected, fit = REPLIES[name]
    connection, transport = wired(loop)
    asked = connection.ask(b"request")
    fed(connection, cut(data, places))

    assert fit is connection.is_fit()
    connection.eof_received()
    assert expected == outcome(asked)
    assert (1, False) == (transport.aborted, connection.is_fit())


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_in_single_bytes_is_the_same(loop: asyncio.AbstractEventLoop, name: str) -> None:
    """
    The worst cut, and the whole: for each of them.
    """
    data, expected, fit = REPLIES[name]
    for pieces in ([data], [bytes([byte]) for byte in data]):
        connection, _ = wired(loop)
        asked = connection.ask(b"request")
        fed(connection, pieces)

        assert fit is connection.is_fit()
        connection.eof_received()
        assert expected == outcome(asked)


@pytest.mark.parametrize("name", REPLIES)
def test_what_a_reply_means_does_not_depend_on_what_is_being_handled(
    loop: asyncio.AbstractEventLoop, name: str
) -> None:
    """
    The loop may call while an exception is handled further out: it becomes every other's context.
    """
    data, expected, _ = REPLIES[name]
    connection, _ = wired(loop)
    asked = connection.ask(b"request")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        fed(connection, [data])
    connection.eof_received()

    assert expected == outcome(asked)


MARKS = [HEAD, OK, CHUNKED, b"\r\n", b"0\r\n\r\n", b"HTTP/1.1 100 x\r\n\r\n", b"Content-Length: 3"]
BYTES = st.binary(max_size=20) | st.sampled_from([*MARKS, *(row[0] for row in REPLIES.values())])


@given(
    pieces=st.lists(BYTES, max_size=8),
    ends=st.sampled_from(["eof_received", "connection_lost", "expire", "abort"]),
    bodiless=st.booleans(),
)
@law(500)
def test_whatever_comes_a_call_ends_as_it_should(
    loop: asyncio.AbstractEventLoop, pieces: list[bytes], ends: str, bodiless: bool
) -> None:
    """
    With a reply or a known failure, once; what is fit to be used again gives the next reply whole.
    """
    connection, transport = wired(loop)
    asked = connection.ask(b"request", b"", bodiless)
    fed(connection, pieces)
    if connection.is_fit():
        again = connection.ask(b"request")
        fed(connection, [OK])

        assert outcome(again) == HttpReply(200, JSON, b"{}")
    arguments = [ConnectionResetError()] if ends == "connection_lost" else []
    getattr(connection, ends)(*arguments)

    assert outcome(asked) is not None
    assert (1, False) == (transport.aborted, connection.is_open)


@pytest.mark.parametrize(
    "late", [b"junk", OK, b"HTTP/1.1 408 x\r\n\r\n", b"HTTP/1.1 100 x\r\n\r\n", b"H"]
)
@pytest.mark.parametrize("together", [True, False])
def test_bytes_that_nobody_asked_for_end_a_connection(
    loop: asyncio.AbstractEventLoop, late: bytes, together: bool
) -> None:
    """
    The reply before them counts, whether they come with it or after it.
    """
    connection, _ = wired(loop)
    asked = connection.ask(b"request")
    fed(connection, [OK + late] if together else [OK, late])

    assert outcome(asked) == HttpReply(200, JSON, b"{}")
    assert not connection.is_fit()


def test_bytes_before_the_first_request_end_a_connection(loop: asyncio.AbstractEventLoop) -> None:
    """
    A server that speaks first speaks something else.
    """
    connection, transport = wired(loop)
    fed(connection, [OK])

    assert (False, 1) == (connection.is_open, transport.aborted)


def test_a_request_that_has_not_left_keeps_its_connection_from_the_next(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """
    The reply came early; what is left of the request would stand before the next one.
    """
    connection, transport = wired(loop)
    transport.unsent_bytes = 1
    asked = connection.ask(b"head", b"body")
    fed(connection, [OK])

    assert [b"head", b"body"] == transport.written
    assert outcome(asked) == HttpReply(200, JSON, b"{}")
    assert not connection.is_fit()


@pytest.mark.parametrize(
    "start",
    [HEAD + b"X: ", CHUNKED + b"1;x=", CHUNKED + b"0\r\nX: ", HEAD],
    ids=["a line", "a chunk's own words", "a trailer", "a name"],
)
def test_what_has_no_end_is_garbage_before_memory_is_full(
    loop: asyncio.AbstractEventLoop, start: bytes
) -> None:
    """
    Wherever a server goes on and on without a byte of a body.
    """
    connection, _ = wired(loop)
    asked = connection.ask(b"request")
    fed(connection, [start, *[b"x" * 1000] * (SILENT_BYTES_MAX // 1000 + 1)])

    assert outcome(asked) == (Ended, How.GARBAGE)


@pytest.mark.parametrize(
    ("pieces", "error", "begun", "reused"),
    [
        ([], None, False, False),
        ([], ConnectionResetError(), False, False),
        ([b"H"], None, True, False),
        ([OK], None, False, True),
        ([OK, b"H"], None, True, True),
    ],
)
def test_an_end_says_how_far_the_call_had_come(
    loop: asyncio.AbstractEventLoop,
    pieces: list[bytes],
    error: Exception | None,
    begun: bool,
    reused: bool,
) -> None:
    """
    That decides what it is called.
    """
    connection, _ = wired(loop)
    asked = connection.ask(b"request")
    for piece in pieces:
        if connection.is_fit():
            asked = connection.ask(b"request")
        fed(connection, [piece])
    if connection.is_fit():
        asked = connection.ask(b"request")
    connection.connection_lost(error)
    ended = asked.exception()

    assert isinstance(ended, Ended)
    assert (How.HUNG_UP, begun, reused, error) == (
        ended.how,
        ended.begun,
        ended.reused,
        ended.error,
    )


def test_nobody_is_told_twice(loop: asyncio.AbstractEventLoop) -> None:
    """
    Who has gone is not told at all.
    """
    connection, transport = wired(loop)
    asked = connection.ask(b"request")
    asked.cancel()
    fed(connection, [OK[:-1]])
    connection.expire()
    connection.abort()
    connection.connection_lost(None)

    assert asked.cancelled()
    assert transport.aborted == 1
    assert connection.lost.done()


class Broken(Wired):
    """
    A transport that raises where it is to write.
    """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """
        Raise.
        """
        raise TypeError("a bug of the loop's")


def test_a_transport_that_raises_at_writing_may_have_sent_something(
    loop: asyncio.AbstractEventLoop,
) -> None:
    """
    How much had left is not known, so the call is not free; and the connection is used no more.
    """
    connection = Connection(loop, 1000)
    connection.connection_made(Broken())

    error = connection.ask(b"POST / HTTP/1.1\r\n\r\n").exception()

    assert isinstance(error, Ended)
    assert error.how is How.HUNG_UP
    assert not connection.is_fit()
