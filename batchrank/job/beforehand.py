"""
Before the first paid call of a run: what every way tells for nothing, and what follows from that.

Owns that a way which says a clear no is given up before it costs anything, and that the run stops
if none is left. What is asked, and what is a no, is told elsewhere (`job.checking`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from batchrank.engine.waiting import Stop
from batchrank.errors import Exit
from batchrank.events import Reporter
from batchrank.job.checking import NO_CHECK, documents_told, notes_of, refusal_of
from batchrank.job.opening import World
from batchrank.job.routes import Access
from batchrank.job.ways import Way
from batchrank.providers.told import Told


async def ask_beforehand(
    world: World, reporter: Reporter, ways: Sequence[Way], left: int
) -> Stop | None:
    """
    Ask all *ways* at once, and tell what a person should know: only once for runs that follow each
    other, and never if no group is *left* to be called for. Returns why nothing is to be sent.
    """
    if not left:
        return None
    new = [way for way in ways if way.ask is not None and way.reins.asked is None]
    await asyncio.gather(*map(_ask, new))
    for way in new:
        for note in notes_of(way.access, _told(way), _least_usd(way.access, left)):
            world.notice(note, reporter)
    return _drawn(world, reporter, ways)


async def _ask(way: Way) -> None:
    assert way.ask is not None
    way.reins.asked = await way.ask()


def _told(way: Way) -> Told:
    return Told() if way.ask is None else way.reins.asked or Told()


def _drawn(world: World, reporter: Reporter, ways: Sequence[Way]) -> Stop | None:
    refusals = []
    for way in ways:
        found = _told(way)
        if refused := refusal_of(way.access, found):
            refusals.append(refused)
            way.route.close(refused)
        elif most := documents_told(way.access, found):
            way.route.capacity.tell(most)
    if not refusals:
        return None
    world.notes.append(NO_CHECK)
    if len(refusals) == len(ways):
        return Stop(refusals[0], Exit.PERSON)
    for refused in refusals:
        world.notice(f"a way is given up: {refused}", reporter)
    return None


def _least_usd(way: Access, left: int) -> float | None:
    """
    What so many groups cost at least: a search unit each, if that is how it is billed. Texts are
    not looked at for this: `plan --check` does.
    """
    price = way.price
    if price is None or price.usd_per_search_unit is None:
        return None
    return left * price.usd_per_search_unit
