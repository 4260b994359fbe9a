"""
What carries a call: the one thing that `exchange` asks of whatever speaks HTTP for it.

Owns the port, and its implementation over any `httpx.AsyncBaseTransport`: a mock, an application
in this process, a transport of one's own. The carrier that ships is `transport`.

Carriers report in the exceptions of `failures`, never retry, and are never wrapped in a cancel
scope: timeouts are theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import httpx

from batchrank import __version__
from batchrank.providers.base import HttpReply

USER_AGENT = f"batchrank/{__version__}"

Lines = tuple[tuple[str, str], ...]
"""Header lines of a request; names in lower case, each at most once."""


class Carrier(Protocol):
    """
    Takes a request there and the reply back.
    """

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Send the request once, and read the reply to its end.

        `host` and `content-length` are the carrier's to add.

        Raises:
            httpx.TransportError, httpx.DecodingError, httpx.InvalidURL: as `failures` explains.
        """

    async def aclose(self) -> None:
        """
        Close every connection.
        """


class HttpxCarrier:
    """
    Any transport of httpx as a carrier.

    Seconds: *connect_timeout_s* to be connected, *timeout_s* for each read and write. Both are
    handed to *transport*, which knows what to make of them.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> None:
        self._transport = transport
        self._extensions = {
            "timeout": {
                "connect": connect_timeout_s,
                "pool": connect_timeout_s,
                "read": timeout_s,
                "write": timeout_s,
            }
        }
        self._prepared = lru_cache(maxsize=64)(_prepared)

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Send the request once, and read the reply to its end.
        """
        parsed, lines = self._prepared(url, headers)
        request = httpx.Request(
            method,
            parsed,
            headers=[*lines, (b"content-length", b"%d" % len(body))],
            # `content=` would work out again, ten times slower, what is known here.
            stream=httpx.ByteStream(body),
            extensions=self._extensions,
        )
        response = await self._transport.handle_async_request(request)
        try:
            read = await response.aread()
        finally:
            await response.aclose()
        return HttpReply(response.status_code, dict(response.headers.items()), read)

    async def aclose(self) -> None:
        """
        Close the transport.
        """
        await self._transport.aclose()


def _prepared(url: str, headers: Lines) -> tuple[httpx.URL, list[tuple[bytes, bytes]]]:
    parsed = httpx.URL(url)
    lines = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers]
    return parsed, [(b"host", parsed.netloc), *lines]
