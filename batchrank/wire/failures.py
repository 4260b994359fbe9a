"""
What can go wrong on the wire, and what each of it means for the bill.

Owns the finer exceptions that a carrier raises where httpx's own do not tell enough, and the one
table from exception to class and code. *Whether a request had left* decides whether it may have
been billed; the table is ordered from special to general and names every exception of httpx.

Never speaks to a socket, and never repeats what an exception of another library says of a URL.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from batchrank.domain import FailureKind

# --- never sent -----------------------------------------------------------------------------------


class NameNotFound(httpx.ConnectError):
    """
    DNS has no address for the host, or did not answer.
    """


class KeyRenewed(httpx.ConnectError):
    """
    The key was refused, unread and unpaid, and there is another one by now.
    """


class KeyNotRenewed(httpx.ConnectError):
    """
    The key was refused, and whoever gives out keys has no other at the moment.
    """


class ClockOff(httpx.LocalProtocolError):
    """
    A signature was refused because this machine's clock is wrong.
    """


class Refused(httpx.ConnectError):
    """
    The host is there, and nothing listens at that port.
    """


class Unreachable(httpx.ConnectError):
    """
    There is no way to the host.
    """


class OutOfSockets(httpx.ConnectError):
    """
    This machine has no file descriptor or port left for one more connection.
    """


class HandshakeFailed(httpx.ConnectError):
    """
    TLS could not be agreed on, for another reason than the certificate.
    """


class TlsNotVerified(httpx.ConnectError):
    """
    The certificate is not to be trusted: nothing is sent, and no retry mends it.
    """


class ProxyUnreachable(httpx.ConnectError):
    """
    The proxy itself cannot be reached.
    """


class ProxyRefused(httpx.ProxyError):
    """
    The proxy does not let us through (407 and its like): no retry mends it.
    """


# --- sent, and the outcome unknown ----------------------------------------------------------------


class Closed(httpx.RemoteProtocolError):
    """
    The other side hung up before a byte of a reply, or we did.
    """


class ClosedReused(httpx.RemoteProtocolError):
    """
    A kept connection ended as we sent on it: what of the request was read, nobody knows.
    """


class CutShort(httpx.RemoteProtocolError):
    """
    The connection ended in the middle of the reply.
    """


class Garbage(httpx.RemoteProtocolError):
    """
    What came back is not HTTP/1.1.
    """


# --- replies that were refused --------------------------------------------------------------------


class ReplyRefused(httpx.DecodingError):
    """
    A reply of *status* that is not taken; *reply_bytes* is its length, or as much as was read.
    """

    def __init__(self, message: str, *, status: int, reply_bytes: int | None) -> None:
        super().__init__(message)
        self.status = status
        self.reply_bytes = reply_bytes


class TooBig(ReplyRefused):
    """
    The reply is larger than any that makes sense.
    """


class Encoded(ReplyRefused):
    """
    The reply is compressed although we asked for it as it is.
    """


# --- what it means --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Meaning:
    """
    The class and the stable short code of an exception.
    """

    error: type[Exception]
    kind: FailureKind
    code: str


_NEVER_SENT, _UNKNOWN = FailureKind.NEVER_SENT, FailureKind.UNKNOWN
_BAD_REPLY, _FATAL = FailureKind.BAD_REPLY, FailureKind.FATAL

MEANINGS: tuple[Meaning, ...] = (
    Meaning(NameNotFound, _NEVER_SENT, "dns"),
    Meaning(Refused, _NEVER_SENT, "refused"),
    Meaning(Unreachable, _NEVER_SENT, "unreachable"),
    Meaning(OutOfSockets, _NEVER_SENT, "out_of_sockets"),
    Meaning(HandshakeFailed, _NEVER_SENT, "tls_handshake"),
    Meaning(TlsNotVerified, _FATAL, "tls_not_verified"),
    Meaning(ProxyUnreachable, _NEVER_SENT, "proxy"),
    Meaning(KeyRenewed, _NEVER_SENT, "key_renewed"),
    Meaning(KeyNotRenewed, _NEVER_SENT, "key_not_renewed"),
    Meaning(httpx.ConnectError, _NEVER_SENT, "connect"),
    Meaning(ProxyRefused, _FATAL, "proxy_refused"),
    Meaning(httpx.ProxyError, _NEVER_SENT, "proxy"),
    Meaning(httpx.ConnectTimeout, _NEVER_SENT, "connect_timeout"),
    Meaning(httpx.PoolTimeout, _NEVER_SENT, "pool_timeout"),
    Meaning(httpx.ReadTimeout, _UNKNOWN, "read_timeout"),
    Meaning(httpx.WriteTimeout, _UNKNOWN, "write_timeout"),
    Meaning(httpx.TimeoutException, _UNKNOWN, "timeout"),
    Meaning(httpx.ReadError, _UNKNOWN, "reset"),
    Meaning(httpx.WriteError, _UNKNOWN, "reset"),
    Meaning(httpx.CloseError, _UNKNOWN, "reset"),
    Meaning(httpx.NetworkError, _UNKNOWN, "network"),
    Meaning(Closed, _UNKNOWN, "closed"),
    Meaning(ClosedReused, _UNKNOWN, "closed_reused"),
    Meaning(CutShort, _UNKNOWN, "cut_short"),
    Meaning(Garbage, _UNKNOWN, "garbage"),
    Meaning(httpx.RemoteProtocolError, _UNKNOWN, "protocol"),
    Meaning(ClockOff, _FATAL, "clock_off"),
    # Our own request cannot be put on the wire: it will not be any better the next time.
    Meaning(httpx.LocalProtocolError, _FATAL, "bad_request"),
    Meaning(httpx.ProtocolError, _UNKNOWN, "protocol"),
    Meaning(httpx.UnsupportedProtocol, _FATAL, "unsupported"),
    Meaning(httpx.InvalidURL, _FATAL, "invalid_url"),
    Meaning(httpx.TransportError, _UNKNOWN, "transport"),
    Meaning(TooBig, _BAD_REPLY, "too_big"),
    Meaning(Encoded, _BAD_REPLY, "encoded"),
    Meaning(httpx.DecodingError, _BAD_REPLY, "undecodable"),
)
"""What each exception of a carrier means; the first row that fits holds."""

TRANSLATED = tuple(meaning.error for meaning in MEANINGS)
"""Everything that a carrier may raise because of the world; anything else is a bug."""


def meaning_of(error: Exception) -> Meaning:
    """
    The first row of MEANINGS that fits; *error* is one of TRANSLATED.
    """
    return next(meaning for meaning in MEANINGS if isinstance(error, meaning.error))
