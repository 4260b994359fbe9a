"""
Before the first paid call: what the vendor tells for nothing of the key, the model and itself.

Owns the wire to a vendor, for these questions and for the run, and what of the answers a person is
told. Only a clear no stops a job (`providers.told` says what is one); a vendor that does not answer
such questions, or not now, stops nobody. Pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from batchrank.domain import Price
from batchrank.engine.asking import ask
from batchrank.engine.scorer import shown
from batchrank.job.ways import Way
from batchrank.providers.base import KeyHeader, Settings, Vendor
from batchrank.providers.told import Told, questions, together, told
from batchrank.wire.auth import Anonymous, Bearer, Redacts, Secret
from batchrank.wire.carrier import Carrier
from batchrank.wire.exchange import Wire
from batchrank.wire.renewing import Renewable, Renewing
from batchrank.wire.transport import HttpCarrier

NO_CHECK = "if that is not so, provider.check = false asks nothing beforehand"
"""What to do about a refusal that is mistaken."""


async def check(
    vendor: Vendor,
    settings: Settings,
    price: Price | None,
    wire: Wire,
    secret: Redacts,
    now_epoch_s: float,
) -> Told:
    """
    Ask one vendor what it tells for nothing, and say what that comes to: its words without the key.
    """
    calls = questions(vendor.checks, settings)
    came = await ask(wire, calls)
    answers = [
        told(each, reply, settings, price, now_epoch_s)
        for each, reply in zip(vendor.checks, came, strict=False)  # no calls, no answers
    ]
    return together(answers, settings.model).reworded(lambda words: shown(words, secret))


@dataclass(frozen=True, slots=True)
class Answers:
    """
    What *ways* tell for nothing: *found*, in the same order.
    """

    ways: Sequence[Way]
    found: Sequence[Told]

    @property
    def as_told(self) -> tuple[Way, ...]:
        """
        The ways with what they say of themselves.
        """
        return tuple(map(as_told, self.ways, self.found))

    @property
    def refusals(self) -> list[str]:
        """
        Why each way is of no use; "" for one that nothing is known against.
        """
        return [*map(refusal_of, self.ways, self.found)]

    @property
    def refused(self) -> str:
        """
        Why nothing can be done, in one line; "" as long as nothing is known against one of them.
        """
        return self.refusals[0] if all(self.refusals) else ""

    def facts(self) -> Iterator[str]:
        """
        What was told, for whoever wants to see all of it.
        """
        for way, found in zip(self.ways, self.found, strict=True):
            named = "" if len(self.ways) == 1 or found == Told() else f"{way.name}: "
            yield from (f"{named}{fact}" for fact in facts_of(way, found))

    def notes(self, least_usd: float | None) -> Iterator[str]:
        """
        What a person should know; *least_usd* is what there is to do costs at least.
        """
        for way, found, refusal in zip(self.ways, self.found, self.refusals, strict=True):
            yield from notes_of(way, found, least_usd)
            if refusal and not self.refused:
                yield refusal


def checked(ways: Sequence[Way]) -> Answers:
    """
    Ask the vendors of *ways* (with their keys), as far as they have any, from outside of any event
    loop.
    """

    async def asked() -> list[Told]:
        return await asyncio.gather(*map(_checked, ways))

    return Answers(ways, asyncio.run(asked()))


def unchecked(ways: Sequence[Way]) -> Answers:
    """
    What is known of *ways* where nobody is asked.
    """
    return Answers(ways, [Told()] * len(ways))


async def _checked(way: Way) -> Told:
    if way.vendor is None:
        return Told()
    wire, secret = wire_of(way)
    try:
        return await check_of(way, wire, secret)
    finally:
        await wire.aclose()


async def check_of(way: Way, wire: Wire, secret: Redacts) -> Told:
    """
    Ask the vendor of *way* over its *wire*.
    """
    assert way.vendor is not None
    return await check(way.vendor, way.settings(), way.price, wire, secret, time.time())


def documents_told(way: Way, found: Told) -> int | None:
    """
    How many documents the server takes in a request, unless the job wishes for less; None if it
    does not tell.
    """
    most = found.documents_max
    return None if most is None else min(most, way.table.documents_max or most)


def as_told(way: Way, found: Told) -> Way:
    """
    *way* with as many documents in a request.
    """
    most = documents_told(way, found)
    if most is None:
        return way
    return replace(way, table=way.table.model_copy(update={"documents_max": most}))


def wire_of(way: Way) -> tuple[Wire, Redacts]:
    """
    The wire to the vendor of *way* with its key, if it has one, and who redacts that.
    """
    assert way.vendor is not None
    carrier = HttpCarrier(
        connections_max=way.limits.concurrency_most,
        connect_timeout_s=way.table.connect_timeout_s,
        timeout_s=way.table.timeout_s,
    )
    return _keyed(carrier, way.key, way.options.keyed(way.vendor.key_header))


def _keyed(
    carrier: Carrier, key: Secret | Renewable | None, header: KeyHeader
) -> tuple[Wire, Redacts]:
    match key:
        case None:
            return Wire(carrier, Anonymous()), Anonymous()
        case Secret():
            return Wire(carrier, Bearer(key, header)), key
    renewing = Renewing(carrier, key)
    return Wire(renewing, renewing), key


# --- what a person is told ------------------------------------------------------------------------


def refusal_of(way: Way, found: Told) -> str:
    """
    Why *way* is of no use, in one line; "" if nothing is known against it.
    """
    if not found.refused:
        return ""
    return f"{way.name} says before the first call: {found.refused}"


def facts_of(way: Way, found: Told) -> tuple[str, ...]:
    """
    What else was told, for whoever wants to see all of it.
    """
    if way.vendor is None or found != Told():
        return found.facts
    return (f"{way.name} tells nothing beforehand: the first call goes alone",)


def notes_of(way: Way, found: Told, least_usd: float | None) -> list[str]:
    """
    What a person should know before anything is paid; *least_usd* is what the rest costs at least.
    """
    name = way.name
    notes = [f"{name}: {words}" for words in found.warnings]
    if found.left_usd is not None and least_usd is not None and found.left_usd < least_usd:
        notes.append(
            f"{name}: the key has ${found.left_usd:,.4f} left, and what is to be done costs"
            f" ${least_usd:,.4f} at least: the run stops where the credit ends"
        )
    if found.trouble:
        notes.append(f"{name} could not be asked beforehand: {'; '.join(found.trouble)}")
    return notes
