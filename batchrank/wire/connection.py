"""
One connection: a request goes out on it, a reply comes in, and it knows exactly how far each came.

Owns the reading of a reply (the grammar is httptools'), its limits, and whether the connection is
fit for another request. Opens nothing, keeps no time, knows neither routes nor words for messages.

From the moment in which `ask` hands a request to the transport it may have been sent. A reply is
complete, or the connection is not used again: nothing that is strange is forgiven.
"""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import cast

import httptools

from batchrank.providers.base import HttpReply
from batchrank.wire.failures import Encoded, ReplyRefused, TooBig

SILENT_BYTES_MAX = 65_536
"""So much of heads, trailers and chunks' own words may come without a byte of a body."""

HEADER_LINES_MAX = 128
"""Heads and trailers of one reply; more than anybody sends who means well."""

VERSIONS = ("1.1", "1.0")


class How(Enum):
    """
    Why there is no reply to what was sent.
    """

    HUNG_UP = "the connection ended or broke"
    EXPIRED = "its time was up"
    GARBAGE = "what came is not HTTP/1.1"
    FROM_HERE = "we closed the connection"


@dataclass(slots=True, eq=False)
class Ended(Exception):
    """
    No reply to a request that may have been sent.

    *begun* tells whether a byte of the reply had come, *reused* whether the connection had served
    before, *error* what the system said, if it said anything.
    """

    how: How
    begun: bool = False
    reused: bool = False
    error: Exception | None = None


class _Misread(Exception):
    """
    The grammar is kept and it still is no reply.
    """


@lru_cache(maxsize=256)
def _key(name: bytes) -> str:
    """
    A header's name in lower case; servers send the same few again and again.
    """
    return name.lower().decode("ascii")


class Connection(asyncio.Protocol):
    """
    One connection, with one request at a time. Replies of more than *reply_bytes_max* are refused.

    *is_open* turns False at its end, for whatever reason; *kept_at* is for who keeps it. *lost* is
    done when the loop has let go of it; *transport* is what carries it.
    """

    __slots__ = (
        "_asked",
        "_begun",
        "_blocks",
        "_bodiless",
        "_body_bytes",
        "_fit",
        "_headed",
        "_lines",
        "_lines_count",
        "_loop",
        "_parser",
        "_poll",
        "_refusal",
        "_reply_bytes_max",
        "_silent_bytes",
        "_until_end",
        "_used",
        "is_open",
        "kept_at",
        "lost",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, reply_bytes_max: int) -> None:
        self._loop = loop
        self._reply_bytes_max = reply_bytes_max
        self._parser = httptools.HttpResponseParser(self)
        self._poll: select.poll | None = None
        self._asked: asyncio.Future[HttpReply] | None = None
        self._begun = self._used = self._fit = self._bodiless = False
        self.is_open = False
        self.kept_at = 0.0
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None] = loop.create_future()
        self._clear()

    def _clear(self) -> None:
        """
        Be ready for the head of a reply.
        """
        self._lines: dict[str, str] = {}
        self._blocks: list[bytes] = []
        self._lines_count = self._body_bytes = self._silent_bytes = 0
        self._headed = self._until_end = False
        self._refusal: ReplyRefused | None = None

    # --- what its user does -----------------------------------------------------------------------

    def carried_by(self, transport: asyncio.Transport) -> None:
        """
        Go on over *transport*, as if nothing had been said before: TLS begins.
        """
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._used = False

    def ask(
        self, request: bytes, rest: bytes = b"", bodiless: bool = False
    ) -> asyncio.Future[HttpReply]:
        """
        Send a request; the future has the reply, `Ended` or `ReplyRefused`.

        *rest* is what of a large body is not in *request*. With *bodiless* the reply has no body,
        whatever its head says (HEAD, CONNECT), and the connection serves no other request.
        """
        asked = self._asked = self._loop.create_future()
        self._clear()
        self._begun = self._fit = False
        self._bodiless = bodiless
        try:
            self.transport.write(request)
            if rest:
                self.transport.write(rest)
        # Transports tell what is wrong by `connection_lost`; one that raises has failed all the
        # same (CPython's TLS within TLS does), and how much had left is not known.
        except Exception as error:  # noqa: BLE001
            self._end(How.HUNG_UP, error)
        return asked

    def is_fit(self) -> bool:
        """
        Tell whether another request may be sent: the last reply was complete, its server goes on,
        all of the request had left, and nothing has come since.
        """
        return self._fit and self.is_open and not self.transport.get_write_buffer_size()

    def is_quiet(self) -> bool:
        """
        Tell whether nothing waits in the socket that the loop has not read yet: it would be taken
        for the reply to come. Costs a system call.
        """
        if not self.is_open:
            return False
        if self._poll is None:
            self._poll = select.poll()
            descriptor = self.transport.get_extra_info("socket").fileno()
            self._poll.register(descriptor, select.POLLIN)
        return not self._poll.poll(0)

    def expire(self) -> None:
        """
        Give up: the time for the reply is up.
        """
        self._end(How.EXPIRED)

    def abort(self) -> None:
        """
        Close it at once; a request that is under way fails.
        """
        self._end(How.FROM_HERE)

    # --- what the loop tells ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """
        Begin.
        """
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """
        Read on; what nobody asked for ends the connection.
        """
        if self._asked is None:
            self._end(How.GARBAGE)
            return
        self._begun = True
        self._silent_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            # The parser does not hand on reliably what a callback raised.
            self._end(How.GARBAGE, self._refusal)
            return
        if self._silent_bytes > SILENT_BYTES_MAX and self._asked is not None:
            self._end(How.GARBAGE)

    def eof_received(self) -> None:
        """
        Take the end of what comes for the end of everything.
        """
        self._end(How.HUNG_UP)

    def connection_lost(self, exc: Exception | None) -> None:
        """
        End.
        """
        self._end(How.HUNG_UP, exc)
        if not self.lost.done():
            self.lost.set_result(None)

    # --- what the parser tells --------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """
        Refuse a second reply: nobody has asked for it.
        """
        if self._asked is None:
            self._fit = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        Note a line of the head. One that is no text is left out, and so are trailers.
        """
        self._lines_count += 1
        if self._lines_count > HEADER_LINES_MAX:
            raise _Misread
        if self._headed:
            return
        try:
            text, key = value.decode("ascii").strip(), _key(name)
        except UnicodeDecodeError:
            return
        lines = self._lines
        lines[key] = f"{lines[key]}, {text}" if key in lines else text

    def on_headers_complete(self) -> None:
        """
        Decide whether a body comes, and whether it is taken.
        """
        parser, lines = self._parser, self._lines
        status = parser.get_status_code()
        if self._asked is None or status == 101 or parser.get_http_version() not in VERSIONS:
            raise _Misread
        self._headed = True
        self._silent_bytes = 0
        if status < 200 or self._bodiless:
            if status >= 200:
                self._complete(status)
            return
        length = lines.get("content-length")
        coding = lines.get("transfer-encoding")
        if "content-encoding" in lines or coding is not None:
            self._check_codings(status, length)
        if length is not None and int(length) > self._reply_bytes_max:
            raise self._refused(TooBig, "is too large", status, int(length))
        self._until_end = length is coding is None and status not in (204, 304)

    def on_body(self, block: bytes) -> None:
        """
        Take a piece of the body.
        """
        if self._asked is None:  # a reply without a body has one
            self._fit = False
            return
        self._silent_bytes = 0
        self._body_bytes += len(block)
        if self._body_bytes > self._reply_bytes_max:
            status = self._parser.get_status_code()
            raise self._refused(TooBig, "is too large", status, self._body_bytes)
        self._blocks.append(block)

    def on_message_complete(self) -> None:
        """
        Hand over the reply, if it is one: 100 and its like only say that it will come.
        """
        if self._asked is None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._clear()
            return
        self._fit = self._parser.should_keep_alive()
        self._complete(status)

    # --- how it ends ------------------------------------------------------------------------------

    def _complete(self, status: int) -> None:
        blocks = self._blocks
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        asked, self._asked = self._asked, None
        self._used = True
        if asked is not None and not asked.done():
            asked.set_result(HttpReply(status, self._lines, body))

    def _end(self, how: How, error: BaseException | None = None) -> None:
        """
        Close the connection, and tell who waits.
        """
        was_open, self.is_open, self._fit = self.is_open, False, False
        if self._asked is not None:
            if isinstance(error, ReplyRefused):
                self._refuse(error)
            elif how is How.HUNG_UP and error is None and self._headed and self._until_end:
                self._complete(self._parser.get_status_code())
            else:
                told = error if isinstance(error, Exception) else None
                self._fail(Ended(how, self._begun, self._used, told))
        if was_open:
            self.transport.abort()

    def _refuse(self, refused: ReplyRefused) -> None:
        """
        Drop the body; only where the reply was a success is that a failure.

        Any other status says enough by itself: a 429 must not be booked as a bad reply that was
        paid.
        """
        if 200 <= refused.status < 300:
            self._fail(refused)
        else:
            self._blocks = []
            self._complete(refused.status)

    def _fail(self, error: Exception) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_exception(error)
            asked.exception()  # who waited may have been cancelled, and never asks

    def _check_codings(self, status: int, length: str | None) -> None:
        content = self._lines.get("content-encoding", "identity").lower()
        transfer = self._lines.get("transfer-encoding", "chunked").lower()
        if content != "identity" or transfer != "chunked":
            reply_bytes = None if length is None else int(length)
            raise self._refused(Encoded, "is compressed, unasked", status, reply_bytes)

    def _refused(
        self, why: type[ReplyRefused], words: str, status: int, reply_bytes: int | None
    ) -> ReplyRefused:
        size = "" if reply_bytes is None else f" ({reply_bytes} bytes)"
        self._refusal = why(f"the reply {words}{size}", status=status, reply_bytes=reply_bytes)
        return self._refusal
