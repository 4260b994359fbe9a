"""
What leaves next, and when: the task that feeds, waits for route, money and pace, and sends.

Owns the order of these waits, and the bound on what is read ahead: slots in use plus what waits is
at most 4 x concurrency, beyond that the source is not read. A route is waited for until its gate
lets somebody through and it has a slot. Never awaits a call, so that it can be stopped at any
moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from batchrank.engine.backlog import Backlog, Work
from batchrank.engine.caller import Caller
from batchrank.engine.committer import Committer
from batchrank.engine.feed import Fed, Feed
from batchrank.engine.purse import Purse
from batchrank.engine.routes import Route, Routes
from batchrank.engine.waiting import Bell, Brake, Slots, Stop
from batchrank.errors import BatchrankError, Exit
from batchrank.policy.budget import Allowance
from batchrank.policy.gate import Gate, Leave
from batchrank.policy.routing import Wait
from batchrank.policy.slicing import TooLargeError, within

STARTS = 8
"""So many calls start in one go: each round of the event loop costs as much as starting one."""

AHEAD = 4
"""Slots in use and waiting slices together are at most so many times the concurrency."""

PASSED_S_MIN, PASSED_S_MAX = 0.05, 5.0
"""For so long a group that waits for its model lets others pass, in seconds."""

ALLOWANCE_USED = "as many calls were made as were allowed (--max-calls)"


@dataclass(frozen=True, slots=True)
class Patience:
    """
    For how long nothing may succeed before the run leaves, by what is in the way.
    """

    outage_s_max: float
    throttled_s_max: float

    def left_s(self, gate: Gate, now: float) -> float:
        """
        For how much longer nothing may succeed.
        """
        return min(
            self.throttled_s_max - gate.throttled_s(now), self.outage_s_max - gate.unheard_s(now)
        )


class Dispatcher:
    """
    Sends, one after the other, until nothing is left or somebody pulls the brake.
    """

    def __init__(
        self,
        feed: Feed,
        caller: Caller,
        *,
        committer: Committer,
        backlog: Backlog,
        slots: Slots,
        bell: Bell,
        purse: Purse,
        allowance: Allowance,
        routes: Routes,
        brake: Brake,
        patience: Patience,
        clock: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._feed = feed
        self._caller = caller
        self._committer = committer
        self._backlog = backlog
        self._slots = slots
        self._bell = bell
        self._purse = purse
        self._allowance = allowance
        self._routes = routes
        self._brake = brake
        self._patience = patience
        self._left_out: Stop | None = None

    async def run(self, attempts: asyncio.TaskGroup) -> None:
        """
        Start attempts in the task group *attempts*.
        """
        started = 0
        while (work := await self._next()) is not None:
            self._caller.in_hand.add(work)  # an amnesty concerns it, too
            way = await self._way(work)
            if way is None:
                self._caller.in_hand.discard(work)
                continue
            route, probe = way
            self._slots.take(route.name)
            self._allowance.calls_left -= 1
            if probe:
                route.probe_sent(self._clock())
            work.of.sent(route.kind)
            attempts.create_task(self._caller.attempt(work, route, probe))
            started += 1
            if started % STARTS == 0:
                # The turn of replies that came meanwhile: calls that leave in large bursts come
                # home in bursts, and wait for each other at the ledger.
                await asyncio.sleep(0)
        if self._left_out is not None:
            self._brake.pull(self._left_out)

    async def _way(self, work: Work) -> tuple[Route, bool] | None:
        """
        Return when *work* may leave: by which route, and whether as a probe. None if it is not to
        leave, or not as it is: then what is left of it is in the backlog.
        """
        while (route := self._routes.open(work) or await self._route(work)) is not None:
            if self._allowance.calls_left < 1:
                await self._halt(Stop(ALLOWANCE_USED, Exit.PERSON))
            if stop := await self._purse.set_aside(work, route.price):
                await self._halt(stop)
            leave = await self._turn(work, route)
            if leave is not Leave.WAIT and not work.of.closed and not self._purse.is_late(work):
                return route, leave is Leave.PROBE
            self._put_back(work, route)
            if work.of.closed:
                return None
        return None

    # --- what is next -----------------------------------------------------------------------------

    async def _next(self) -> Work | None:
        """
        What has been due longest, else the source's next; None when nothing is left at all.
        """
        while True:
            if work := self._backlog.take(self._clock()):
                return work
            if self._may_read_on():
                await self._read_on()
            elif await self._is_over():
                return None

    def _may_read_on(self) -> bool:
        ahead = self._slots.in_use + len(self._backlog)
        return not self._feed.exhausted and ahead < AHEAD * self._routes.concurrency

    async def _read_on(self) -> None:
        fed = self._feed.next_group()
        if fed is not None:
            await self._take(fed)
            return
        try:
            batch = await self._feed.next_batch()
        except BatchrankError as error:
            # What was read before is good, and paid for: stop feeding, keep everything.
            await self._halt(Stop(error.message, error.exit_code, error=error))
        if batch is not None:
            self._committer.put_carried(batch.position, batch.rows, batch.carried)

    async def _take(self, fed: Fed) -> None:
        now = self._clock()
        for work in fed.works:
            self._backlog.put(work, now)
        if fed.outcome is not None:
            self._committer.put_outcome(fed.outcome)
            await self._committer.room()

    async def _is_over(self) -> bool:
        """
        Wait for something to become due; tell whether nothing ever will.
        """
        if self._slots.in_use == 0:
            self._backlog.forget_ended()
            if not self._backlog and self._feed.exhausted:
                return True
            if self._may_read_on():
                return False
            if self._backlog.only_suspended:
                self._caller.doubt()
                return False
        await self._bell.wait(self._backlog.next_due_at())
        return False

    # --- what must be true before it leaves -------------------------------------------------------

    async def _route(self, work: Work) -> Route | None:
        """
        Return when a route lets *work* through and has a slot for it; None if it is not to leave.
        """
        while True:
            now = self._clock()
            self._open_gates(now)
            choice = self._routes.choose(work.of.by, now)
            if isinstance(choice, Route):
                if not choice.is_calm:
                    await self._give_up_if_late(now)
                return None if self._cut(work, choice, now) else choice
            if choice is None:
                self._leave_out(work.of.by)
                return None
            if choice.full:
                self._committer.hurry()
                await self._bell.wait(choice.until)
            elif self._passes(work, choice, now):
                return None
            else:
                await self._give_up_if_late(now)
                await self._bell.wait(min(choice.until, now + self._patience_left_s(now)))

    def _open_gates(self, now: float) -> None:
        for route in self._routes:
            if not route.gate.is_calm and route.gate.opens_itself(now):
                self._caller.gate_opened(route)

    def _cut(self, work: Work, route: Route, now: float) -> bool:
        """
        Cut what is larger than *route* takes into what it does take; tell whether that was so.
        """
        group, request, bounds = work.of.group, work.request, route.capacity.bounds
        if bounds.surely_hold(request.query, request.documents):
            return False
        try:
            pieces = within(group, work.slice, bounds)
        except TooLargeError:
            return False  # it was not for the way that groups are cut for: this one has its say
        if len(pieces) < 2:
            return False
        work.of.waiting += len(pieces) - 1
        for request in pieces:
            # What was perhaps billed for the whole counts for each of its pieces.
            self._backlog.put(Work(work.of, request, work.history), now)
        return True

    def _passes(self, work: Work, wait: Wait, now: float) -> bool:
        """
        Let others pass what must wait for one kind of model while another could be asked.
        """
        if work.of.by is None or isinstance(self._routes.choose(None, now), Wait):
            return False
        if self._patience_left_s(now, work.of.by) <= 0:
            self._leave_out(work.of.by)
        else:
            self._backlog.put(work, now + max(PASSED_S_MIN, min(PASSED_S_MAX, wait.until - now)))
        return True

    def _leave_out(self, kind: str | None) -> None:
        """
        Leave to another run what only models of this *kind* may score: a person is needed if all
        routes to it are given up, for good or because their credit is spent.
        """
        there = [route for route in self._routes if kind in (None, route.kind)]
        if any(not route.is_closed for route in there):
            reason = f"groups are left that only {kind} may score, and it does not answer"
            self._left_out = Stop(reason, Exit.LATER)
            return
        why = next((route.why for route in there), "it is not there")
        self._left_out = Stop(f"groups are left that no other model may score: {why}", Exit.PERSON)

    async def _turn(self, work: Work, route: Route) -> Leave:
        """
        Return when its turn has come on *route*, with what the route says then: it may have shut
        while we waited for our turn.
        """
        if route.pacer.weighs_tokens:
            work.tokens = route.pacer.weigh(work.sizes)
        held = await route.pacer.admit(len(work.request.documents), work.tokens)
        now = self._clock()
        leave = route.leave(now)
        if leave is not Leave.WAIT:
            route.controller.sent(now, held)
        return leave

    def _patience_left_s(self, now: float, kind: str | None = None) -> float:
        """
        For how much longer nothing may succeed; as long as one route (to a model of that *kind*)
        has patience left, all have.
        """
        tried = (r.gate for r in self._routes if not r.is_closed and kind in (None, r.kind))
        return max((self._patience.left_s(gate, now) for gate in tried), default=0.0)

    async def _give_up_if_late(self, now: float) -> None:
        if self._patience_left_s(now) <= 0:
            gates = [route.gate for route in self._routes]
            trouble_s = max(max(gate.throttled_s(now), gate.unheard_s(now)) for gate in gates)
            why = "; ".join(filter(None, (gate.reason for gate in gates)))
            reason = f"nothing has succeeded for {trouble_s:.0f} s{f': {why}' if why else ''}"
            await self._halt(Stop(reason, Exit.LATER))

    async def _halt(self, stop: Stop) -> None:
        """
        Stop the job and never go on: pulling the brake ends the wait.
        """
        self._brake.pull(stop)
        await anyio.sleep_forever()

    def _put_back(self, work: Work, route: Route) -> None:
        """
        It does not leave after all: give back the money, and its place.
        """
        self._purse.give_back(work)
        route.pacer.give_back(len(work.request.documents), work.tokens)
