"""
One call out, one reply or one classed failure back.

Owns the way from `HttpCall` to `httpx.Request` and from a reply or an exception to the words that
the rest of the program speaks. Works over any `httpx.AsyncBaseTransport`: the carrier, the mock,
an ASGI application.

Never retries, follows a redirect, waits, or cancels: timeouts belong to the carrier. What a carrier
raises beside `TRANSLATED` is a bug and passes through.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import httpx

from batchrank import __version__
from batchrank.domain import Failure
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.auth import Auth
from batchrank.wire.failures import TRANSLATED, ReplyRefused, meaning_of

OURS = (
    ("accept", "application/json"),
    ("accept-encoding", "identity"),  # what is not compressed cannot explode
    ("user-agent", f"batchrank/{__version__}"),
)
"""Headers that a call need not name."""

MESSAGE_CHARACTERS_MAX = 500


class Wire:
    """
    The way to one provider: *transport* carries, *auth* signs.

    Seconds: *connect_timeout_s* to be connected, *timeout_s* to the end of the reply.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        auth: Auth,
        *,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> None:
        self._transport = transport
        self._auth = auth
        self._extensions = {
            "timeout": {
                "connect": connect_timeout_s,
                "pool": connect_timeout_s,
                "read": timeout_s,
                "write": timeout_s,
            }
        }
        # A job has one or two of these pairs; a URL is parsed and headers are merged once.
        self._prepared = lru_cache(maxsize=64)(self._prepare)

    async def exchange(self, call: HttpCall) -> HttpReply | Failure:
        """
        Send *call* once and read the reply to its end.
        """
        try:
            response = await self._transport.handle_async_request(self._request(call))
            try:
                body = await response.aread()
            finally:
                await response.aclose()
        except TRANSLATED as error:
            return self._failure(error)
        return HttpReply(response.status_code, dict(response.headers.items()), body)

    async def aclose(self) -> None:
        """
        Close every connection.
        """
        await self._transport.aclose()

    def _request(self, call: HttpCall) -> httpx.Request:
        url, headers = self._prepared(call.url, call.headers)
        return httpx.Request(
            call.method,
            url,
            headers=[*headers, (b"content-length", b"%d" % len(call.body))],
            # `content=` would work out again, ten times slower, what is known here.
            stream=httpx.ByteStream(call.body),
            extensions=self._extensions,
        )

    def _prepare(
        self, url: str, headers: tuple[tuple[str, str], ...]
    ) -> tuple[httpx.URL, list[tuple[bytes, bytes]]]:
        parsed = httpx.URL(url)
        named = {name.lower(): value for name, value in (*OURS, *headers, *self._auth.headers())}
        lines = [(name.encode("ascii"), value.encode("ascii")) for name, value in named.items()]
        return parsed, [(b"host", parsed.netloc), *lines]

    def _failure(self, error: Exception) -> Failure:
        meaning = meaning_of(error)
        message = self._auth.redact(str(error)) or type(error).__name__
        failure = Failure(
            meaning.kind,
            "".join(filter(str.isprintable, message))[:MESSAGE_CHARACTERS_MAX],
            code=meaning.code,
        )
        if isinstance(error, ReplyRefused):
            failure = replace(failure, status=error.status, reply_bytes=error.reply_bytes)
        return failure
