"""
From the ways that a job names to routes that the engine can take: scorers, wires, keys, pacers.

Owns which concrete scorer and wire a route is made of, and what the ledger keeps of it. Decides
nothing about which is taken.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from batchrank.engine.routes import Route
from batchrank.engine.scorer import HttpScorer, Scorer
from batchrank.engine.waiting import Pacer, Turnstiles
from batchrank.job.checking import check_of, wire_of
from batchrank.job.steering import Reins, Steering, capacity_for
from batchrank.job.ways import Way, kinds, served_key
from batchrank.job.world import World
from batchrank.providers.told import Told

Close = Callable[[], Awaitable[None]]
"""Lets go of a route's connections."""

Ask = Callable[[], Awaitable[Told]]
"""Asks a vendor what it tells for nothing."""


@dataclass(frozen=True, slots=True)
class Wired:
    """
    What a job names, and the route that it is for the engine. *ask* is None where nobody is there
    to be asked beforehand.
    """

    way: Way
    reins: Reins
    route: Route
    ask: Ask | None


def wired(world: World, steering: Steering, now: Callable[[], float]) -> tuple[list[Wired], Close]:
    """
    The ways of a run on the event loop whose clock is *now*, and how to let go of them.
    """
    job, meta, at = world.job, world.ledger.meta(), datetime.now(UTC)
    ways: list[Wired] = []
    closing: list[Close] = []
    for place, (way, kind) in enumerate(zip(job.ways, kinds(job.ways), strict=True)):
        reins, key = steering.of_way(job, way, at), served_key(way, place)
        scorer, ask = _scorer(way, job.base, reins.turnstiles, closing)
        route = Route(
            way.name,
            scorer,
            reins.controller,
            Pacer(reins.controller, reins.turnstiles, now),
            capacity_for(job, way, at),
            price=way.price,
            kind=kind,
            served=meta.get(key),
            served_key=key,
        )
        # Key and model gave scores of late: to this job, or to a run before it.
        route.proven = way.vendor is None or reins.proven or route.served is not None
        ways.append(Wired(way, reins, route, ask if way.table.check else None))
    return ways, lambda: _close(closing)


def _scorer(
    way: Way, base: Path, turnstiles: Turnstiles, closing: list[Close]
) -> tuple[Scorer, Ask | None]:
    """
    Who scores on *way*, and what can be asked there beforehand; how to let go of it is put to
    *closing*. Paths are relative to *base*.
    """
    if way.in_process is not None:
        local, close = way.in_process.make(way.table, base)
        closing.append(close)
        return local, None
    assert way.vendor is not None
    wire, secret = wire_of(way)
    closing.append(wire.aclose)
    made = way.vendor.make(way.settings())
    scorer = HttpScorer(made, wire, secret, time.time, turnstiles.one_more)
    return scorer, partial(check_of, way, wire, secret)


async def _close(closing: Sequence[Close]) -> None:
    for close in closing:
        await close()
