"""
The engine with everything around it made of fakes, for tests on virtual time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ParamSpec, TypeVar

import anyio

from batchrank.domain import Group, Positions, Price, RateLimit
from batchrank.engine.caller import Clocks
from batchrank.engine.dispatcher import Patience
from batchrank.engine.feed import Past
from batchrank.engine.publisher import Ranges
from batchrank.engine.purse import Till
from batchrank.engine.routes import SERVED_MODEL, Route, kinds_of
from batchrank.engine.runner import Ending, Lanes, Plan, Ports, nothing_beforehand, run
from batchrank.engine.waiting import Lane, Pacer, Quotas, Stop, Turnstiles
from batchrank.policy.amounts import Amount
from batchrank.policy.budget import Allowance, Borrow, Budget, Full, SharedCaps, granted
from batchrank.policy.capacity import Bounds, Capacity
from batchrank.policy.pace import pace_of
from batchrank.policy.retry import Rules
from batchrank.policy.routing import Strategy
from batchrank.store.ledger import Ledger
from batchrank.store.reading import AUTHORISED, amount_of
from batchrank.testing import (
    FakeParts,
    FixedController,
    InlineLane,
    ListSource,
    RecordingReporter,
    ScriptedScorer,
    groups,
    run_virtually,
)
from tests.edges.ledgers import for_now

P = ParamSpec("P")
T = TypeVar("T")

PRICE = Price(usd_per_search_unit=0.001, as_of="2026-11-20")


@dataclass(frozen=True)
class SlowLane:
    """
    A lane on which everything takes *seconds*, such as commits to a disk that is busy.
    """

    seconds: float

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Wait, then call *function*.
        """
        await anyio.sleep(self.seconds)
        return function(*args, **kwargs)


@dataclass
class Way:
    """
    A route of a stage.
    """

    name: str
    scorer: ScriptedScorer = field(default_factory=ScriptedScorer)
    limit: RateLimit | None = None
    documents: RateLimit | None = None
    documents_max: int | None = None
    concurrency: int = 4
    kind: str = "model"
    price: Price = PRICE

    def route(self, now: Callable[[], float], meta: Mapping[str, Any]) -> Route:
        """
        The same for one run, with what the ledger's *meta* has of it.
        """
        controller = FixedController(pace_of(self.limit) if self.limit else None, self.concurrency)
        turnstiles = Turnstiles(Quotas(self.limit, self.documents))
        return Route(
            self.name,
            self.scorer,
            controller,
            Pacer(controller, turnstiles, now),
            Capacity(Bounds(self.documents_max, hundreds=True)),
            self.price,
            self.kind,
            meta.get(f"{SERVED_MODEL}.{self.name}"),
            f"{SERVED_MODEL}.{self.name}",
        )


@dataclass
class Stage:
    """
    One job and its surroundings; `run` may be called again and again, as a person would.
    """

    held: Sequence[Group] = field(default_factory=lambda: groups(20))
    scorer: ScriptedScorer = field(default_factory=ScriptedScorer)
    fallbacks: Sequence[Way] = ()
    strategy: Strategy = Strategy.FAILOVER
    concurrency: int = 4
    limit: RateLimit | None = None
    documents: RateLimit | None = None
    documents_max: int | None = None
    part_groups: int = 8
    target: int | None = None
    cap: int | None = None
    requests_max: int | None = None
    till: Till | None = None
    began_at: float = 1_790_000_000.0
    jump: Callable[[], float] = lambda: 0.0
    allowance: Allowance = field(default_factory=Allowance)
    outage_s_max: float = 1800.0
    throttled_s_max: float = 21_600.0
    drain_s_max: float = 25.0
    deadline_s: float | None = None
    can_split: bool = True
    proven: bool = True
    beforehand: Callable[[], Awaitable[Stop | None]] = nothing_beforehand
    interrupted: Callable[[], bool] = lambda: False
    seed: int = 0
    ledger: Ledger = field(default_factory=for_now)
    ledger_lane: Lane = field(default_factory=InlineLane)
    reporter: RecordingReporter = field(default_factory=RecordingReporter)
    parts: FakeParts = field(default_factory=FakeParts)

    def __post_init__(self) -> None:
        bounds = Bounds(self.documents_max, hundreds=True, splits=self.can_split)
        self.capacity = Capacity(bounds)
        self.source = ListSource(self.held)
        self.ledger.set_meta({"part_groups": self.part_groups})

    def run(self) -> Ending:
        """
        Run on virtual time, from wherever the ledger is.
        """
        return run_virtually(self.run_here)

    async def run_here(self) -> Ending:
        """
        Run on whatever loop this is.
        """
        total = len(self.held)
        ranges = Ranges(total, self.part_groups)
        published = {part.number: part for part in self.ledger.parts()}
        ports = self._ports()
        return await run(self._plan(total, ports), ports, self._done(total), ranges, published)

    def _done(self, total: int) -> Positions:
        return self.ledger.done(total)

    def _plan(self, total: int, ports: Ports) -> Plan:
        scored: dict[int, list[Any]] = {}
        for part in self.ledger.slices():
            scored.setdefault(part.slice.position, []).append(part)
        return Plan(
            target=total if self.target is None else self.target,
            past=Past(scored, self.ledger.sends(), kinds_of(ports.routes)),
            rules=Rules(self.throttled_s_max, self.can_split),
            patience=Patience(self.outage_s_max, self.throttled_s_max),
            drain_s_max=self.drain_s_max,
            strategy=self.strategy,
            deadline_s=self.deadline_s,
            signals=False,
            interrupted=self.interrupted,
            beforehand=self.beforehand,
        )

    def _ports(self) -> Ports:
        random, now = Random(self.seed), asyncio.get_running_loop().time
        lane = InlineLane()
        return Ports(
            source=self.source,
            routes=self._routes(now),
            ledger=self.ledger,
            publish=self.parts,
            reporter=self.reporter,
            clocks=Clocks(lambda: self.began_at + now() + self.jump(), random.random, now),
            lanes=Lanes(self.ledger_lane, lane, lane, lane),
            allowance=self.allowance,
            budget=Budget(
                Amount(self.cap or 2**62, self.requests_max or 2**62, 2**62),
                spent=Amount(self.spent),
                authorised=amount_of(AUTHORISED, self.ledger.meta()),
                days=None if self.till is None else {},
            ),
            till=self.till,
        )

    def _routes(self, now: Callable[[], float]) -> list[Route]:
        first = Way("first", self.scorer, self.limit, self.documents, concurrency=self.concurrency)
        meta = self.ledger.meta()
        routes = [way.route(now, meta) for way in (first, *self.fallbacks)]
        routes[0].capacity, routes[0].proven = self.capacity, self.proven
        return routes

    # --- what came of it --------------------------------------------------------------------------

    @property
    def spent(self) -> int:
        """
        What the ledger has booked, in 10^-9 USD.
        """
        tally = self.ledger.tally()
        return int(sum(v for name, v in tally.items() if name.startswith("cost_nano_usd.")))

    def ranked(self) -> list[int]:
        """
        The positions that have scores.
        """
        return [row.position for row in self.ledger.ranked(0, len(self.held))]

    def endings(self) -> list[int]:
        """
        Every position, as often as it has ended.
        """
        empties = self.ledger.connection.execute("SELECT position FROM empties").fetchall()
        return sorted([*self.ranked(), *self.ledger.rejected_positions(), *(p for (p,) in empties)])


@dataclass
class Drawer:
    """
    A till in memory, for one output and others that hold *elsewhere*. *told* is what it was asked.
    """

    caps: SharedCaps
    elsewhere: dict[str, Amount] = field(default_factory=dict)
    held: dict[str, Amount] = field(default_factory=dict)
    told: list[Borrow] = field(default_factory=list)
    where: str = "team.budget"

    def borrow(self, asked: Borrow, /) -> Amount | Full:
        """
        As the file decides.
        """
        self.told.append(asked)
        self.held |= asked.others
        month = asked.day[:7]
        day = self.elsewhere.get(asked.day, Amount())
        mine = (held for at, held in self.held.items() if at[:7] == month and at != asked.day)
        others = (held for at, held in self.elsewhere.items() if at[:7] == month)
        answer = granted(asked, self.caps, day, sum((*mine, *others), Amount()))
        if isinstance(answer, Amount):
            self.held[asked.day] = answer
        return answer
