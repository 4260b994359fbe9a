"""
From what aiohttp raises to what `failures` knows.

Owns the map, which first asks whether a request had left. Texts of other libraries are not
repeated, because URLs of proxies hold passwords: messages are our own words, a host and port, and
the operating system's word for what went wrong.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping

import aiohttp
import httpx
from aiohttp.http import HttpProcessingError

from batchrank.wire.connecting import Progress
from batchrank.wire.failures import (
    Closed,
    ClosedReused,
    CutShort,
    Garbage,
    HandshakeFailed,
    NameNotFound,
    OutOfSockets,
    ProxyRefused,
    ProxyUnreachable,
    Refused,
    TlsNotVerified,
    Unreachable,
)
from batchrank.wire.routes import Route

OF_THE_WORLD = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp raises for what happens outside; TimeoutError is an OSError."""


def translated(error: Exception, progress: Progress, route: Route) -> Exception:
    """
    What *error* means for a call that had come as far as *progress* says.
    """
    if not progress.connected:
        return _not_sent(error, progress, route)
    peer = route.peer
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
    return httpx.ReadError(f"the connection to {peer} broke{named(error)}")


def _not_sent(error: Exception, progress: Progress, route: Route) -> Exception:
    peer = route.next_peer
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
            return ProxyUnreachable(f"no connection to the proxy {peer}{named(error)}")
        case aiohttp.ClientConnectorError():
            return _not_connected(error.os_error, route)
    return (httpx.ProxyError if route.proxy else httpx.ConnectError)(f"{peer} broke off")


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


def _not_connected(error: OSError, route: Route) -> Exception:
    if isinstance(error, ssl.SSLError):
        return HandshakeFailed(f"no TLS with {route.peer}: {error.reason}")
    kind = _BY_ERRNO.get(error.errno or 0)
    if kind is None:
        # Once the port has answered, all that can still break is the handshake.
        kind = HandshakeFailed if route.url.scheme == "https" else httpx.ConnectError
    return kind(f"no connection to {route.next_peer}{named(error)}")


def _of_proxy(status: int, peer: str) -> Exception:
    """
    A proxy that cannot reach the host may be able to a minute later; one that refuses us will not.
    """
    message = f"the proxy {peer} answered CONNECT with status {status}"
    transient = status >= 500 or status in (408, 429)
    return httpx.ProxyError(message) if transient else ProxyRefused(message)


def named(error: BaseException) -> str:
    """
    ` (ECONNRESET)`: the operating system's word or OpenSSL's, or nothing where there is none.
    """
    for source in (error, error.__cause__):
        if isinstance(source, ssl.SSLError):
            return f" ({source.reason})" if source.reason else ""  # its errno is OpenSSL's own
    name = errno.errorcode.get(getattr(error, "errno", None) or 0)
    return f" ({name})" if name else ""
