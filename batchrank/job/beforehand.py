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
from batchrank.job.checking import NO_CHECK, Answers, documents_told, notes_of
from batchrank.job.ways import Way
from batchrank.job.wiring import Wired
from batchrank.job.world import World
from batchrank.providers.told import Told


async def ask_beforehand(
    world: World, reporter: Reporter, ways: Sequence[Wired], left: int
) -> Stop | None:
    """
    Ask all *ways* at once, and tell what a person should know: only once for runs that follow each
    other, and never if no group is *left* to be called for. Returns why nothing is to be sent.
    """
    if not left:
        return None
    new = [each for each in ways if each.ask is not None and each.reins.told is None]
    await asyncio.gather(*map(_ask, new))
    for each in new:
        for note in notes_of(each.way, _told(each), _least_usd(each.way, left)):
            world.notice(note, reporter)
    return _concluded(world, reporter, ways)


async def _ask(each: Wired) -> None:
    assert each.ask is not None
    each.reins.told = await each.ask()


def _told(each: Wired) -> Told:
    return Told() if each.ask is None else each.reins.told or Told()


def _concluded(world: World, reporter: Reporter, ways: Sequence[Wired]) -> Stop | None:
    answers = Answers([each.way for each in ways], [_told(each) for each in ways])
    for each, found, refusal in zip(ways, answers.found, answers.refusals, strict=True):
        if refusal:
            each.route.close(refusal)
        elif most := documents_told(each.way, found):
            each.route.capacity.tell(most)
    refusals = [*filter(None, answers.refusals)]
    if refusals:
        world.notes.append(NO_CHECK)
    if answers.refused:
        return Stop(answers.refused, Exit.PERSON)
    for refusal in refusals:
        world.notice(f"a way is given up: {refusal}", reporter)
    return None


def _least_usd(way: Way, left: int) -> float | None:
    """
    What so many groups cost at least: a search unit each, if that is how it is billed. Texts are
    not looked at for this: `plan --check` does.
    """
    price = way.price
    if price is None or price.usd_per_search_unit is None:
        return None
    return left * price.usd_per_search_unit
