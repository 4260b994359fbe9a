"""
From what pyreqwest raises to what `failures` knows.

Owns the map, which first asks how far a request had come. pyreqwest's own classes do not tell (a
connection that breaks after sending is a ConnectError there, a reply that does not come a
ConnectTimeoutError); the chain of causes from the layers below does, and it is read here as far as
it is known. Whatever is not known may have been sent.

Texts of other libraries are not repeated, because they name URLs: messages are our own words, a
host and port, and the operating system's word for what went wrong.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Mapping, Sequence

import httpx
from pyreqwest.exceptions import (
    BuilderError,
    ClientClosedError,
    DecodeError,
    DetailedPyreqwestError,
    PoolTimeoutError,
    PyreqwestError,
)

from batchrank.wire.failures import (
    Closed,
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

OF_THE_WORLD = PyreqwestError
"""What pyreqwest raises for what happens outside."""

NOT_SENT = ("client error (Connect)", "client error (Canceled)")
"""
Written by hyper-util: no connection came about; or a kept one was closed before it took the
request, which came back whole.
"""

IN_THE_REPLY = "error decoding response body"
"""Written by reqwest: the head of a reply had been read."""


def translated(error: PyreqwestError, route: Route) -> Exception:
    """
    What *error* means for a call on *route*.
    """
    match error:
        case PoolTimeoutError():
            return httpx.PoolTimeout("no connection came free in time")
        case ClientClosedError():
            return Closed(f"the connection to {route.peer} was closed from here")
        case BuilderError():
            return httpx.LocalProtocolError("the request cannot be put on the wire")
    causes = _causes(error)
    if not set(NOT_SENT).isdisjoint(causes):
        return _not_sent(causes, route)
    if "operation timed out" in causes:
        return httpx.ReadTimeout(f"no whole reply from {route.peer} in time")
    if IN_THE_REPLY in causes:
        return _in_the_reply(causes[-1], route.peer)
    if isinstance(error, DecodeError):
        return Garbage(f"what {route.peer} sent is not HTTP/1.1")
    return _instead_of_a_reply(causes, route.peer)


def _causes(error: PyreqwestError) -> Sequence[str]:
    """
    What each layer says, from the outermost to the innermost.
    """
    if not isinstance(error, DetailedPyreqwestError):
        return ("",)
    return [cause["message"] for cause in error.details.get("causes") or ()] or ("",)


def _in_the_reply(root: str, peer: str) -> Exception:
    if re.match("invalid", root, re.IGNORECASE):
        return Garbage(f"what {peer} sent is not HTTP/1.1")
    return CutShort(f"{peer} broke off in the middle of its reply")


_HUNG_UP = re.compile("connection closed before message completed|peer closed connection")
_BROKEN = frozenset({"connection error", "error writing a body to connection"})


def _instead_of_a_reply(causes: Sequence[str], peer: str) -> Exception:
    if _HUNG_UP.match(causes[-1]):
        return Closed(f"{peer} hung up instead of replying")
    if not _BROKEN.isdisjoint(causes):
        return httpx.ReadError(f"the connection to {peer} broke{_word(causes)}")
    return httpx.TransportError(f"the call to {peer} failed")


# --- never sent -----------------------------------------------------------------------------------

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

_LATE = frozenset({"operation timed out", "deadline has elapsed"})
_TUNNEL = "tunnel error: "
_CERTIFICATE = "invalid peer certificate: "


def _not_sent(causes: Sequence[str], route: Route) -> Exception:
    peer, root = route.next_peer, causes[-1]
    local = _BY_ERRNO.get(_errno(causes))
    if not _LATE.isdisjoint(causes):
        return httpx.ConnectTimeout(f"no connection to {peer} in time")
    if local is OutOfSockets:
        return OutOfSockets(f"no connection to {peer}{_word(causes)}")
    if "dns error" in causes:
        return NameNotFound(f"no address for {peer.rpartition(':')[0]}{_lookup(root)}")
    if root.startswith(_CERTIFICATE):
        whose = route.peer if route.url.scheme == "https" and not _in_a_tunnel(causes) else peer
        return _not_verified(root.removeprefix(_CERTIFICATE), whose)
    if route.proxy and (told := _of_proxy(causes, peer)):
        return told
    if local is None and route.tls:
        # Once the port has answered, all that can still break is the handshake.
        return HandshakeFailed(f"no TLS with {route.peer}{_word(causes)}")
    return (local or httpx.ConnectError)(f"no connection to {peer}{_word(causes)}")


def _of_proxy(causes: Sequence[str], peer: str) -> Exception | None:
    """
    What a proxy did; None where it had done its part.

    Which status it answered is not told, but for 407: what else it refuses may pass a minute later.
    """
    if f"{_TUNNEL}proxy authorization required" in causes:
        return ProxyRefused(f"the proxy {peer} wants another login")
    if "tcp connect error" in causes:
        return ProxyUnreachable(f"no connection to the proxy {peer}{_word(causes)}")
    if _in_a_tunnel(causes):
        return httpx.ProxyError(f"the proxy {peer} made no way{_word(causes)}")
    return None


def _in_a_tunnel(causes: Sequence[str]) -> bool:
    """
    Tell what went wrong before a proxy had made a way.
    """
    return any(cause.startswith(_TUNNEL) for cause in causes)


_REASONS = (
    ("UnknownIssuer", "an unknown issuer"),
    ("certificate not valid for name", "a name mismatch"),
    ("certificate expired", "it has expired"),
    ("certificate not valid yet", "it is not valid yet"),
    ("Revoked", "it was revoked"),
    ("CaUsedAsEndEntity", "it is an authority's, not a server's (CA:FALSE)"),
)


def _not_verified(root: str, peer: str) -> TlsNotVerified:
    why = next((words for reason, words in _REASONS if reason in root), "it is not sound")
    return TlsNotVerified(f"the certificate of {peer} is not to be trusted: {why}")


# --- the operating system's words -----------------------------------------------------------------

_NUMBER = re.compile(r"\(os error (\d+)\)$")


def _errno(causes: Sequence[str]) -> int:
    found = _NUMBER.search(causes[-1])
    return int(found[1]) if found else 0


_ALERT = re.compile("received fatal alert: ([A-Za-z]+)$")


def _word(causes: Sequence[str]) -> str:
    """
    ` (ECONNRESET)` or ` (alert ProtocolVersion)`; nothing where neither system nor peer spoke.
    """
    if alert := _ALERT.match(causes[-1]):
        return f" (alert {alert[1]})"
    name = errno.errorcode.get(_errno(causes))
    return f" ({name})" if name else ""


_LOOKUPS = {
    "Name or service not known": "EAI_NONAME",
    "No address associated with hostname": "EAI_NODATA",
    "Temporary failure in name resolution": "EAI_AGAIN",
}


def _lookup(root: str) -> str:
    code = _LOOKUPS.get(root.rpartition(": ")[2])
    return f" ({code})" if code else ""


def named(error: OSError) -> str:
    """
    ` (ENOENT)`: the operating system's word or OpenSSL's, or nothing where there is none.
    """
    if isinstance(error, ssl.SSLError):
        return f" ({error.reason})" if error.reason else ""  # its errno is OpenSSL's own
    name = errno.errorcode.get(error.errno or 0)
    return f" ({name})" if name else ""
