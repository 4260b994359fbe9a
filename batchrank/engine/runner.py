"""
One run, from the first undone group to its ending.

Owns the order in which things start and end: the writer first and last, the sender in between, so
that whatever was paid for has somewhere to go. Owns the reactions to signals and to the clock. What
the run is made of comes from `job`, which wires it.
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import anyio

from batchrank.domain import Outcome, Positions
from batchrank.engine.backlog import Backlog
from batchrank.engine.caller import Caller, Clocks
from batchrank.engine.committer import Committer
from batchrank.engine.dispatcher import Dispatcher, Patience
from batchrank.engine.feed import Feed, Past, Source
from batchrank.engine.following import Equals, Following
from batchrank.engine.publisher import Publish, Publisher, Ranges
from batchrank.engine.purse import Purse, Till
from batchrank.engine.routes import Route, Routes
from batchrank.engine.waiting import Bell, Brake, Lane, Slots, Stop
from batchrank.errors import Exit
from batchrank.events import Reporter, RouteNow, Stopping, Tick
from batchrank.policy.billing import in_usd
from batchrank.policy.budget import Allowance, Budget
from batchrank.policy.retry import Rules
from batchrank.policy.routing import Strategy
from batchrank.store.disk import Reserve
from batchrank.store.ledger import Ledger
from batchrank.store.reading import PartRow

TICK_S = 1.0

ONE_WISH_S = 0.5
"""Signals closer together are one wish: `timeout` signals a process, and then its group."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Lanes:
    """
    Where blocking work is done: one thread each for the ledger, the source, the parts, and the
    budget that jobs share.
    """

    ledger: Lane
    source: Lane
    parts: Lane
    till: Lane


async def nothing_beforehand() -> Stop | None:
    """
    There is nothing to find out.
    """
    return None


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What this run is to do.

    *target*: groups at or beyond this position are left for another run. *deadline_s*: seconds from
    now until the process must have left. *interrupted* is asked once a second where no signal can
    be heard: from another thread. *equals* take the outcomes of others, which this run is to come
    to. *later* are groups before the target that are left for another run, too. *beforehand* is
    awaited before the first is sent, and no longer than until somebody pulls the brake; it tells
    why nothing is to be sent.
    """

    target: int
    past: Past
    rules: Rules
    patience: Patience
    drain_s_max: float
    strategy: Strategy = Strategy.FAILOVER
    deadline_s: float | None = None
    signals: bool = True
    interrupted: Callable[[], bool] = lambda: False
    equals: Equals | None = None
    beforehand: Callable[[], Awaitable[Stop | None]] = nothing_beforehand
    later: Positions | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """
    What the run works with. *routes* are in the order in which a chain takes them; what steers them
    and *allowance* may be those that a run before this one has left. *till* is there if *budget*
    has a share of what jobs spend together.
    """

    source: Source
    routes: Sequence[Route]
    ledger: Ledger
    publish: Publish
    reporter: Reporter
    clocks: Clocks
    lanes: Lanes
    budget: Budget
    till: Till | None = None
    allowance: Allowance = field(default_factory=Allowance)
    reserve: Reserve | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """
    How the run ended. *stop* is None if it came to its target; *outcomes* became durable in it;
    *notes* are words for the summary.
    """

    stop: Stop | None
    parts: list[PartRow]
    outcomes: int
    in_flight_max: int
    notes: tuple[str, ...] = ()


async def run(
    plan: Plan, ports: Ports, done: Positions, ranges: Ranges, published: dict[int, PartRow]
) -> Ending:
    """
    Do what *plan* says and return how it ended; only a bug of this room raises.
    """
    return await _Run(plan, ports, done, ranges, published).run()


def passed_over(done: Positions, equals: Equals | None, later: Positions | None) -> Positions:
    """
    The positions that are not to be read: *done* itself, which grows, where there are no others.
    """
    rest = done.united(equals.followers) if equals and equals.followers else done
    return rest.united(later) if later else rest


class _Run:
    def __init__(
        self,
        plan: Plan,
        ports: Ports,
        done: Positions,
        ranges: Ranges,
        published: dict[int, PartRow],
    ) -> None:
        self._plan = plan
        self._ports = ports
        self._ranges = ranges
        self._brake = Brake()
        self._drain = anyio.CancelScope()
        self._signalled_at: float | None = None
        self._backlog = Backlog()
        self._bell = Bell()
        self._slots = Slots(self._bell)
        self._publisher = Publisher(
            ports.publish,
            ranges,
            done,
            published,
            lane=ports.lanes.parts,
            brake=self._brake,
            reporter=ports.reporter,
        )
        equals = plan.equals or Equals(Positions(done.total), Positions(done.total))
        self._following = Following(
            ports.ledger, equals, lane=ports.lanes.ledger, brake=self._brake
        )
        self._committer = Committer(
            ports.ledger,
            lane=ports.lanes.ledger,
            slots=self._slots,
            brake=self._brake,
            reporter=ports.reporter,
            clock=ports.clocks.wall,
            reserve=ports.reserve,
            durable=self._durable,
        )
        self._feed = Feed(
            ports.source,
            passed_over(done, equals, plan.later),
            plan.target,
            past=plan.past,
            capacity=ports.routes[0].capacity,
            lane=ports.lanes.source,
        )
        self._dispatcher = self._sender()

    def _durable(self, outcomes: Sequence[Outcome]) -> None:
        self._publisher.durable(outcomes)
        self._following.durable(outcomes)

    def _sender(self) -> Dispatcher:
        plan, ports = self._plan, self._ports
        self._routes = routes = Routes(ports.routes, plan.strategy, self._slots)
        self._caller = caller = Caller(
            routes,
            committer=self._committer,
            backlog=self._backlog,
            budget=ports.budget,
            brake=self._brake,
            reporter=ports.reporter,
            clocks=ports.clocks,
            rules=plan.rules,
        )
        return Dispatcher(
            self._feed,
            caller,
            committer=self._committer,
            backlog=self._backlog,
            slots=self._slots,
            bell=self._bell,
            purse=self._purse(),
            allowance=ports.allowance,
            routes=routes,
            brake=self._brake,
            patience=plan.patience,
            clock=ports.clocks.now,
        )

    def _purse(self) -> Purse:
        ports = self._ports
        return Purse(
            ports.budget,
            ports.till,
            lane=ports.lanes.till,
            committer=self._committer,
            bell=self._bell,
            wall=ports.clocks.wall,
        )

    async def run(self) -> Ending:
        async with anyio.create_task_group() as watching:
            if self._plan.signals:
                watching.start_soon(self._watch_signals)
            watching.start_soon(self._watch_deadline)
            watching.start_soon(self._tick)
            watching.start_soon(self._watch_stop)
            await self._writing()
            watching.cancel_scope.cancel()
        publisher = self._publisher
        return Ending(
            self._brake.stop,
            publisher.parts,
            publisher.outcomes,
            self._slots.in_use_max,
            (*self._caller.notes, *self._learned()),
        )

    def _learned(self) -> Iterator[str]:
        """
        What was learned of requests that are too large, in words.
        """
        routes = self._ports.routes
        for route in routes:
            if words := route.capacity.learned.sentence():
                yield f"{route.name}: {words}" if len(routes) > 1 else words

    async def _writing(self) -> None:
        async with anyio.create_task_group() as writing:
            writing.start_soon(self._committer.run)
            try:
                await self._publishing()
            finally:
                self._committer.close()

    async def _publishing(self) -> None:
        """
        Send; then let everything come home, be written, and be published.
        """
        async with anyio.create_task_group() as publishing:
            publishing.start_soon(self._publisher.run, self._committer)
            publishing.start_soon(self._following.run, self._committer)
            try:
                await self._sending()
                await self._committer.settled()
                if self._hurries:
                    self._drop()
                await self._following.finish()
                await self._committer.settled()
                await self._publish_the_rest()
            finally:
                self._following.close()
                self._publisher.close()

    async def _publish_the_rest(self) -> None:
        """
        After `--limit N`, publish the part that N lies in as far as it goes.
        """
        target = self._plan.target
        if self._brake.stop is None and 0 < target < self._ranges.total:
            number = self._ranges.holding(target)
            if self._ranges.of(number)[0] < target:
                await self._publisher.publish_so_far(self._committer, number, target)

    async def _sending(self) -> None:
        try:
            with self._drain:
                # Not anyio's: its tasks cost four times as much, and nothing needs their scopes.
                async with asyncio.TaskGroup() as attempts:
                    with self._brake.scope:
                        await self._dispatch(attempts)
        finally:
            self._feed.close()

    async def _dispatch(self, attempts: asyncio.TaskGroup) -> None:
        async with anyio.create_task_group() as reading:
            reading.start_soon(self._feed.read)
            try:
                if await self._is_cleared():
                    await self._dispatcher.run(attempts)
            # A bug: raised here it would cancel every paid call that is under way.
            except Exception as bug:  # noqa: BLE001
                self._brake.pull(Stop(f"a bug: {bug!r}", Exit.BUG, error=bug))
            reading.cancel_scope.cancel()

    async def _is_cleared(self) -> bool:
        """
        Find out what there is to find out; tell whether anything may be sent.
        """
        if (stop := await self._plan.beforehand()) is not None:
            self._brake.pull(stop)
        return stop is None

    # --- watching ---------------------------------------------------------------------------------

    async def _watch_stop(self) -> None:
        stop = await self._brake.pulled()
        self._ports.reporter.report(Stopping(stop.reason, self._slots.in_use))
        if stop.hurry:
            self._hurry()

    @property
    def _hurries(self) -> bool:
        return self._drain.deadline < math.inf

    def _leave(self, stop: Stop) -> None:
        """
        Stop for this reason; whoever has stopped for another one waits no longer for calls.
        """
        if self._brake.stop is None:
            self._brake.pull(stop)
        elif not self._hurries:
            self._hurry()

    def _hurry(self) -> None:
        """
        From now on calls under way have the drain time; then the process ends without them.
        """
        self._drain.deadline = anyio.current_time() + self._plan.drain_s_max
        self._drop()

    def _drop(self) -> None:
        """
        Leave to the next run what costs no call.
        """
        self._following.drop()
        self._publisher.drop()

    async def _watch_signals(self) -> None:
        # What whoever started us wants ignored (nohup, a shell's background) stays ignored.
        before = {n: h for n in SIGNALS if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}
        try:
            with anyio.open_signal_receiver(*before) as signals:
                async for number in signals:
                    self._signalled(signal.Signals(number).name)
        finally:
            # The loop leaves the system's defaults behind, which end the process without a word.
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, name: str) -> None:
        now = anyio.current_time()
        if self._signalled_at is None:
            self._signalled_at = now
            self._leave(Stop(f"stopped by {name}", Exit.LATER, hurry=True))
        elif now - self._signalled_at >= ONE_WISH_S:
            self._drain.cancel()

    async def _watch_deadline(self) -> None:
        if self._plan.deadline_s is not None:
            await anyio.sleep(max(0.0, self._plan.deadline_s - self._plan.drain_s_max))
            self._leave(Stop("the deadline is near", Exit.LATER, hurry=True))

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK_S)
            self._ports.reporter.report(self._ticked())
            if self._plan.interrupted() and self._signalled_at is None:
                self._signalled("the program that runs it")

    def _ticked(self) -> Tick:
        now = [
            RouteNow(route.name, self._slots.of(route.name), route.per_s, route.why)
            for route in self._routes
        ]
        return Tick(
            self._slots.in_use,
            len(self._backlog),
            now[0].pace_per_s,
            self._ports.routes[0].controller.mode.value,
            routes=tuple(now) if len(now) > 1 else (),
            reserved_usd=in_usd(self._ports.budget.reserved.nano_usd),
        )
