"""
What leaves next, and when: the task that feeds, waits for slot, gate, money and pace, and sends.

Owns the order of these waits, and the bound on what is read ahead: slots in use plus what waits is
at most 4 x concurrency, beyond that the source is not read. It never awaits a call, so that it can
be stopped at any moment.
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
from batchrank.engine.waiting import Bell, Brake, Pacer, Slots, Stop
from batchrank.errors import BatchrankError, Exit
from batchrank.policy.budget import Allowance
from batchrank.policy.control import Controller
from batchrank.policy.gate import Gate, Leave

STARTS = 8
"""So many calls start in one go: each round of the event loop costs as much as starting one."""

AHEAD = 4
"""Slots in use and waiting slices together are at most so many times the concurrency."""


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
        controller: Controller,
        pacer: Pacer,
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
        self._gate = controller.gate
        self._purse = purse
        self._allowance = allowance
        self._controller = controller
        self._pacer = pacer
        self._brake = brake
        self._patience = patience

    async def run(self, attempts: asyncio.TaskGroup) -> None:
        """
        Start attempts in the task group *attempts*.
        """
        started = 0
        while (work := await self._next()) is not None:
            self._caller.in_hand.add(work)  # an amnesty concerns it, too
            if self._slots.in_use >= self._controller.concurrency:
                await self._slot()
            if self._allowance.calls_left < 1:
                await self._halt(Stop(ALLOWANCE_USED, Exit.PERSON))
            if stop := await self._purse.set_aside(work):
                await self._halt(stop)
            probe = await self._leave(work)
            if work.of.closed or self._purse.is_late(work):
                self._put_back(work)
                continue
            self._slots.take()
            self._allowance.calls_left -= 1
            if probe:
                self._gate.probe_sent()
            attempts.create_task(self._caller.attempt(work, probe))
            started += 1
            if started % STARTS == 0:
                # The turn of replies that came meanwhile: calls that leave in large bursts come
                # home in bursts, and wait for each other at the ledger.
                await asyncio.sleep(0)

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
        return not self._feed.exhausted and ahead < AHEAD * self._controller.concurrency

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
            if not self._backlog and self._feed.exhausted:
                return True
            if self._backlog.only_suspended:
                self._caller.doubt()
                return False
        await self._bell.wait(self._backlog.next_due_at())
        return False

    # --- what must be true before it leaves -------------------------------------------------------

    async def _slot(self) -> None:
        while self._slots.in_use >= self._controller.concurrency:
            self._committer.hurry()
            await self._bell.wait()

    async def _leave(self, work: Work) -> bool:
        """
        Return when the gate lets it through and its turn has come; tell whether it is a probe.
        """
        while True:
            if not self._gate.is_calm:
                await self._gate_open()
            if self._pacer.weighs_tokens:
                work.tokens = self._pacer.weigh(work.sizes)
            held = await self._pacer.admit(len(work.request.documents), work.tokens)
            # It may have shut while we waited for our turn.
            now = self._clock()
            leave = self._gate.leave(now)
            if leave is not Leave.WAIT:
                self._controller.sent(now, held)
                return leave is Leave.PROBE
            self._give_back(work)

    async def _gate_open(self) -> None:
        while not self._gate.is_calm:
            now = self._clock()
            await self._give_up_if_late(now)
            if self._gate.opens_itself(now):
                self._caller.gate_opened()
            if self._gate.leave(now) is not Leave.WAIT:
                return
            await self._bell.wait(
                min(self._gate.wake_at(), now + self._patience.left_s(self._gate, now))
            )

    async def _give_up_if_late(self, now: float) -> None:
        if self._patience.left_s(self._gate, now) <= 0:
            trouble_s = max(self._gate.throttled_s(now), self._gate.unheard_s(now))
            why = f": {self._gate.reason}" if self._gate.reason else ""
            reason = f"nothing has succeeded for {trouble_s:.0f} s{why}"
            await self._halt(Stop(reason, Exit.LATER))

    async def _halt(self, stop: Stop) -> None:
        """
        Stop the job and never go on: pulling the brake ends the wait.
        """
        self._brake.pull(stop)
        await anyio.sleep_forever()

    def _put_back(self, work: Work) -> None:
        """
        Its group was rejected while it waited here, or the day passed that its money was of: give
        back the money, and its place.
        """
        self._caller.in_hand.discard(work)
        self._purse.give_back(work)
        self._give_back(work)
        self._backlog.put(work, self._clock())

    def _give_back(self, work: Work) -> None:
        self._pacer.give_back(len(work.request.documents), work.tokens)
