"""
The carrier: HTTP/1.1 on connections of our own, one request and one whole reply at a time.

Owns the course of a call, its clocks, and what a request looks like on the wire. Who may send is
`keeping`'s, how a connection comes about `opening`'s, what a reply is `connection`'s, and what each
failure means `translating`'s.

Never follows a redirect, keeps a cookie, decompresses, sends twice, or wraps a call in a cancel
scope. Texts of other libraries are not repeated.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import httpx

from batchrank.providers.base import HttpReply
from batchrank.wire.carrier import Lines
from batchrank.wire.connection import Connection
from batchrank.wire.keeping import Places, Shelf
from batchrank.wire.opening import NotOpened, Opener, Step, abandon
from batchrank.wire.routes import Route, parsed, system_proxy, through
from batchrank.wire.translating import OF_THE_WORLD, translated
from batchrank.wire.trust import trusting

REPLY_BYTES_MAX = 32 * 2**20
"""A reply holds a number for each document: nobody's comes near this."""

KEPT_S = 15.0
"""Servers close idle connections after 20 s or more; no request should meet that moment."""

JOINED_BYTES_MAX = 262_144
"""Larger bodies are written by themselves: copying them costs more than a second write."""

CLOSING_S = 1.0
"""So long does `aclose` wait for what it has closed."""


@dataclass(frozen=True, slots=True)
class _Errand:
    """
    What is worked out once for each method, URL and headers.

    *head* is the request up to the length of its body; *shelf* has the connections that may serve.
    """

    route: Route
    head: bytes = field(repr=False)  # the key is in it
    bodiless: bool
    shelf: Shelf

    def request(self, body: bytes) -> tuple[bytes, bytes]:
        """
        The whole request, and what of it is written by itself.
        """
        if len(body) <= JOINED_BYTES_MAX:
            return b"%b%d\r\n\r\n%b" % (self.head, len(body), body), b""
        return b"%b%d\r\n\r\n" % (self.head, len(body)), body


class HttpCarrier:
    """
    The carrier that ships; bodies are whole, both ways.

    Belongs to the event loop of its first call. At most *connections_max* requests are under way,
    the others wait in the order in which they came. *trust* replaces the certificates that `trust`
    chooses. *proxy_of* gives the proxy of a URL, or None; it is asked once for each URL.

    Seconds: *connect_timeout_s* for a place and a connection together (DNS, TCP, TLS, proxy);
    *timeout_s* for the whole call, from its start to the last byte of the reply, so that a body
    that drips ends, too; a connection without work is closed after *kept_s*.

    A call that is cancelled closes its connection, and its place is free at once.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        connect_timeout_s: float,
        timeout_s: float,
        reply_bytes_max: int = REPLY_BYTES_MAX,
        kept_s: float = KEPT_S,
        trust: ssl.SSLContext | None = None,
        proxy_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._connecting_s = min(connect_timeout_s, timeout_s)
        self._timeout_s = timeout_s
        self._reply_bytes_max = reply_bytes_max
        self._kept_s = kept_s
        self._trust = trust
        self._proxy_of = proxy_of or system_proxy
        self._places = Places(connections_max)
        self._shelves: dict[Route, Shelf] = {}
        self._opener: Opener | None = None
        self._opening: set[asyncio.Task[Connection]] = set()
        self._connections: set[Connection] = set()
        self._prepared = lru_cache(maxsize=64)(self._prepare)
        self._routed = lru_cache(maxsize=64)(self._route)  # signed headers are new in every call

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Send the request once, and read the reply to its end.
        """
        errand = self._prepared(method, url, headers)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        try:
            if not self._places.take():
                await self._places.wait(self._connecting_s)
            try:
                connection = errand.shelf.take(began_at)
                if connection is None:
                    connection = await self._open(errand.route, began_at)
                left_s = began_at + self._timeout_s - loop.time()
                clock = loop.call_later(left_s, connection.expire)
                try:
                    return await connection.ask(*errand.request(body), errand.bodiless)
                finally:
                    clock.cancel()
                    if connection.is_fit():
                        errand.shelf.put(connection, loop.time())
                    else:
                        connection.abort()
            finally:
                self._places.leave()
        except OF_THE_WORLD as error:
            raise translated(error, errand.route) from None

    async def aclose(self) -> None:
        """
        Close every connection, and wait until they are closed; calls under way fail.
        """
        self._places.send_away()
        for opening in tuple(self._opening):
            opening.cancel()
        for shelf in self._shelves.values():
            shelf.clear()
        closing = [connection.lost for connection in self._connections]
        for connection in tuple(self._connections):
            connection.abort()
        if closing:
            await asyncio.wait(closing, timeout=CLOSING_S)

    async def _open(self, route: Route, began_at: float) -> Connection:
        """
        A new connection, within what is left of the time for it.
        """
        loop = asyncio.get_running_loop()
        if self._opener is None:
            self._opener = Opener(loop, self._made, self._trusted)
        opening = loop.create_task(self._opener.open(route))
        self._opening.add(opening)
        left_s = began_at + self._connecting_s - loop.time()
        try:
            done, _ = await asyncio.wait((opening,), timeout=max(0.0, left_s))
        except BaseException:  # cancelled, too
            abandon(opening)
            raise
        finally:
            self._opening.discard(opening)
        if not done:
            abandon(opening)
            raise NotOpened(Step.TIME)
        if opening.cancelled():
            raise NotOpened(Step.CLOSED)
        connection = opening.result()
        if not connection.is_open:
            raise NotOpened(Step.TCP)
        self._connections.add(connection)
        connection.lost.add_done_callback(lambda _: self._connections.discard(connection))
        return connection

    def _made(self) -> Connection:
        return Connection(asyncio.get_running_loop(), self._reply_bytes_max)

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = trusting()
        return self._trust

    def _prepare(self, method: str, url: str, headers: Lines) -> _Errand:
        route = self._routed(url)
        return _Errand(route, _head(method, route, headers), method == "HEAD", self._shelf(route))

    def _route(self, url: str) -> Route:
        proxy = self._proxy_of(url)
        route = Route(parsed(url, "the address"), None if proxy is None else through(proxy))
        if route.url.tls or route.next_url.tls:
            self._trusted()  # before a connection is opened in vain
        return route

    def _shelf(self, route: Route) -> Shelf:
        peer = route.without_target()
        if peer not in self._shelves:
            self._shelves[peer] = Shelf(asyncio.get_running_loop(), self._kept_s)
        return self._shelves[peer]


_METHOD = re.compile(r"[A-Z]+")
_LINE = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+: [\t\x20-\x7e]*")


def _head(method: str, route: Route, headers: Lines) -> bytes:
    """
    The request up to the length of its body. A proxy that makes no tunnel is told the whole URL.

    Raises:
        httpx.LocalProtocolError: it would be another request than the one that was meant.
    """
    url, target = route.url, route.url.target
    lines = [("host", url.authority), *headers]
    if route.proxy and not route.tunnel:
        target = f"http://{url.authority}{target}"
        if route.proxy.login:
            lines.append(("proxy-authorization", route.proxy.login))
    texts = [f"{name}: {value}" for name, value in lines]
    if not _METHOD.fullmatch(method) or not all(map(_LINE.fullmatch, texts)):
        raise httpx.LocalProtocolError("the request cannot be put on the wire")
    return "\r\n".join((f"{method} {target} HTTP/1.1", *texts, "content-length: ")).encode("ascii")
