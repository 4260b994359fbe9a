"""
Ways to wait: a bell, slots, a pacer, a lane to a thread, and the brake that ends waiting.

Owns every place where the dispatcher sleeps. Nothing here wraps a paid call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import anyio
from aiolimiter import AsyncLimiter

from batchrank.domain import Call, RateLimit
from batchrank.errors import Exit
from batchrank.policy.billing import Sizes
from batchrank.policy.control import Controller
from batchrank.policy.pace import Pace, Turnstile, pace_of
from batchrank.policy.tokens import TokenGauge

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
        self._of: dict[str, int] = {}
        self.in_use = 0
        self.in_use_max = 0

    def of(self, route: str) -> int:
        """
        How many are in use on the route of that name.
        """
        return self._of.get(route, 0)

    def take(self, route: str) -> None:
        """
        One more attempt is under way.
        """
        self._of[route] = self._of.get(route, 0) + 1
        self.in_use += 1
        self.in_use_max = max(self.in_use_max, self.in_use)

    def free(self, calls: Iterable[Call]) -> None:
        """
        The records of these are durable.
        """
        for call in calls:
            self._of[call.route] -= 1
            self.in_use -= 1
        self._bell.ring()


@dataclass(frozen=True, slots=True)
class Stop:
    """
    Why nothing more is sent, for a person, and what the process will say when it leaves.

    *hurry*: calls under way get the drain time and no more (signals, deadlines). *error* is what is
    raised when all is over, if it is an error of ours or of the disk's. *code* is that of the
    failure that stops the job, if one does; *hint* is the next thing to do, if there is one.
    """

    reason: str
    exit_code: Exit
    hurry: bool = False
    error: Exception | None = None
    code: str | None = None
    hint: str = ""


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


@dataclass(frozen=True, slots=True)
class Quotas:
    """
    The limits that are configured, each a ceiling; None is none.
    """

    requests: RateLimit | None = None
    documents: RateLimit | None = None
    tokens: RateLimit | None = None


TOGETHER_S = 0.004
"""
Whoever has to wait waits at least so long, and those behind then leave with it: to wake for each
single request costs more than to send it. Half the lateness of timers that the pace makes good.
"""

ROUNDING_S = 0.001
"""The event loop's timers are in whole milliseconds, and half of them fire too early."""


class Turnstiles:
    """
    What is booked of every quota, and what replies have taught about tokens.

    Runs that follow each other and are given the same ones keep to the quotas together: they belong
    to no event loop, and the clocks of all loops in a process count alike.
    """

    def __init__(self, quotas: Quotas) -> None:
        self.documents = Turnstile(pace_of(quotas.documents)) if quotas.documents else None
        self.tokens = Turnstile(pace_of(quotas.tokens)) if quotas.tokens else None
        self.ceiling = pace_of(quotas.requests) if quotas.requests else None
        self.requests = Turnstile(self.ceiling or Pace(1.0, 1.0))
        self.gauge = TokenGauge()

    def one_more(self) -> None:
        """
        Book a request that did not wait for its turn, a page of a reply: those behind it wait.
        """
        self.requests.book(1.0)


class Pacer:
    """
    Lets attempts leave within every quota and at the controller's pace, first come, first served:
    a large request is waited for, and nobody passes it. One task may use it.

    The waiting is done for turnstiles. The quota of requests is also one limiter's for the whole
    run, which is asked last: whatever the controller finds, no more leaves. It belongs to the event
    loop, so that another run has another one; from run to run the turnstiles hold the quota.
    """

    def __init__(
        self, controller: Controller, turnstiles: Turnstiles, clock: Callable[[], float]
    ) -> None:
        self._controller = controller
        self._clock = clock
        self._documents = turnstiles.documents
        self._tokens = turnstiles.tokens
        self._ceiling = turnstiles.ceiling
        self._limiter = _limiter(self._ceiling) if self._ceiling else None
        self._requests = turnstiles.requests
        self._gauge = turnstiles.gauge

    @property
    def weighs_tokens(self) -> bool:
        """
        Tell whether it has to be told how many tokens a request has.
        """
        return self._tokens is not None

    def weigh(self, sizes: Sizes) -> float:
        """
        The tokens that a request of these sizes is expected to count as.
        """
        return self._gauge.estimate(sizes)

    def ready_at(self, now: float) -> float:
        """
        When the next request may leave, whatever it is (*now* or later).
        """
        paced = self._controller.pace or self._ceiling
        stiles = (self._documents, self._tokens, self._requests if paced else None)
        return max((stile.opens_at(now) for stile in stiles if stile is not None), default=now)

    async def admit(self, documents: int, tokens: float) -> bool:
        """
        Return when one request with so many documents and tokens may leave; tell whether it was
        the controller's pace that it waited for in the end.
        """
        if self._documents is not None:
            await self._until(self._documents.admit(documents, self._clock()))
        if self._tokens is not None:
            await self._until(self._tokens.admit(tokens, self._clock()))
        pace = self._controller.pace or self._ceiling
        waited = pace is not None and await self._until(self._turn(pace))
        if self._limiter is not None:
            await self._limiter.acquire()
        return waited and pace != self._ceiling

    def give_back(self, documents: int, tokens: float) -> None:
        """
        Take back what was booked for a request that has not come to the other side after all.
        """
        if self._documents is not None:
            self._documents.book(-documents)
        if self._tokens is not None:
            self._tokens.book(-tokens)

    def counted(self, sizes: Sizes, tokens: float, total_tokens: int | None) -> None:
        """
        Learn from a reply what a request of these *sizes*, weighed as *tokens*, was counted as, and
        book the difference.
        """
        if self._tokens is not None:
            self._tokens.book(self._gauge.correct(sizes, tokens, total_tokens))

    def _turn(self, pace: Pace) -> float:
        self._requests.pace = pace
        return self._requests.admit(1.0, self._clock())

    async def _until(self, leaves_at: float) -> bool:
        """
        Wait until then; tell whether there was anything to wait for.
        """
        now = self._clock()
        if leaves_at <= now:
            return False
        await anyio.sleep_until(max(leaves_at, now + TOGETHER_S) + ROUNDING_S)
        return True


def _limiter(pace: Pace) -> AsyncLimiter:
    return AsyncLimiter(pace.burst, pace.burst / pace.rate)


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
