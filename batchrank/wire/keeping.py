"""
Who may send now, and on which connection that is open already.

Owns the places (so many calls are under way, the others wait in a line) and the shelves on which
connections lie between two calls. Opens and sends nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque

from batchrank.wire.connection import Connection


class NoPlace(Exception):
    """
    No place came free in time, or all is closed.
    """


class Places:
    """
    So many calls at once; who comes first is served first.
    """

    __slots__ = ("_free", "_line")

    def __init__(self, count: int) -> None:
        self._free = count
        self._line: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """
        Take a place if one is free. None is while anybody waits.
        """
        if not self._free:
            return False
        self._free -= 1
        return True

    async def wait(self, limit_s: float) -> None:
        """
        Take a place when it comes free.

        Raises:
            NoPlace: none came free within *limit_s* seconds.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)
        clock = loop.call_later(limit_s, _give_up, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it was ours already
            raise
        finally:
            clock.cancel()

    def leave(self) -> None:
        """
        Give a place back, to whoever has waited longest.
        """
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def send_away(self) -> None:
        """
        End the waiting of all who wait, with NoPlace.
        """
        while self._line:
            _give_up(self._line.popleft())


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(NoPlace())
        turn.exception()  # who waited may have been cancelled, and never asks


class Shelf:
    """
    Connections to one peer between two calls; what was used last is used first.

    One that has lain for *kept_s* seconds is closed. Times are the loop's.
    """

    __slots__ = ("_kept", "_kept_s", "_loop", "_sweep")

    def __init__(self, loop: asyncio.AbstractEventLoop, kept_s: float) -> None:
        self._loop = loop
        self._kept_s = kept_s
        self._kept: deque[Connection] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    def take(self, now: float) -> Connection | None:
        """
        A connection on which nothing has come out of turn, or None.
        """
        while self._kept:
            connection = self._kept.pop()
            if now - connection.kept_at < self._kept_s and connection.is_quiet():
                return connection
            connection.abort()
        return None

    def put(self, connection: Connection, now: float) -> None:
        """
        Keep *connection*, which is fit for another call.
        """
        connection.kept_at = now
        self._kept.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._kept_s, self._close_old)

    def clear(self) -> None:
        """
        Keep nothing any more.
        """
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        while self._kept:
            self._kept.pop().abort()

    def _close_old(self) -> None:
        self._sweep = None
        now = self._loop.time()
        while self._kept and now - self._kept[0].kept_at >= self._kept_s:
            self._kept.popleft().abort()
        if self._kept:
            left_s = self._kept[0].kept_at + self._kept_s - now
            self._sweep = self._loop.call_later(left_s, self._close_old)
