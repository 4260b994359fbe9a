"""
Clients that send as the dispatcher does, over the real controller, gate and turnstile.

Owns the order of the waits (slot, gate, pace, gate again, send) and a diary of what came of them.
There is always something to send. Time is virtual: a client says until when it waits, `run` jumps.

Millions of requests pass here, so attempts are plain tuples, and only answers lie in the heap: a
client has one wait at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random

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


@dataclass(frozen=True, slots=True)
class Timers:
    """
    How late a client leaves that waited for its turn: *least_s* after it began to wait at least,
    and *late_s* after that.
    """

    least_s: float
    late_s: float


PUNCTUAL = Timers(0.0, 0.0)


class UnderWay:
    """
    The attempts that nobody has answered yet, the next one to end first.
    """

    def __init__(self) -> None:
        # Ends when, a number that breaks ties, whose, left when, is a probe, is answered what.
        self.heap: list[tuple[float, int, Client, float, bool, Answer]] = []
        self._numbers = count()

    def add(self, client: Client, sent_at: float, probe: bool, after_s: float, to: Answer) -> None:
        """
        One more has left; it ends *after_s* later.
        """
        heappush(self.heap, (sent_at + after_s, next(self._numbers), client, sent_at, probe, to))


class Client:
    """
    One process with a key. It waits until *wakes_at*, or for an answer if *listens*.
    """

    def __init__(
        self,
        controller: Controller,
        server: Server,
        under_way: UnderWay,
        chance: Random,
        seconds: int,
        timers: Timers,
    ) -> None:
        self.diary = Diary(seconds)
        self.controller = controller
        self.wakes_at = 0.0
        self.listens = False
        self._gate = controller.gate
        self._server = server
        self._under_way = under_way
        self._draw = chance.random
        self._least_s, self._late_s = timers.least_s, timers.late_s
        self._turnstile: Turnstile | None = None
        self._in_use = 0
        self._probing = False
        self._has_turn = False

    def wake(self, now: float) -> None:
        """
        Go on as far as possible: until it has to wait.
        """
        self.listens = False
        while True:
            held = self._has_turn
            if not held and not self._gets_turn(now):
                return
            self._has_turn = False
            leave = self._gate.leave(now)
            if leave is not Leave.WAIT:  # it may have shut while we waited for our turn
                self._sends(leave is Leave.PROBE, held, now)

    def _gets_turn(self, now: float) -> bool:
        """
        Pass slot, gate and pace, or say until when to wait for the first that is in the way.
        """
        if self._in_use >= self.controller.concurrency:
            self.wakes_at, self.listens = inf, True
            return False
        if not self._gate.is_calm:
            self._gate.opens_itself(now)
            if self._gate.leave(now) is Leave.WAIT:
                self.wakes_at, self.listens = self._gate.wake_at(), True
                return False
        turn_at = self._admitted(now)
        if turn_at <= now:
            return True
        self.wakes_at = max(turn_at, now + self._least_s) + self._late_s
        self._has_turn = True
        return False

    def _admitted(self, now: float) -> float:
        pace = self.controller.pace
        if pace is None:
            return now
        if self._turnstile is None:
            self._turnstile = Turnstile(pace)
        self._turnstile.pace = pace
        return self._turnstile.admit(1.0, now)

    def _sends(self, probe: bool, held: bool, now: float) -> None:
        if self._gate.reason is not None and (not probe or self._probing):
            self.diary.through_shut_gate += 1
        if probe:
            self._gate.probe_sent()
            self._probing = True
        self._in_use += 1
        self.controller.sent(now, held)
        after_s, answer = self._server.answer(now)
        diary, second = self.diary, int(now)
        diary.sent[second] += 1
        if answer.kind is None:
            diary.accepted[second] += 1
        elif answer.status == 429:
            diary.throttled[second] += 1
        self._under_way.add(self, now, probe, after_s, answer)

    def came_home(self, now: float, sent_at: float, probe: bool, answer: Answer) -> None:
        """
        Tell gate and controller, as the caller does.
        """
        kind, status, hint_s = answer
        jitter = self._draw()
        if probe:
            self._probing = False
        if kind is None:
            self._gate.succeeded(sent_at, probe)
        elif kind is FailureKind.THROTTLED:
            self._gate.throttled(now, hint_s, probe, jitter)
        else:
            self._gate.failed(None, now, "no route", probe, jitter)
        self._in_use -= 1
        self.controller.heard(Heard(kind, status, hint_s, None, sent_at, now, probe, jitter))
        if self.diary.hold_at is None and self.controller.mode is Mode.HOLD:
            self.diary.hold_at = now


def run(clients: Sequence[Client], under_way: UnderWay, seconds: float) -> None:
    """
    Let each client begin when it wakes, and all of them send until *seconds*.
    """
    heap = under_way.heap
    while True:
        waking = clients[0]
        for client in clients:
            if client.wakes_at < waking.wakes_at:
                waking = client
        now = waking.wakes_at
        if heap and heap[0][0] <= now:
            now, _, client, sent_at, probe, answer = heappop(heap)
            if now >= seconds:
                return
            client.came_home(now, sent_at, probe, answer)
            if client.listens:
                client.wake(now)
        elif now >= seconds:
            return
        else:
            waking.wake(now)
