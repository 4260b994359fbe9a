"""
How a connection comes about: names, TCP, a proxy's tunnel, TLS; each step has its own failure.

Owns the cache of names and the race between addresses. Sends no request but CONNECT, keeps no time:
who opens cancels what takes too long.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain, zip_longest

from batchrank.wire.carrier import USER_AGENT
from batchrank.wire.connection import Connection, Ended
from batchrank.wire.failures import ReplyRefused
from batchrank.wire.routes import Proxy, Route, Url

NAMES_KEPT_S = 60.0
"""For so long the addresses of a host are not asked for again."""

NEXT_ADDRESS_S = 0.25
"""After so long without an answer the next address is tried beside it (RFC 8305 §5)."""


class Step(Enum):
    """
    Where the way to a peer ended.
    """

    NAME = "no address"
    TCP = "no connection"
    PROXY_TLS = "no TLS with the proxy"
    TUNNEL = "no tunnel"
    TLS = "no TLS"
    TIME = "the time was up"
    CLOSED = "closed from here"


@dataclass(slots=True, eq=False)
class NotOpened(Exception):
    """
    No connection, so nothing was sent. *error* is what the system said, if it said anything,
    *status* a proxy's answer.
    """

    step: Step
    error: Exception | None = None
    status: int | None = None


class Opener:
    """
    Opens connections; *make* makes what reads and writes them, *trust* is asked for when TLS is.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], Connection],
        trust: Callable[[], ssl.SSLContext],
    ) -> None:
        self._loop = loop
        self._make = make
        self._trust = trust
        self._lookups: dict[tuple[str, int], tuple[float, asyncio.Task[Sequence[str]]]] = {}

    async def open(self, route: Route) -> Connection:
        """
        A connection on which the request for *route* can be sent.

        Raises:
            NotOpened: there is none.
        """
        peer = route.next_url
        connection = await self._first_of(await self._addresses(peer.host, peer.port), peer.port)
        try:
            if route.proxy and peer.tls:
                await self._secure(connection, peer, Step.PROXY_TLS)
            if route.tunnel:
                await _ask_for_a_tunnel(connection, route.tunnel, route.url)
            if route.url.tls:
                await self._secure(connection, route.url, Step.TLS)
        except BaseException:  # cancelled, too
            connection.abort()
            raise
        if not connection.is_open:
            raise NotOpened(Step.TLS if route.url.tls else Step.TCP)
        return connection

    # --- names ------------------------------------------------------------------------------------

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        if _is_address(host):
            return (host,)
        asked_at, lookup = self._lookups.get((host, port), (0.0, None))
        now = self._loop.time()
        if lookup is None or now - asked_at > NAMES_KEPT_S or _has_failed(lookup):
            lookup = self._loop.create_task(self._look_up(host, port))
            lookup.add_done_callback(_has_failed)  # who asked may be gone by then
            self._lookups[host, port] = (now, lookup)
        # Many wait for one answer: none of them may cancel it.
        await asyncio.wait((lookup,))
        return lookup.result()

    async def _look_up(self, host: str, port: int) -> Sequence[str]:
        try:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NotOpened(Step.NAME, error) from None
        return _interleaved([str(entry[4][0]) for entry in found])

    # --- TCP --------------------------------------------------------------------------------------

    async def _first_of(self, addresses: Sequence[str], port: int) -> Connection:
        """
        The first address that answers; the next one is tried when one fails, or is slow.
        """
        racing: set[asyncio.Task[Connection]] = set()
        failed: NotOpened = NotOpened(Step.NAME)
        left = list(reversed(addresses))
        try:
            while left or racing:
                if left:
                    racing.add(self._loop.create_task(self._connect(left.pop(), port)))
                done, racing = await asyncio.wait(
                    racing,
                    timeout=NEXT_ADDRESS_S if left else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for attempt in done:
                    error = attempt.exception()
                    if error is None:
                        racing |= done - {attempt}
                        return attempt.result()
                    assert isinstance(error, NotOpened)
                    failed = error
            raise failed
        finally:
            for attempt in racing:
                abandon(attempt)

    async def _connect(self, address: str, port: int) -> Connection:
        try:
            _, connection = await self._loop.create_connection(self._make, address, port)
        except OSError as error:
            raise NotOpened(Step.TCP, error) from None
        return connection

    # --- TLS --------------------------------------------------------------------------------------

    async def _secure(self, connection: Connection, peer: Url, step: Step) -> None:
        # One that was reset is closing before it is told so; uvloop would take it and raise where
        # nobody can catch it.
        if not connection.is_open or connection.transport.is_closing():
            raise NotOpened(step)
        try:
            transport = await self._loop.start_tls(
                connection.transport,
                connection,
                self._trust(),
                server_hostname=peer.host.removesuffix("."),
            )
        except OSError as error:
            raise NotOpened(step, error) from None
        if transport is None:
            raise NotOpened(step)
        connection.carried_by(transport)


async def _ask_for_a_tunnel(connection: Connection, proxy: Proxy, url: Url) -> None:
    if not connection.is_open:
        raise NotOpened(Step.TUNNEL)
    lines = [f"CONNECT {url.peer} HTTP/1.1", f"host: {url.peer}", f"user-agent: {USER_AGENT}"]
    if proxy.login:
        lines.append(f"proxy-authorization: {proxy.login}")
    request = "\r\n".join((*lines, "", "")).encode("ascii")
    try:
        reply = await connection.ask(request, bodiless=True)
    except Ended as ended:
        raise NotOpened(Step.TUNNEL, ended.error) from None
    except ReplyRefused:
        raise NotOpened(Step.TUNNEL) from None
    if not 200 <= reply.status < 300:
        raise NotOpened(Step.TUNNEL, status=reply.status)


def abandon(attempt: asyncio.Task[Connection]) -> None:
    """
    Cancel *attempt*, and close what it may have opened all the same.
    """
    attempt.cancel()
    attempt.add_done_callback(_closed)


def _closed(attempt: asyncio.Task[Connection]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().abort()


def _has_failed(lookup: asyncio.Task[Sequence[str]]) -> bool:
    return lookup.done() and (lookup.cancelled() or lookup.exception() is not None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _interleaved(addresses: Sequence[str]) -> Sequence[str]:
    """
    The two families in turn, in the order of the first (RFC 8305 §4).
    """
    first = ":" in addresses[0] if addresses else False
    ours = [address for address in addresses if (":" in address) == first]
    others = [address for address in addresses if (":" in address) != first]
    turns = chain.from_iterable(zip_longest(ours, others))
    return tuple(dict.fromkeys(address for address in turns if address))
