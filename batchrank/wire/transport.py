"""
The carrier: one pool of kept connections, in pyreqwest's own thread.

Owns the connections, their limits, proxies, trust and timeouts, and the translation of every
exception of pyreqwest.

Never follows a redirect, keeps a cookie, decompresses, sends twice, or wraps a call in a cancel
scope. A request that did not leave because its kept connection was just closed is sent on another
one, by hyper: only then is it handed back whole. Texts of other libraries are not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.http import HeaderMap
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import RequestBody, StreamRequest
from pyreqwest.response import Response

from batchrank.providers.base import Headers, HttpReply
from batchrank.wire.carrier import USER_AGENT, Lines
from batchrank.wire.failures import Encoded, Garbage, ReplyRefused, TlsNotVerified, TooBig
from batchrank.wire.routes import Proxy, Route, parsed, system_proxy, through
from batchrank.wire.translating import OF_THE_WORLD, translated
from batchrank.wire.trust import authorities, mozilla

REPLY_BYTES_MAX = 32 * 2**20
"""A reply holds a number for each document: nobody's comes near this."""

KEPT_S = 15.0
"""Servers close idle connections after 20 s or more; no request should meet that moment."""

READ_AHEAD_BYTES = 65_536
"""So much of a reply is read beside our thread; what is longer comes in pieces and waits for us."""

CONNECTING_SHARE_MAX = 0.9
"""
Of the time for a whole call: only the clock for connecting tells that nothing was sent, so it is to
strike first.
"""


class PyreqwestCarrier:
    """
    One client of pyreqwest for each proxy; bodies are whole, both ways.

    At most *connections_max* requests are under way. *roots* are certificates (PEM) to trust beside
    those of this machine. *proxy_of* gives the proxy of a URL, or None; it is asked once for each
    URL.

    Seconds: *connect_timeout_s* for a place, and again for the connection (DNS, TCP, TLS, proxy);
    *timeout_s* for the whole call, from its start to the last byte of the reply, so that a body
    that drips ends, too.

    A call that is cancelled goes on without us, and keeps its place until it ends by itself.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        connect_timeout_s: float,
        timeout_s: float,
        reply_bytes_max: int = REPLY_BYTES_MAX,
        kept_s: float = KEPT_S,
        roots: bytes = b"",
        proxy_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self._connections_max = connections_max
        self._connect_timeout_s = min(connect_timeout_s, CONNECTING_SHARE_MAX * timeout_s)
        self._timeout_s = timeout_s
        self._reply_bytes_max = reply_bytes_max
        self._read_ahead_bytes = min(READ_AHEAD_BYTES, reply_bytes_max)
        self._kept_s = kept_s
        self._roots = roots
        self._proxy_of = proxy_of or system_proxy
        self._clients: dict[tuple[Proxy | None, bool], Client] = {}
        self._prepared = lru_cache(maxsize=64)(self._prepare)

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Send the request once, and read the reply to its end.
        """
        route, blank = self._prepared(method, url, headers)
        request = StreamRequest.from_request_and_body(blank, RequestBody.from_bytes(body))
        try:
            async with request as response:
                return await self._read(response)
        except OF_THE_WORLD as error:
            raise translated(error, route) from None

    async def aclose(self) -> None:
        """
        Give up what is under way; connections close when nobody uses them any more.
        """
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        self._prepared.cache_clear()

    def _prepare(self, method: str, url: str, headers: Lines) -> tuple[Route, StreamRequest]:
        """
        Where a request goes, and all of it but its body: copying it is cheaper than building it.
        """
        proxy = self._proxy_of(url)
        route = Route(parsed(url, "the address"), None if proxy is None else through(proxy))
        key = (route.proxy, route.tls)
        if key not in self._clients:
            self._clients[key] = self._open(*key)
        blank = self._clients[key].request(method, route.url).headers(_sealed(headers))
        return route, blank.streamed_read_buffer_limit(self._read_ahead_bytes).build_streamed()

    def _open(self, proxy: Proxy | None, tls: bool) -> Client:
        builder = (
            _modest()
            .max_connections(self._connections_max)
            .pool_max_idle_per_host(self._connections_max)
            .pool_idle_timeout(timedelta(seconds=self._kept_s))
            .pool_timeout(timedelta(seconds=self._connect_timeout_s))
            .connect_timeout(timedelta(seconds=self._connect_timeout_s))
            .timeout(timedelta(seconds=self._timeout_s))
            .no_proxy()
        )
        if proxy:
            builder = builder.proxy(_proxying(proxy))
        # Who verifies nobody needs somebody to trust all the same: no client is built without.
        roots = self._roots + (authorities() if tls else mozilla())
        try:
            return builder.add_root_certificate_pem(roots).build()
        except ValueError:  # BuilderError is one
            raise TlsNotVerified(
                "no authorities can be made of SSL_CERT_FILE, SSL_CERT_DIR and the system's store"
            ) from None

    async def _read(self, response: Response) -> HttpReply:
        status, headers = response.status, _joined(response.headers)
        try:
            body = await self._body(response, headers)
        except ReplyRefused:
            if 200 <= status < 300:
                raise
            # The status says enough: a 429 must not be booked as a bad reply that was paid.
            body = b""
        return HttpReply(status, headers, body)

    async def _body(self, response: Response, headers: Headers) -> bytes:
        if response.status == 101:
            raise Garbage("the server changed the protocol, unasked")
        length_bytes = _length_bytes(headers)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _refused(Encoded, "is compressed, unasked", response.status, length_bytes)
        if length_bytes is None:
            return await self._unmeasured(response)
        if length_bytes > self._reply_bytes_max:
            raise _refused(TooBig, "is too large", response.status, length_bytes)
        return (await response.bytes()).to_bytes()

    async def _unmeasured(self, response: Response) -> bytes:
        blocks: list[bytes] = []
        read_bytes = 0
        while (block := await response.body_reader.read_chunk()) is not None:
            read_bytes += len(block)
            if read_bytes > self._reply_bytes_max:
                raise _refused(TooBig, "is too large", response.status, read_bytes)
            blocks.append(block.to_bytes())
        return b"".join(blocks)


def _length_bytes(headers: Headers) -> int | None:
    """
    The length of a body, where it says anything: beside chunks it does not.

    hyper has refused what is no number, and lengths that contradict each other.
    """
    if "transfer-encoding" in headers or "content-length" not in headers:
        return None
    return int(headers["content-length"].partition(",")[0])


def _refused(
    why: type[ReplyRefused], words: str, status: int, reply_bytes: int | None
) -> ReplyRefused:
    size = "" if reply_bytes is None else f" ({reply_bytes} bytes)"
    return why(f"the reply {words}{size}", status=status, reply_bytes=reply_bytes)


def _joined(headers: HeaderMap) -> dict[str, str]:
    """
    The header lines of a reply; those of one name in one, as HTTP says.
    """
    try:
        lines = headers.dict_multi_value()
    except ValueError:
        lines = dict(_legible(headers))
    return {n: text if isinstance(text, str) else ", ".join(text) for n, text in lines.items()}


def _legible(headers: HeaderMap) -> Iterator[tuple[str, list[str]]]:
    """
    The lines that are text: a reply that is paid for is not lost to one that is not.
    """
    for name in dict.fromkeys(headers):
        with suppress(ValueError):
            yield name, headers.getall(name)


def _modest() -> ClientBuilder:
    """
    HTTP/1.1, and nothing done unasked.
    """
    return (
        ClientBuilder()
        .runtime_multithreaded(False)  # one thread serves hundreds; more of them only wait
        .user_agent(USER_AGENT)  # a proxy is told it, too
        .http1_only()
        .http1_lower_case_headers()
        .follow_redirects(False)
        .referer(False)
        .default_cookie_store(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .min_tls_version("TLSv1.2")
    )


def _proxying(proxy: Proxy) -> ProxyBuilder:
    builder = ProxyBuilder.all(proxy.url)
    return builder.custom_http_auth(proxy.login) if proxy.login else builder


def _sealed(headers: Lines) -> HeaderMap:
    """
    *headers* in a form whose representation hides what they say.
    """
    sealed = HeaderMap()
    for name, value in headers:
        sealed.insert(name, value, is_sensitive=True)
    return sealed
