"""
The carrier: httpx requests and responses over one aiohttp session.

Owns the connections, their limits, proxies, trust and timeouts, and the translation of every
exception of aiohttp. What decides it is whether a request had left, and that is not guessed from
the exception's type: `_Connector` notes the moment in which a connection is handed out.

Never follows a redirect, keeps a cookie, decompresses, sends twice, or wraps a call in a cancel
scope. Texts of other libraries are not repeated, because URLs of proxies hold passwords: messages
are our own words, a host and port, and the operating system's word for what went wrong.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import math
import select
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp import hdrs
from aiohttp.http import HttpProcessingError
from yarl import URL

from batchrank.wire.auth import is_loopback
from batchrank.wire.failures import (
    Closed,
    ClosedReused,
    CutShort,
    Encoded,
    Garbage,
    HandshakeFailed,
    NameNotFound,
    OutOfSockets,
    ProxyRefused,
    ProxyUnreachable,
    Refused,
    ReplyRefused,
    TlsNotVerified,
    TooBig,
    Unreachable,
)

if TYPE_CHECKING:
    from aiohappyeyeballs import AddrInfoType
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

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
        self._target = lru_cache(maxsize=64)(self._aim)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        Send *request* once and read the reply to its end.

        Raises:
            httpx.TransportError, httpx.DecodingError, httpx.InvalidURL: as `failures` explains.
        """
        target = self._target(str(request.url))
        sync = isinstance(request.stream, httpx.SyncByteStream)
        body = request.read() if sync else await request.aread()
        session = self._session or self._open()
        progress = _Progress(queued=self._under_way >= self._connections_max)
        _PROGRESS.set(progress)
        self._under_way += 1
        try:
            reply = await session.request(
                request.method,
                target.url,
                data=body if len(body) <= WARNED_BODY_BYTES else io.BytesIO(body),
                headers=[*request.headers.multi_items(), *target.headers],
                timeout=_timeout(request),
                allow_redirects=False,
                ssl=target.tls,
                proxy=target.proxy,
                proxy_headers=target.proxy_headers,
            )
            return _response(reply, await self._read(reply))
        except _OF_THE_WORLD as error:
            raise _translated(error, progress, target) from None
        finally:
            self._under_way -= 1

    async def aclose(self) -> None:
        """
        Close every connection, and wait until they are closed.
        """
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = _Connector(
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

    def _aim(self, address: str) -> _Target:
        url = _parsed(address, "the address")
        tls = self._tls() if url.scheme == "https" else None
        target = _Target(url, f"{url.host_subcomponent}:{url.port}", tls or True)
        proxy = self._proxy_of(address)
        return target if proxy is None else _through(target, proxy)

    def _tls(self) -> ssl.SSLContext:
        """
        Whom we trust; made when it is first needed, for it takes 20 ms.
        """
        if self._trust is None:
            try:
                self._trust = httpx.create_ssl_context()
            except OSError as error:
                raise TlsNotVerified(
                    f"the certificates of SSL_CERT_FILE cannot be read{_named(error)}"
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


# --- where a request goes -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Target:
    """
    What is worked out once for each URL. *peer* is its `host:port`; *tls* is True for "no matter".
    """

    url: URL
    peer: str
    tls: ssl.SSLContext | bool
    proxy: URL | None = None
    proxy_headers: Mapping[str, str] | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def next_peer(self) -> str:
        """
        The `host:port` that we connect to.
        """
        return f"{self.proxy.host_subcomponent}:{self.proxy.port}" if self.proxy else self.peer


def _parsed(address: str, what: str) -> URL:
    try:
        url = URL(address)
        (url.host or "").encode("idna")  # getaddrinfo does it later, and raises no OSError
    except ValueError:
        raise httpx.InvalidURL(f"{what} is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.UnsupportedProtocol(f"{what} is not an http(s) URL with a host")
    return url


def _through(target: _Target, address: str) -> _Target:
    """
    *target* by way of a proxy, whose password goes into a header and out of every URL.
    """
    proxy = _parsed(address, "the proxy")
    headers: dict[str, str] = {}
    if proxy.user is not None:
        login = f"{proxy.user}:{proxy.password or ''}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    # A tunnel is asked for by a request of its own; plain http has only the one.
    plain = tuple(headers.items()) if target.url.scheme == "http" else ()
    return replace(target, proxy=proxy.with_user(None), proxy_headers=headers, headers=plain)


def system_proxy(url: str) -> str | None:
    """
    The proxy for *url* by this machine's settings: `HTTPS_PROXY` and its like, `NO_PROXY`.

    This machine itself is never reached through a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not proxy or is_loopback(host) or proxy_bypass(f"{host}:{port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


# --- had it been sent? ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Progress:
    """
    How far one call has come. *queued*: every place was taken when it began.
    """

    queued: bool
    sockets: list[socket.socket] = field(default_factory=list)
    tried: bool = False
    connected: bool = False
    reused: bool = False


_PROGRESS: ContextVar[_Progress] = ContextVar("progress")
"""The call that the running task makes; nothing else leads from a connector to its caller."""


class _Connector(aiohttp.TCPConnector):
    """
    Notes when a connection is handed out, and hands out none that has spoken out of turn.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(socket_factory=_noted_socket, **settings)
        self._known: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """
        Hand out a connection for the one sending of *req*.
        """
        progress = _PROGRESS.get()
        if progress.tried:
            # aiohttp would send a GET again when a kept connection turns out to be closed.
            raise aiohttp.ServerDisconnectedError
        progress.tried = True
        try:
            connection = await super().connect(req, traces, timeout)
            while (reused := connection.protocol in self._known) and _is_stale(connection):
                connection.close()
                connection = await super().connect(req, traces, timeout)
        except BaseException:  # cancelled, too
            _disown(progress.sockets)
            raise
        if not reused and connection.protocol is not None:
            self._known.add(connection.protocol)
        progress.reused = reused
        progress.connected = True
        return connection


def _noted_socket(address: AddrInfoType) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    _PROGRESS.get().sockets.append(made)
    return made


def _disown(sockets: Iterable[socket.socket]) -> None:
    """
    Take the descriptors from the sockets of a connection that failed, under uvloop.

    uvloop closes such a descriptor itself. Where TLS is reset as it begins, it leaves a socket that
    believes to own it (29 times in 100, uvloop 0.23), and which as garbage closes whatever file has
    that number by then: the ledger's, for one.
    """
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        for made in sockets:
            made.detach()


def _is_stale(connection: Connection) -> bool:
    """
    Tell whether a kept connection holds bytes, read or unread: a farewell, or somebody's reply.

    aiohttp asks only whether it is connected, and takes such bytes for the reply to come.
    """
    if connection.protocol is None or connection.transport is None:
        return True
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return connection.protocol.should_close or bool(poll.poll(0))


# --- translation ----------------------------------------------------------------------------------

_OF_THE_WORLD = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp raises for what happens outside; TimeoutError is an OSError."""


def _translated(error: Exception, progress: _Progress, target: _Target) -> Exception:
    if not progress.connected:
        return _not_sent(error, progress, target)
    peer = target.peer
    match error:
        case TimeoutError():
            return httpx.ReadTimeout(f"no whole reply from {peer} in time")
        case aiohttp.ClientPayloadError():
            return CutShort(f"{peer} broke off in the middle of its reply")
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            return CutShort(f"{peer} broke off in its headers")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return Garbage(f"what {peer} sent is not HTTP/1.1")
    if progress.reused:
        return ClosedReused(f"{peer} closed a kept connection instead of replying")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Closed(f"{peer} hung up instead of replying")
    return httpx.ReadError(f"the connection to {peer} broke{_named(error)}")


def _not_sent(error: Exception, progress: _Progress, target: _Target) -> Exception:
    peer = target.next_peer
    match error:
        case TimeoutError() if progress.queued:
            return httpx.PoolTimeout("no connection came free in time")
        case TimeoutError():
            return httpx.ConnectTimeout(f"no connection to {peer} in time")
        case aiohttp.InvalidURL():
            return httpx.InvalidURL("the address cannot be used")
        case aiohttp.ClientHttpProxyError():
            return _of_proxy(error.status, peer)
        case aiohttp.ClientConnectorCertificateError():
            why = getattr(error.certificate_error, "verify_message", "")
            return TlsNotVerified(f"the certificate of {error.host} is not to be trusted: {why}")
        case aiohttp.ClientConnectorDNSError():
            return NameNotFound(f"no address for {error.host}: {error.strerror}")
        case aiohttp.ClientProxyConnectionError():
            return ProxyUnreachable(f"no connection to the proxy {peer}{_named(error)}")
        case aiohttp.ClientConnectorError():
            return _not_connected(error.os_error, target)
    return (httpx.ProxyError if target.proxy else httpx.ConnectError)(f"{peer} broke off")


_BY_ERRNO: Mapping[int, type[httpx.TransportError]] = {
    errno.ECONNREFUSED: Refused,
    errno.ETIMEDOUT: httpx.ConnectTimeout,
    errno.EMFILE: OutOfSockets,
    errno.ENFILE: OutOfSockets,
    errno.ENOBUFS: OutOfSockets,
    errno.EADDRNOTAVAIL: OutOfSockets,
    errno.ENETDOWN: Unreachable,
    errno.ENETUNREACH: Unreachable,
    errno.EHOSTDOWN: Unreachable,
    errno.EHOSTUNREACH: Unreachable,
    errno.EACCES: Unreachable,  # a firewall's word
    errno.EPERM: Unreachable,
}


def _not_connected(error: OSError, target: _Target) -> Exception:
    if isinstance(error, ssl.SSLError):
        return HandshakeFailed(f"no TLS with {target.peer}: {error.reason}")
    kind = _BY_ERRNO.get(error.errno or 0)
    if kind is None:
        # Once the port has answered, all that can still break is the handshake.
        kind = HandshakeFailed if target.url.scheme == "https" else httpx.ConnectError
    return kind(f"no connection to {target.next_peer}{_named(error)}")


def _of_proxy(status: int, peer: str) -> Exception:
    """
    A proxy that cannot reach the host may be able to a minute later; one that refuses us will not.
    """
    message = f"the proxy {peer} answered CONNECT with status {status}"
    transient = status >= 500 or status in (408, 429)
    return httpx.ProxyError(message) if transient else ProxyRefused(message)


def _named(error: BaseException) -> str:
    """
    ` (ECONNRESET)`: the operating system's word or OpenSSL's, or nothing where there is none.
    """
    for source in (error, error.__cause__):
        if isinstance(source, ssl.SSLError):
            return f" ({source.reason})" if source.reason else ""  # its errno is OpenSSL's own
    name = errno.errorcode.get(getattr(error, "errno", None) or 0)
    return f" ({name})" if name else ""
