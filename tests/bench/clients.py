"""
The bare clients, each in a process of its own: bodies out, replies in, nothing else.

`python -m tests.bench.clients NAME BASE_URL SOURCE COUNT IN_FLIGHT` prints as JSON how long that
took, and the CPU seconds of this process within the clock. Bodies are made before the clock starts.
*raw sockets* is the yardstick for the server: it asks about every group once beforehand, so that it
knows how long each reply is, and reads nothing in it.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import httpx
import uvloop
from typing_extensions import Buffer

from tests.bench.material import bodies

HEADERS = {"Authorization": "Bearer bench", "Content-Type": "application/json"}
DIFFERENT = 500
"""So many different bodies are asked in turn; a client does not care what it sends."""

TIMEOUT_S = 120
READ_BYTES = 2**18

Send = Callable[[bytes], Awaitable[Buffer]]
"""A body out, and the body of the reply."""


@dataclass(frozen=True, slots=True)
class Measured:
    """
    What one client did.
    """

    requests: int
    elapsed_s: float
    cpu_s: float


# --- three libraries ------------------------------------------------------------------------------


@asynccontextmanager
async def bare_aiohttp(url: str, in_flight: int) -> AsyncIterator[Send]:
    """
    One aiohttp session, as fast as it goes.
    """
    connector = aiohttp.TCPConnector(limit=in_flight, ssl=_trust(url) or True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send(body: bytes) -> bytes:
            async with session.post(url, data=body, headers=HEADERS) as reply:
                reply.raise_for_status()
                return await reply.read()

        yield send


@asynccontextmanager
async def bare_pyreqwest(url: str, in_flight: int) -> AsyncIterator[Send]:
    """
    One pyreqwest client: HTTP in Rust, on threads of its own.
    """
    from pyreqwest.client import ClientBuilder
    from pyreqwest.http import Url

    builder = ClientBuilder().max_connections(in_flight).timeout(timedelta(seconds=TIMEOUT_S))
    builder = builder.default_headers(HEADERS).error_for_status().http1_only().no_proxy()
    if url.startswith("https:"):
        builder = builder.add_root_certificate_pem(_authorities())
    address = Url(url)
    async with builder.build() as client:

        async def send(body: bytes) -> Buffer:
            reply = await client.post(address).body_bytes(body).build().send()
            return await reply.bytes()

        yield send


def httpx_keeping(kept: int | None) -> Callable[[str, int], AbstractAsyncContextManager[Send]]:
    """
    An `httpx.AsyncClient` with a pool as large as what is in flight, which keeps *kept* connections
    that nobody uses; None is all of them.
    """

    @asynccontextmanager
    async def client(url: str, in_flight: int) -> AsyncIterator[Send]:
        limits = httpx.Limits(
            max_connections=in_flight, max_keepalive_connections=kept or in_flight
        )
        trust: ssl.SSLContext | bool = _trust(url) or True
        async with httpx.AsyncClient(
            limits=limits, timeout=TIMEOUT_S, trust_env=False, verify=trust
        ) as session:

            async def send(body: bytes) -> bytes:
                reply = await session.post(url, content=body, headers=HEADERS)
                return reply.raise_for_status().content

            yield send

    return client


def _authorities() -> bytes:
    return Path(os.environ["SSL_CERT_FILE"]).read_bytes()


def _trust(url: str) -> ssl.SSLContext | None:
    """
    OpenSSL's own defaults, which look at SSL_CERT_FILE; nothing where nothing is encrypted.
    """
    return ssl.create_default_context() if url.startswith("https:") else None


CLIENTS: Mapping[str, Callable[[str, int], AbstractAsyncContextManager[Send]]] = {
    "bare aiohttp": bare_aiohttp,
    "bare pyreqwest": bare_pyreqwest,
    "stock httpx": httpx_keeping(None),
    "httpx, 20 kept": httpx_keeping(20),
}


async def measure(name: str, url: str, asked: Sequence[bytes], count: int, slots: int) -> Measured:
    """
    Send *count* of the bodies *asked* over and over, with *slots* workers.
    """
    left: Iterator[bytes] = islice(cycle(asked), count)
    async with CLIENTS[name](url, slots) as send:

        async def worker() -> None:
            for body in left:
                await send(body)

        began, began_cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(worker() for _ in range(slots)))
        return Measured(count, time.perf_counter() - began, time.process_time() - began_cpu)


# --- raw sockets ----------------------------------------------------------------------------------

RAW = "raw sockets"


@dataclass(frozen=True, slots=True)
class Exchange:
    """
    A request as bytes, and how long its reply is.
    """

    request: bytes
    reply_bytes: int


class Raw:
    """
    Blocking sockets, one request on each at a time; who becomes readable is served to its end.
    """

    def __init__(self, url: str, slots: int) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._head = f"POST {address.path} HTTP/1.1\r\nhost: {address.netloc}\r\n".encode()
        trust = _trust(url)
        self._sockets = []
        for _ in range(slots):
            opened = socket.create_connection((address.hostname, address.port or 0))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if trust:
                opened = trust.wrap_socket(opened, server_hostname=address.hostname)
            self._sockets.append(opened)

    def learned(self, body: bytes) -> Exchange:
        """
        Ask *body* once, so that the server knows it, and learn how long the reply is.
        """
        head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items()).encode()
        request = self._head + head + b"content-length: %d\r\n\r\n" % len(body) + body
        first = self._sockets[0]
        first.sendall(request)
        reply = b""
        while b"\r\n\r\n" not in reply:
            reply += first.recv(READ_BYTES)
        start, rest = reply.split(b"\r\n\r\n", 1)
        length = int(start.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        assert start.startswith(b"HTTP/1.1 200 "), start
        self._read(first, length - len(rest))
        return Exchange(request, len(start) + 4 + length)

    def measure(self, exchanges: Sequence[Exchange], count: int) -> Measured:
        """
        Do *count* exchanges.
        """
        left = islice(cycle(exchanges), count)
        with selectors.DefaultSelector() as selector:
            began, began_cpu = time.perf_counter(), time.process_time()
            for each, exchange in zip(self._sockets, left, strict=False):
                each.sendall(exchange.request)
                selector.register(each, selectors.EVENT_READ, exchange)
            while selector.get_map():
                for key, _ in selector.select():
                    answered = cast("socket.socket", key.fileobj)
                    self._read(answered, key.data.reply_bytes)
                    if another := next(left, None):
                        answered.sendall(another.request)
                        selector.modify(answered, selectors.EVENT_READ, another)
                    else:
                        selector.unregister(answered)
            return Measured(count, time.perf_counter() - began, time.process_time() - began_cpu)

    def _read(self, each: socket.socket, length: int) -> None:
        while length > 0:
            read = each.recv(READ_BYTES)
            if not read:
                raise ConnectionError("the server hung up")
            length -= len(read)


def main() -> None:
    """
    Measure what the command line says.
    """
    name, base_url, source, count, slots = sys.argv[1:]
    url = f"{base_url}/rerank"
    asked = bodies(Path(source), int(count) if name == RAW else DIFFERENT)
    if name == RAW:
        raw = Raw(url, int(slots))
        measured = raw.measure([raw.learned(body) for body in asked], int(count))
    else:
        measured = uvloop.run(measure(name, url, asked, int(count), int(slots)))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
