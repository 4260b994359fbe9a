"""
Keys that do not last: they are got anew in good time, and when they are refused.

Owns when that is, and that many calls wait for one renewal. What there is serves until it is
refused: a renewal that comes due is made aside, and no call waits for it. What is refused was not
billed and is tried again by those who pace calls, never here.

What a key is, and how it goes into a request, is for `Renewable` to know: `command`, `aws`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from batchrank.providers.base import HttpCall, HttpReply
from batchrank.wire.auth import Redacts
from batchrank.wire.carrier import Carrier, Lines
from batchrank.wire.failures import KeyNotRenewed, KeyRenewed


class Renewable(Redacts, Protocol):
    """
    A key that can be got anew.
    """

    def lines(self, call: HttpCall) -> Lines:
        """
        What *call* is sent with beside its headers, or instead of them; names in lower case.
        """

    def is_due(self) -> bool:
        """
        Tell whether it is time to get it anew.
        """

    def is_refused(self, reply: HttpReply) -> bool:
        """
        Tell whether *reply* says that the key is no longer, or not yet, good.

        Raises:
            ClockOff: it is, and the clock is at fault.
        """

    def renew(self, *, refused: bool) -> bool:
        """
        Get it anew, and tell whether it is another one now. Blocks; called in a thread.

        Raises:
            KeyNotRenewed: nobody gave one; what there was is kept.
        """

    def close(self) -> None:
        """
        End what was begun to get it anew: nobody needs it any more. Does not wait.
        """


class Renewing:
    """
    A carrier whose requests are sent with a key that does not last, and what it is redacted by.
    """

    def __init__(self, carrier: Carrier, key: Renewable) -> None:
        self._carrier = carrier
        self._key = key
        self._keys_seen = 0
        self._aside: asyncio.Task[None] | None = None
        self._urgent: asyncio.Task[None] | None = None
        self.redact = key.redact

    def headers(self) -> Lines:
        """
        Nothing: what is added depends on the request.
        """
        return ()

    async def carry(self, method: str, url: str, headers: Lines, body: bytes) -> HttpReply:
        """
        Send the request once, with the key that there is, and read the reply to its end.

        Raises:
            KeyRenewed, KeyNotRenewed, ClockOff: the key was refused, and this is why to try again,
                or not to. Where no other key can be had the reply itself is returned.
        """
        self._look()
        used = self._keys_seen
        added = self._key.lines(HttpCall(method, url, headers, body))
        lines = {**dict(headers), **dict(added)}
        reply = await self._carrier.carry(method, url, tuple(lines.items()), body)
        if self._key.is_refused(reply):
            await self._renewed(used)
        return reply

    async def aclose(self) -> None:
        """
        Close every connection; nobody needs another key.
        """
        for renewal in filter(None, (self._aside, self._urgent)):
            renewal.cancel()
        self._key.close()
        await self._carrier.aclose()

    def _look(self) -> None:
        """
        Have the key got anew if it is time. Where nobody gives one, what there is serves on.
        """
        if self._aside is not None and self._aside.done():
            ended, self._aside = self._aside, None
            ended.result()  # it raises for bugs alone
        if self._aside is None and self._urgent is None and self._key.is_due():
            self._aside = asyncio.get_running_loop().create_task(self._renew_aside())

    async def _renewed(self, used: int) -> None:
        """
        See to it that there is another key than the one *used*; return if there is none.
        """
        # Many wait for one renewal: none of them may cancel it.
        if self._aside is not None:
            await asyncio.wait((self._aside,))
        if used == self._keys_seen:
            if self._urgent is None:
                self._urgent = asyncio.get_running_loop().create_task(self._renew(refused=True))
                self._urgent.add_done_callback(self._ended)
            urgent = self._urgent
            await asyncio.wait((urgent,))
            urgent.result()
        if used != self._keys_seen:
            raise KeyRenewed("the key was refused, and there is another one by now")

    async def _renew_aside(self) -> None:
        with suppress(KeyNotRenewed):
            await self._renew(refused=False)

    async def _renew(self, *, refused: bool) -> None:
        if await _apart(lambda: self._key.renew(refused=refused)):
            self._keys_seen += 1

    def _ended(self, urgent: asyncio.Task[None]) -> None:
        self._urgent = None
        if not urgent.cancelled():
            urgent.exception()  # raised where it is waited for, if anybody still does


async def _apart(renew: Callable[[], bool]) -> bool:
    """
    Call *renew* in a thread that no end of a process waits for, as it does for asyncio's own: who
    gives out keys may take minutes to fail.
    """
    loop = asyncio.get_running_loop()
    renewed: asyncio.Future[bool] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            loop.call_soon_threadsafe(lambda: None if renewed.done() else outcome())

    def call() -> None:
        try:
            is_other = renew()
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            failed = error
            tell(lambda: renewed.set_exception(failed))
        else:
            tell(lambda: renewed.set_result(is_other))

    threading.Thread(target=call, name="key", daemon=True).start()
    return await renewed
