"""
From the ways that a job names to routes that the engine can take: scorers, wires, keys, pacers.

Owns which concrete scorer and wire a route is made of, and what the ledger keeps of it. Decides
nothing about which is taken.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from batchrank.engine.routes import Route
from batchrank.engine.scorer import HttpScorer, Scorer
from batchrank.engine.waiting import Pacer
from batchrank.job.opening import World
from batchrank.job.routes import Access, kinds, served_key
from batchrank.job.steering import Steering
from batchrank.local.lexical import LexicalScorer
from batchrank.wire.auth import Anonymous, Bearer
from batchrank.wire.exchange import Wire
from batchrank.wire.transport import HttpCarrier

Close = Callable[[], Awaitable[None]]
"""Lets go of a route's connections."""


def ways_in(
    world: World, steering: Steering, now: Callable[[], float]
) -> tuple[list[Route], Close]:
    """
    The routes of a run on the event loop whose clock is *now*, and how to let go of them.
    """
    job, meta = world.job, world.ledger.meta()
    routes: list[Route] = []
    closing: list[Close] = []
    for place, (way, kind) in enumerate(zip(job.routes, kinds(job.routes), strict=True)):
        reins, key = steering.of_way(job, way, datetime.now(UTC)), served_key(way, place)
        scorer = _scorer(way, job.sent_top_n, closing)
        pacer = Pacer(reins.controller, reins.turnstiles, now)
        served = meta.get(key)
        routes.append(
            Route(
                way.name,
                scorer,
                reins.controller,
                pacer,
                way.price,
                kind,
                way.documents_max,
                served,
                key,
            )
        )
    return routes, lambda: _close(closing)


def _scorer(way: Access, top_n: int | None, closing: list[Close]) -> Scorer:
    """
    Who is asked on *way*; how to let go of it is put to *closing*.
    """
    if way.vendor is None:
        return LexicalScorer()
    carrier = HttpCarrier(
        connections_max=way.limits.concurrency_most,
        connect_timeout_s=way.table.connect_timeout_s,
        timeout_s=way.table.timeout_s,
    )
    header = way.options.keyed(way.vendor.key_header)
    auth = Bearer(way.key, header) if way.key else Anonymous()
    wire = Wire(carrier, auth)
    closing.append(wire.aclose)
    return HttpScorer(way.vendor.make(way.settings(top_n)), wire, auth, time.time)


async def _close(closing: Sequence[Close]) -> None:
    for close in closing:
        await close()
