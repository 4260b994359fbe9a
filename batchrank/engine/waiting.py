"""
Ways to wait: a bell, slots, a pacer, a lane to a thread, and the brake that ends waiting.

Owns every place where the dispatcher sleeps. Nothing here wraps a paid call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import anyio
from aiolimiter import AsyncLimiter

from batchrank.domain import RateLimit
from batchrank.errors import Exit
from batchrank.policy.pace import Controller, Pace, Turnstile, pace_of

P = ParamSpec("P")
T = TypeVar("T")


class Bell:
    """
    Wakes the one task that listens; a ring that nobody waits for is not lost.
    """

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        """
        Wake the listener, or let its next wait return at once.
        """
        self._event.set()

    async def wait(self, until: float = math.inf) -> None:
        """
        Return at the next ring, or at *until* (seconds of the event loop's clock).
        """
        with anyio.CancelScope(deadline=until):
            await self._event.wait()
        self._event = anyio.Event()


class Slots:
    """
    The right to have attempts under way: each is one attempt's, until its record is durable.
    """

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self.in_use = 0
        self.in_use_max = 0

    def take(self) -> None:
        """
        One more attempt is under way.
        """
        self.in_use += 1
        self.in_use_max = max(self.in_use_max, self.in_use)

    def free(self, count: int) -> None:
        """
        So many records are durable.
        """
        self.in_use -= count
        self._bell.ring()


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Why nothing more is sent, for a person, and what the process will say when it leaves.

    *hurry*: calls under way get the drain time and no more (signals, deadlines). *error* is what is
    raised when all is over, if it is an error of ours or of the disk's.
    """

    reason: str
    exit_code: Exit
    hurry: bool = False
    error: Exception | None = None


class Brake:
    """
    Stops the job by value: the dispatcher's waiting ends, calls under way come home.
    """

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.scope = anyio.CancelScope()
        self._pulled = anyio.Event()

    def pull(self, stop: Stop) -> None:
        """
        Stop for this reason; the first one stands.
        """
        if self.stop is None:
            self.stop = stop
            self.scope.cancel()
            self._pulled.set()

    async def pulled(self) -> Stop:
        """
        Wait until somebody pulls.
        """
        await self._pulled.wait()
        assert self.stop is not None
        return self.stop


class Pacer:
    """
    Lets attempts leave at the controller's pace, first come, first served. One task may use it.
    """

    def __init__(self, controller: Controller, documents: RateLimit | None) -> None:
        self._controller = controller
        self._documents = Turnstile(pace_of(documents)) if documents else None
        self._pace: Pace | None = None
        self._limiter: AsyncLimiter | None = None

    async def admit(self, documents: int) -> None:
        """
        Return when one request with so many documents may leave.
        """
        if self._documents is not None:
            await anyio.sleep_until(self._documents.admit(documents, anyio.current_time()))
        pace = self._controller.pace
        if pace != self._pace:
            # aiolimiter cannot change its rate: a new pace is a new limiter.
            self._pace = pace
            self._limiter = AsyncLimiter(pace.burst, pace.burst / pace.rate) if pace else None
        if self._limiter is not None:
            await self._limiter.acquire()


class Lane(Protocol):
    """
    Runs blocking functions, one at a time.
    """

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call *function* and return what it returns.
        """


class ThreadLane:
    """
    A lane through a worker thread: the ledger's, the publisher's, the source's.
    """

    def __init__(self) -> None:
        self._limiter = anyio.CapacityLimiter(1)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call *function* in a thread; not even a cancellation returns before it does.
        """
        return await anyio.to_thread.run_sync(
            lambda: function(*args, **kwargs), limiter=self._limiter
        )
