"""
The carrier: httpx requests and responses over one aiohttp session.

Owns the connections, their limits, proxies, trust and timeouts, and the translation of every
exception of aiohttp. What decides it is whether a request had left, and that is not guessed from
the exception's type: `Connector` notes the moment in which a connection is handed out.

Never follows a redirect, keeps a cookie, decompresses, sends twice, or wraps a call in a cancel
scope. Texts of other libraries are not repeated, because URLs of proxies hold passwords: messages
are our own words, a host and port, and the operating system's word for what went wrong.
"""

from __future__ import annotations

import io
import math
import ssl
from collections.abc import Callable
from functools import lru_cache

import aiohttp
import httpx
from aiohttp import hdrs

from batchrank.wire.connecting import PROGRESS, Connector, Progress
from batchrank.wire.failures import Encoded, Garbage, ReplyRefused, TlsNotVerified, TooBig
from batchrank.wire.routes import Route, parsed, system_proxy, through
from batchrank.wire.translating import OF_THE_WORLD, named, translated

REPLY_BYTES_MAX = 32 * 2**20
"""A reply holds a number for each document: nobody's comes near this."""

KEPT_S = 15.0
"""Servers close idle connections after 20 s or more; no request should meet that moment."""

NAMES_KEPT_S = 60
HEADER_LINE_BYTES_MAX = 65_536
WARNED_BODY_BYTES = 2**20
"""aiohttp warns of larger bodies that are bytes; it sends files in pieces."""


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    One session of aiohttp as an httpx transport; bodies are whole, both ways.

    Belongs to the event loop of its first request. At most *connections_max* requests are under
    way. *trust* replaces the certificates of `SSL_CERT_FILE`, `SSL_CERT_DIR` or certifi.
    *proxy_of* gives the proxy of a URL, or None; it is asked once for each URL.

    Of a request's `extensions["timeout"]`, `connect` bounds the wait for a connection (pool, DNS,
    TCP, TLS, proxy) and `read` the whole call, from its start to the last byte of the reply.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        reply_bytes_max: int = REPLY_BYTES_MAX,
        kept_s: float = KEPT_S,
        trust: ssl.SSLContext | None = None,
        proxy_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._connections_max = connections_max
        self._reply_bytes_max = reply_bytes_max
        self._kept_s = kept_s
        self._trust = trust
        self._proxy_of = proxy_of or system_proxy
        self._session: aiohttp.ClientSession | None = None
        self._under_way = 0
        self._route = lru_cache(maxsize=64)(self._aim)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request* once and read the reply to its end.

        Raises:
            httpx.TransportError, httpx.DecodingError, httpx.InvalidURL: as `failures` explains.
        """
        route = self._route(str(request.url))
        sync = isinstance(request.stream, httpx.SyncByteStream)
        body = request.read() if sync else await request.aread()
        session = self._session or self._open()
        progress = Progress(queued=self._under_way >= self._connections_max)
        PROGRESS.set(progress)
        self._under_way += 1
        try:
            reply = await session.request(
                request.method,
                route.url,
                data=body if len(body) <= WARNED_BODY_BYTES else io.BytesIO(body),
                headers=[*request.headers.multi_items(), *route.headers],
                timeout=_timeout(request),
                allow_redirects=False,
                ssl=route.tls,
                proxy=route.proxy,
                proxy_headers=route.proxy_headers,
            )
            return _response(reply, await self._read(reply))
        except OF_THE_WORLD as error:
            raise translated(error, progress, route) from None
        finally:
            self._under_way -= 1

    async def aclose(self) -> None:
        """
        Close every connection, and wait until they are closed.
        """
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = Connector(
            limit=self._connections_max,
            keepalive_timeout=self._kept_s,
            ttl_dns_cache=NAMES_KEPT_S,
            # getaddrinfo, also where aiodns happens to be installed: as everything else here does.
            resolver=aiohttp.ThreadedResolver(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_LINE_BYTES_MAX,
            max_field_size=HEADER_LINE_BYTES_MAX,
        )
        return self._session

    def _aim(self, address: str) -> Route:
        url = parsed(address, "the address")
        tls = self._tls() if url.scheme == "https" else None
        route = Route(url, f"{url.host_subcomponent}:{url.port}", tls or True)
        proxy = self._proxy_of(address)
        return route if proxy is None else through(route, proxy)

    def _tls(self) -> ssl.SSLContext:
        """
        Whom we trust; made when it is first needed, for it takes 20 ms.
        """
        if self._trust is None:
            try:
                self._trust = httpx.create_ssl_context()
            except OSError as error:
                raise TlsNotVerified(
                    f"the certificates of SSL_CERT_FILE cannot be read{named(error)}"
                ) from None
            self._trust.minimum_version = ssl.TLSVersion.TLSv1_2
            self._trust.set_alpn_protocols(["http/1.1"])
        return self._trust

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes:
        if reply.status == 101:
            reply.close()
            raise Garbage("the server changed the protocol, unasked")
        length = reply.content_length
        if reply.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
            return _refuse(reply, Encoded, "is compressed, unasked", length)
        if length is None:
            return await self._read_unmeasured(reply)
        if length > self._reply_bytes_max:
            return _refuse(reply, TooBig, "is too large", length)
        return await reply.read()

    async def _read_unmeasured(self, reply: aiohttp.ClientResponse) -> bytes:
        blocks: list[bytes] = []
        read_bytes = 0
        try:
            while block := await reply.content.readany():
                read_bytes += len(block)
                if read_bytes > self._reply_bytes_max:
                    return _refuse(reply, TooBig, "is too large", read_bytes)
                blocks.append(block)
        except BaseException:  # cancelled, too: half a reply must not go back to the pool
            reply.close()
            raise
        return b"".join(blocks)


def _refuse(
    reply: aiohttp.ClientResponse, why: type[ReplyRefused], words: str, reply_bytes: int | None
) -> bytes:
    """
    Drop the connection, and the body with it; raise if the reply was a success.

    Any other status says enough by itself: a 429 must not be booked as a bad reply that was paid.
    """
    reply.close()
    if 200 <= reply.status < 300:
        size = "" if reply_bytes is None else f" ({reply_bytes} bytes)"
        raise why(f"the reply {words}{size}", status=reply.status, reply_bytes=reply_bytes)
    return b""


def _response(reply: aiohttp.ClientResponse, body: bytes) -> httpx.Response:
    response = httpx.Response(
        reply.status, headers=list(reply.raw_headers), stream=httpx.ByteStream(body)
    )
    # Where `content=body` leads, but for a decoder that takes a tenth of the whole call.
    response._content = body  # noqa: SLF001 - see above; httpx is held below 0.29
    response.is_closed = response.is_stream_consumed = True
    return response


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    limits = request.extensions.get("timeout", {})
    return _limits(limits.get("connect"), limits.get("read"))


@lru_cache(maxsize=64)
def _limits(connect_s: float | None, read_s: float | None) -> aiohttp.ClientTimeout:
    """
    The two clocks of a call.

    `connect` covers pool, DNS, TCP, TLS and the proxy: a scope within aiohttp that has ended before
    a byte is sent. `total` begins with the call and ends with the reply's last byte, so that a body
    that drips ends, too; `sock_read` of the same length begins later and would never be first.

    `total` is a timer that cancels the waiting task and turns this cancellation, and no other, into
    TimeoutError at the `await` where it struck; aiohttp closes the connection on the way out and
    frees its place. It may strike while connecting, so its type does not say what was sent.

    Below its threshold aiohttp leaves times alone; above it rounds them up to whole seconds.
    """
    return aiohttp.ClientTimeout(total=read_s, connect=connect_s, ceil_threshold=math.inf)
