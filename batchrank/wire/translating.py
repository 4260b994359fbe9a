"""
From what a connection says to what `failures` knows.

Owns the map. `opening` reports what was never sent, `connection` what may have been; neither is
ever taken for the other:

| never sent, `NotOpened` at | by                               | is                               |
|----------------------------|----------------------------------|----------------------------------|
| NAME                       | the resolver                     | NameNotFound                     |
| any step                   | no file or port left here        | OutOfSockets                     |
| TIME                       | our clock                        | ConnectTimeout                   |
| TCP                        | the system's own timeout         | ConnectTimeout                   |
| TCP, of a proxy            | anything else                    | ProxyUnreachable                 |
| TCP                        | the system's word                | Refused, Unreachable             |
| TCP, of an https URL       | anything else                    | HandshakeFailed                  |
| TCP                        | anything else                    | ConnectError                     |
| PROXY_TLS, TLS             | a certificate                    | TlsNotVerified                   |
| PROXY_TLS                  | anything else                    | ProxyUnreachable                 |
| TLS                        | anything else                    | HandshakeFailed                  |
| TUNNEL                     | a status of 5xx, 408, 429        | ProxyError                       |
| TUNNEL                     | another status                   | ProxyRefused                     |
| TUNNEL                     | anything else                    | ProxyError                       |
| CLOSED                     | us                               | ConnectError                     |

`NoPlace` is PoolTimeout.

| may be sent, `Ended` by | a byte had come | the connection was kept | is            |
|-------------------------|-----------------|-------------------------|---------------|
| EXPIRED                 |                 |                         | ReadTimeout   |
| GARBAGE                 |                 |                         | Garbage       |
| FROM_HERE               |                 |                         | Closed        |
| HUNG_UP                 | yes             |                         | CutShort      |
| HUNG_UP                 | no              | yes                     | ClosedReused  |
| HUNG_UP, an end         | no              | no                      | Closed        |
| HUNG_UP, an error       | no              | no                      | ReadError     |

Texts of other libraries are not repeated but for OpenSSL's on a certificate: messages are our own
words, a host and port, and the operating system's word for what went wrong.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping

import httpx

from batchrank.wire.connection import Ended, How
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
from batchrank.wire.keeping import NoPlace
from batchrank.wire.opening import NotOpened, Step
from batchrank.wire.routes import Route

OF_THE_WORLD = (NoPlace, NotOpened, Ended)
"""What is raised for what happens outside."""


def translated(error: NoPlace | NotOpened | Ended, route: Route) -> Exception:
    """
    What *error* means for a call on *route*.
    """
    match error:
        case NoPlace():
            return httpx.PoolTimeout("no connection came free in time")
        case NotOpened():
            return _not_sent(error, route)
        case Ended():
            return _unknown(error, route.url.peer)


def _unknown(ended: Ended, peer: str) -> Exception:
    match ended.how:
        case How.EXPIRED:
            return httpx.ReadTimeout(f"no whole reply from {peer} in time")
        case How.GARBAGE:
            return Garbage(f"what {peer} sent is not HTTP/1.1")
        case How.FROM_HERE:
            return Closed(f"the connection to {peer} was closed from here")
        case How.HUNG_UP if ended.begun:
            return CutShort(f"{peer} broke off in the middle of its reply")
        case How.HUNG_UP if ended.reused:
            return ClosedReused(f"{peer} closed a kept connection instead of replying")
        case How.HUNG_UP if ended.error is None:
            return Closed(f"{peer} hung up instead of replying")
        case How.HUNG_UP:
            return httpx.ReadError(f"the connection to {peer} broke{named(ended.error)}")


# --- never sent -----------------------------------------------------------------------------------

_NOTHING_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL)

_BY_ERRNO: Mapping[int, type[httpx.TransportError]] = {
    errno.ECONNREFUSED: Refused,
    errno.ENETDOWN: Unreachable,
    errno.ENETUNREACH: Unreachable,
    errno.EHOSTDOWN: Unreachable,
    errno.EHOSTUNREACH: Unreachable,
    errno.EACCES: Unreachable,  # a firewall's word
    errno.EPERM: Unreachable,
}


def _not_sent(failed: NotOpened, route: Route) -> Exception:
    peer, error = route.next_url.peer, failed.error
    if _errno(error) in _NOTHING_LEFT:
        return OutOfSockets(f"no connection to {peer}{named(error)}")
    match failed.step:
        case Step.NAME:
            return NameNotFound(f"no address for {route.next_url.host}{named(error)}")
        case Step.TIME:
            return httpx.ConnectTimeout(f"no connection to {peer} in time")
        case Step.CLOSED:
            return httpx.ConnectError("the carrier was closed")
        case Step.TCP:
            return _not_connected(error, route)
        case Step.TUNNEL:
            return _no_tunnel(failed, peer)
        case Step.PROXY_TLS | Step.TLS:
            return _not_secured(failed, route)


def _not_connected(error: Exception | None, route: Route) -> Exception:
    peer = route.next_url.peer
    if _errno(error) == errno.ETIMEDOUT:
        return httpx.ConnectTimeout(f"no connection to {peer}{named(error)}")
    if route.proxy:
        return ProxyUnreachable(f"no connection to the proxy {peer}{named(error)}")
    # Once the port has answered, all that can still break is the handshake.
    otherwise = HandshakeFailed if route.url.tls else httpx.ConnectError
    kind = _BY_ERRNO.get(_errno(error), otherwise)
    return kind(f"no connection to {peer}{named(error)}")


def _not_secured(failed: NotOpened, route: Route) -> Exception:
    to_proxy = failed.step is Step.PROXY_TLS
    peer = route.next_url.peer if to_proxy else route.url.peer
    if isinstance(failed.error, ssl.SSLCertVerificationError):
        why = failed.error.verify_message
        return TlsNotVerified(f"the certificate of {peer} is not to be trusted: {why}")
    kind = ProxyUnreachable if to_proxy else HandshakeFailed
    return kind(f"no TLS with {peer}{named(failed.error)}")


def _no_tunnel(failed: NotOpened, peer: str) -> Exception:
    """
    A proxy that cannot reach the host may be able to a minute later; one that refuses us will not.
    """
    status = failed.status
    if status is None:
        return httpx.ProxyError(f"the proxy {peer} made no way{named(failed.error)}")
    message = f"the proxy {peer} answered CONNECT with status {status}"
    transient = status >= 500 or status in (408, 429)
    return httpx.ProxyError(message) if transient else ProxyRefused(message)


# --- the system's words ---------------------------------------------------------------------------

_LOOKUPS = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}


def _errno(error: Exception | None) -> int:
    """
    The operating system's number; 0 for the resolver's and OpenSSL's own.
    """
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror | ssl.SSLError):
        return 0
    return error.errno or 0


def named(error: Exception | None) -> str:
    """
    ` (ENOENT)`: the system's word, the resolver's or OpenSSL's, or nothing where there is none.
    """
    name: str | None
    if isinstance(error, ssl.SSLError):
        name = getattr(error, "reason", None)  # none where Python made it
    elif isinstance(error, socket.gaierror):
        name = _LOOKUPS.get(error.errno or 0)
    else:
        name = errno.errorcode.get(_errno(error))
    return f" ({name})" if name else ""
