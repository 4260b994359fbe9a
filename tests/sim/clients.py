"""
Clients that send as the dispatcher does, over the real controller, gate and turnstile.

Owns the order of the waits (slot, gate, pace, gate again, send) and a diary of what came of them.
There is always something to send. Time is virtual: a client says until when it waits, `run` jumps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import NamedTuple

from batchrank.domain import FailureKind
from batchrank.policy.control import Controller, Heard
from batchrank.policy.gate import Leave
from batchrank.policy.pace import Turnstile
from batchrank.policy.rate import Mode
from tests.sim.servers import Answer, Server


@dataclass(slots=True)
class Diary:
    """
    What happened, by the second. *through_shut_gate* counts what must never happen.
    """

    seconds: int
    sent: list[int] = field(init=False)
    accepted: list[int] = field(init=False)
    throttled: list[int] = field(init=False)
    hold_at: float | None = None
    through_shut_gate: int = 0

    def __post_init__(self) -> None:
        self.sent = [0] * (self.seconds + 1)
        self.accepted = [0] * (self.seconds + 1)
        self.throttled = [0] * (self.seconds + 1)


class Sent(NamedTuple):
    """
    An attempt under way.
    """

    at: float
    probe: bool
    answer: Answer


class Client:
    """
    One process with a key. It waits until *wakes_at*, or for an answer if *listens*.
    """

    def __init__(
        self, controller: Controller, server: Server, chance: Random, seconds: int
    ) -> None:
        self.diary = Diary(seconds)
        self.controller = controller
        self.wakes_at = 0.0
        self.listens = False
        self._gate = controller.gate
        self._server = server
        self._chance = chance
        self._turnstile: Turnstile | None = None
        self._in_use = 0
        self._probing = False
        self._turn_at: float | None = None
        self._held = False

    def wake(self, now: float) -> Sent | None:
        """
        Go on as far as possible: to the next attempt, or to the next wait (None).
        """
        if self._turn_at is None:
            if self._in_use >= self.controller.concurrency:
                self._waits(inf, listens=True)
                return None
            self._gate.opens_itself(now)
            if self._gate.leave(now) is Leave.WAIT:
                self._waits(self._gate.wake_at(), listens=True)
                return None
            self._turn_at = self._admitted(now)
            self._held = self._turn_at > now
            if self._held:
                self._waits(self._turn_at, listens=False)
                return None
        self._turn_at = None
        leave = self._gate.leave(now)
        if leave is Leave.WAIT:  # it shut while we waited for our turn
            return self.wake(now)
        return self._sends(leave is Leave.PROBE, now)

    def _waits(self, until: float, *, listens: bool) -> None:
        self.wakes_at, self.listens = until, listens

    def _admitted(self, now: float) -> float:
        pace = self.controller.pace
        if pace is None:
            return now
        if self._turnstile is None:
            self._turnstile = Turnstile(pace)
        self._turnstile.pace = pace
        return self._turnstile.admit(1.0, now)

    def _sends(self, probe: bool, now: float) -> Sent:
        if self._gate.reason is not None and (not probe or self._probing):
            self.diary.through_shut_gate += 1
        if probe:
            self._gate.probe_sent()
            self._probing = True
        self._in_use += 1
        self.controller.sent(now, self._held)
        answer = self._server.answer(now)
        self.diary.sent[int(now)] += 1
        if answer.kind is None:
            self.diary.accepted[int(now)] += 1
        elif answer.status == 429:
            self.diary.throttled[int(now)] += 1
        return Sent(now, probe, answer)

    def came_home(self, sent: Sent, now: float) -> None:
        """
        Tell gate and controller, as the caller does.
        """
        answer, jitter = sent.answer, self._chance.random()
        if sent.probe:
            self._probing = False
        if answer.kind is None:
            self._gate.succeeded(sent.at, sent.probe)
        elif answer.kind is FailureKind.THROTTLED:
            self._gate.throttled(now, answer.hint_s, sent.probe, jitter)
        else:
            self._gate.failed(None, now, "no route", sent.probe, jitter)
        self._in_use -= 1
        self.controller.heard(
            Heard(answer.kind, answer.status, answer.hint_s, None, sent.at, now, sent.probe, jitter)
        )
        if self.diary.hold_at is None and self.controller.mode is Mode.HOLD:
            self.diary.hold_at = now


def run(clients: Sequence[tuple[float, Client]], seconds: float) -> None:
    """
    Let each client begin at its time, and all of them send until *seconds*.
    """
    numbers = count()
    due: list[tuple[float, int, Client, Sent | None]] = []
    for begins, client in clients:
        client.wakes_at = begins
        heappush(due, (begins, next(numbers), client, None))
    while due:
        now, _, client, sent = heappop(due)
        if now >= seconds:
            return
        if sent is not None:
            client.came_home(sent, now)
            if not client.listens:
                continue
        elif client.wakes_at != now:
            continue  # an answer woke it earlier
        client.listens = False
        while (sent := client.wake(now)) is not None:
            heappush(due, (now + sent.answer.after_s, next(numbers), client, sent))
        if client.wakes_at < inf:
            heappush(due, (client.wakes_at, next(numbers), client, None))
