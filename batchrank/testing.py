"""
The fakes we ship: real small objects that meet the engine's ports, and a clock that jumps.

For tests of batchrank itself and of whatever is built on it. `run_virtually` runs async code on
asyncio with a virtual clock: an hour of waiting takes no time. Nothing here touches a network, a
disk or a thread.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.lowlevel

from batchrank.domain import (
    Answer,
    Failure,
    FailureKind,
    Group,
    Positions,
    RerankReply,
    RerankRequest,
    Served,
    Usage,
)
from batchrank.events import Event
from batchrank.policy.control import Heard
from batchrank.policy.gate import Gate
from batchrank.policy.pace import Pace
from batchrank.policy.rate import Mode
from batchrank.store.reading import PartRow

P = ParamSpec("P")
T = TypeVar("T")
E = TypeVar("E", bound=Event)

# --- time -----------------------------------------------------------------------------------------


class _JumpingSelector(selectors.DefaultSelector):
    """
    Never waits: it moves the clock to where the wait would have ended.
    """

    clock_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("everything waits and nothing will ever happen: a deadlock")
        # At least a nanosecond: limiters that round to "not yet" would spin on a clock that stands.
        self.clock_s += max(timeout, 1e-9)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An asyncio loop on which waiting takes no time. Not for code that uses threads or sockets.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """
        Virtual seconds since the loop was made.
        """
        return self._jumping.clock_s


def run_virtually(function: Callable[..., Awaitable[T]], *args: Any) -> T:
    """
    Run an async function on virtual time.
    """
    return anyio.run(function, *args, backend_options={"loop_factory": VirtualTimeLoop})


class InlineLane:
    """
    A lane that blocks: for virtual time, where a thread would look idle to the clock.
    """

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Call *function* here and now.
        """
        await anyio.lowlevel.checkpoint()
        return function(*args, **kwargs)


# --- groups ---------------------------------------------------------------------------------------


def groups(count: int, candidates: int = 2) -> list[Group]:
    """
    So many small groups, each with its own texts.
    """
    return [
        Group(n, f"q{n}", f"query {n}", tuple(f"document {n}.{i}" for i in range(candidates)))
        for n in range(count)
    ]


@dataclass(frozen=True, slots=True)
class ListBatch:
    """
    Some groups of a list.
    """

    position: int
    held: Sequence[Group]

    @property
    def rows(self) -> int:
        """
        How many groups there are.
        """
        return len(self.held)

    @property
    def carried(self) -> bytes:
        """
        Nothing: no part is rendered from it.
        """
        return b""

    def group(self, position: int) -> Group:
        """
        The group at *position*.
        """
        return self.held[position - self.position]


class ListSource:
    """
    A source that is a list. *read* counts the groups that were handed out.
    """

    def __init__(self, held: Sequence[Group], rows: int = 16) -> None:
        self.held = held
        self._rows = rows
        self.read = 0

    def batches(self, done: Positions, stop: int) -> Iterator[ListBatch]:
        """
        Batches with something left to do.
        """
        for start in range(0, min(stop, len(self.held)), self._rows):
            end = min(start + self._rows, len(self.held))
            if next(done.missing(start, min(end, stop)), None) is not None:
                self.read += end - start
                yield ListBatch(start, self.held[start:end])


# --- scores ---------------------------------------------------------------------------------------

MODEL = Served("test/model", "Test")


def reply(request: RerankRequest, **known: Any) -> RerankReply:
    """
    A good reply: each document scores a number that tells which one it is.
    """
    scores = tuple(1.0 / (1 + index) for index in request.indices)
    return RerankReply(scores, **{"served": MODEL, "usage": Usage(1.0, 10, 0.001), **known})


def failure(kind: FailureKind, message: str = "scripted", **known: Any) -> Failure:
    """
    A failed attempt of a class.
    """
    return Failure(kind, message, **known)


def always_good(request: RerankRequest, _attempt: int, _now: float) -> Answer:
    """
    The script of a server that never fails.
    """
    return reply(request)


Script = Callable[[RerankRequest, int, float], Answer]
"""From a request, the number of the attempt at it (from 1) and the time: what happens."""


@dataclass
class ScriptedScorer:
    """
    A scorer that does what a script says, after *latency_s*, and remembers what it was asked.

    Attributes:
        script: decides at the moment of sending.
        sent: time of sending and request, in order.
        in_flight_max: how many were under way at once, at most.
    """

    script: Script = always_good
    latency_s: float | Callable[[RerankRequest], float] = 0.1
    sent: list[tuple[float, RerankRequest]] = field(default_factory=list)
    in_flight: int = 0
    in_flight_max: int = 0
    _attempts: dict[Any, int] = field(default_factory=dict)

    async def score(self, request: RerankRequest, /) -> Answer:
        """
        Wait, then answer.
        """
        now = anyio.current_time()
        self.sent.append((now, request))
        attempt = self._attempts[request.slice] = self._attempts.get(request.slice, 0) + 1
        answer = self.script(request, attempt, now)
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            wait_s = (
                self.latency_s if isinstance(self.latency_s, float) else self.latency_s(request)
            )
            await anyio.sleep(wait_s)
        finally:
            self.in_flight -= 1
        return answer

    @property
    def sent_at(self) -> list[float]:
        """
        When each attempt left.
        """
        return [at for at, _ in self.sent]


# --- pace -----------------------------------------------------------------------------------------


@dataclass
class FixedController:
    """
    The controller that holds what it is given, whatever it hears.
    """

    pace: Pace | None
    concurrency: int
    mode: Mode = Mode.HOLD
    learned_per_s: float | None = None
    gate: Gate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate()
        if self.pace is not None:
            self.gate.full_rate(self.pace.rate)

    def sent(self, now: float, held: bool) -> None:
        """
        Nothing to learn.
        """

    def heard(self, heard: Heard) -> bool:  # noqa: ARG002 - the protocol has it
        """
        Nothing to learn.
        """
        return False


# --- listening and publishing ---------------------------------------------------------------------


class RecordingReporter:
    """
    Remembers every event.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event, /) -> None:
        """
        Remember *event*.
        """
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """
        The events of one kind, in order.
        """
        return [event for event in self.events if isinstance(event, kind)]


class FakeParts:
    """
    A publisher that only remembers: pairs of (number, through).
    """

    def __init__(self) -> None:
        self.published: list[tuple[int, int]] = []

    def __call__(self, number: int, through: int) -> PartRow:
        """
        Publish nothing.
        """
        self.published.append((number, through))
        return PartRow(number, f"part-{number:05}.parquet", through, 0, 0, "", stale=False)


def windows_max(times: Iterable[float], length_s: float) -> int:
    """
    The most of *times* (in order) that lie in any half-open window of *length_s*.
    """
    held = list(times)
    most, start = 0, 0
    for stop, at in enumerate(held):
        while held[start] <= at - length_s:
            start += 1
        most = max(most, stop - start + 1)
    return most
