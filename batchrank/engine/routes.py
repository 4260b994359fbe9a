"""
The routes of a run: ways to ask, each with its own limits, gate and price, and which is taken now.

Owns what a route is made of, that it is given up for good or until its credit is back, and what a
group that has scores of one kind of model may still be asked of. Owns, too, that the first call on
a route goes alone: a wrong key or model costs one call. The choice itself is `policy.routing`'s.
Waits for nobody and sends nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from batchrank.domain import Price
from batchrank.engine.backlog import Work
from batchrank.engine.scorer import Scorer
from batchrank.engine.waiting import Pacer, Slots
from batchrank.policy.capacity import Capacity
from batchrank.policy.control import Controller
from batchrank.policy.gate import Gate, Leave
from batchrank.policy.routing import SPENT_PROBE_S, Strategy, View, Wait, choose

SERVED_MODEL = "served_model"
"""The ledger's word for the model that serves the first route."""


@dataclass(slots=True)
class _Closed:
    """
    Nobody takes the route: until a probe succeeds, which leaves at *probe_at* (infinity: never).
    """

    reason: str
    probe_at: float
    probing: bool = False


@dataclass(slots=True, eq=False)
class Route:
    """
    One way to ask.

    Attributes:
        name: what people and the ledger call it.
        kind: the model as all routes to it call it: only those of one kind may share a group.
        capacity: what one request of it may hold, and what it has learned of that.
        served: the model that its first reply has named, None before that.
        served_key: what the ledger keeps that under.
        proven: key and model are known to give scores; else one call goes alone, until one has.
        rejected_in_a_row: groups that it has refused since it scored one.
    """

    name: str
    scorer: Scorer
    controller: Controller
    pacer: Pacer
    capacity: Capacity
    price: Price | None = None
    kind: str = ""
    served: str | None = None
    served_key: str = SERVED_MODEL
    proven: bool = field(default=True, init=False)
    rejected_in_a_row: int = field(default=0, init=False)
    gate: Gate = field(init=False)
    closed: _Closed | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.gate = self.controller.gate

    @property
    def is_calm(self) -> bool:
        """
        Tell whether everybody may take it, and nothing is in the way.
        """
        return self.closed is None and self.gate.is_calm

    @property
    def is_closed(self) -> bool:
        """
        Tell whether it was given up, for good or until its credit is back.
        """
        return self.closed is not None

    @property
    def is_gone(self) -> bool:
        """
        Tell whether it was given up for good.
        """
        return self.closed is not None and self.closed.probe_at == inf

    @property
    def why(self) -> str:
        """
        Why it is not taken, in a person's words; "" while it is.
        """
        return self.closed.reason if self.closed else self.gate.reason or ""

    @property
    def concurrency(self) -> int:
        """
        How many attempts may be under way there now.
        """
        return self.controller.concurrency if self.proven else 1

    @property
    def per_s(self) -> float | None:
        """
        How fast it is asked now, in 1/s; None is as fast as its slots allow.
        """
        pace = self.controller.pace
        return pace.rate if pace else None

    def leave(self, now: float) -> Leave:
        """
        May somebody take it at *now*? A PROBE must be announced with `probe_sent`.
        """
        closed, gates = self.closed, self.gate.leave(now)
        if closed is None or gates is Leave.WAIT:
            return gates
        return Leave.WAIT if closed.probing or now < closed.probe_at else Leave.PROBE

    def probe_sent(self, now: float) -> None:
        """
        The one probe is on its way.
        """
        if self.closed is not None:
            self.closed.probing = True
        if self.gate.leave(now) is Leave.PROBE:
            self.gate.probe_sent()

    def close(self, reason: str, probe_at: float = inf) -> bool:
        """
        Give it up, for good or until it is probed at *probe_at*; tell whether that is news.
        """
        news = self.closed is None or (probe_at == inf and not self.is_gone)
        if news:
            self.closed = _Closed(reason, probe_at)
        return news

    def probed(self, now: float, *, scored: bool) -> bool:
        """
        A probe came home; tell whether that brings back a route that was given up.
        """
        if self.closed is None:
            return False
        self.closed.probing = False
        if scored:
            self.closed = None
            return True
        if not self.is_gone:
            self.closed.probe_at = now + SPENT_PROBE_S
        return False

    def view(self, now: float, *, room: bool) -> View | None:
        """
        What the choice is made by; None if it is not to be taken any more.
        """
        if self.is_gone:
            return None
        leave, gate = self.leave(now), self.gate
        ready_at = self.pacer.ready_at(now)
        if self.closed is not None:
            wake_at = inf if self.closed.probing else max(self.closed.probe_at, gate.wake_at())
            return View(leave, -inf, wake_at, room, ready_at)
        return View(leave, gate.away_at(), gate.wake_at(), room, ready_at)


def kinds_of(routes: Sequence[Route]) -> dict[str, str]:
    """
    Of what kind the models are that have served so far; nothing where all routes lead to one.
    """
    if len({route.kind for route in routes}) < 2:
        return {}
    return {route.served: route.kind for route in routes if route.served is not None}


class Routes:
    """
    All routes of a run, in the order in which a chain takes them.
    """

    def __init__(self, held: Sequence[Route], strategy: Strategy, slots: Slots) -> None:
        self._held = held
        self._strategy = strategy
        self._slots = slots
        self._first = held[0]
        self._chain = strategy is Strategy.FAILOVER or len(held) == 1

    def __iter__(self) -> Iterator[Route]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def concurrency(self) -> int:
        """
        How many attempts may be under way, on all routes that are not given up.
        """
        return sum(route.concurrency for route in self._held if not route.is_gone)

    def has_room(self, route: Route) -> bool:
        """
        Tell whether one more attempt may be under way there.
        """
        return self._slots.of(route.name) < route.concurrency

    def open(self, work: Work) -> Route | None:
        """
        The first route of a chain, if nothing at all is in the way of *work* there: then there is
        nothing to choose, which is so for nearly every request.
        """
        first = self._first
        if not self._chain or first.closed is not None or not first.gate.is_calm:
            return None
        if work.of.by is not None and work.of.by != first.kind:
            return None
        return first if self.has_room(first) else None

    def choose(self, kind: str | None, now: float) -> Route | Wait | None:
        """
        The route that a request for a model of this *kind* (None: any) takes now; None if there is
        none left for it in this run.
        """
        views = [
            route.view(now, room=self.has_room(route)) if kind in (None, route.kind) else None
            for route in self._held
        ]
        if all(view is None for view in views):
            return None
        choice = choose(views, self._strategy, now)
        return choice if isinstance(choice, Wait) else self._held[choice]
