"""
One call out, one reply or one classed failure back.

Owns what every request carries beside the vendor's own headers, and the way from an exception to
the words that the rest of the program speaks. Works over any `Carrier`.

Never retries, follows a redirect, waits, or cancels: timeouts belong to the carrier. What a carrier
raises beside `TRANSLATED` is a bug and passes through.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec.structs import replace

from batchrank.domain import Failure
from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.auth import Auth
from batchrank.wire.carrier import USER_AGENT, Carrier, Lines
from batchrank.wire.failures import TRANSLATED, ReplyRefused, meaning_of

OURS = (
    ("accept", "application/json"),
    ("accept-encoding", "identity"),  # what is not compressed cannot explode
    ("user-agent", USER_AGENT),
)
"""Headers that a call need not name."""

MESSAGE_CHARACTERS_MAX = 500


class Wire:
    """
    The way to one provider: *carrier* carries, *auth* signs.
    """

    def __init__(self, carrier: Carrier, auth: Auth) -> None:
        self._carrier = carrier
        self._auth = auth
        # A job has one or two sets of headers; they are merged once.
        self._signed = lru_cache(maxsize=64)(self._sign)

    async def exchange(self, call: HttpCall) -> HttpReply | Failure:
        """
        Send *call* once and read the reply to its end.
        """
        headers = self._signed(call.headers)
        try:
            return await self._carrier.carry(call.method, call.url, headers, call.body)
        except TRANSLATED as error:
            return self._failure(error)

    async def aclose(self) -> None:
        """
        Close every connection.
        """
        await self._carrier.aclose()

    def _sign(self, headers: Lines) -> Lines:
        lines = (*OURS, *headers, *self._auth.headers())
        return tuple({name.lower(): value for name, value in lines}.items())

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
