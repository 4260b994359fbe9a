"""
Before the first paid call: what the vendor tells for nothing of the key, the model and itself.

Owns the wire to a vendor, for these questions and for the run, and what of the answers a person is
told. Only a clear no stops a job (`providers.told` says what is one); a vendor that does not answer
such questions, or not now, stops nobody. Pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from batchrank.domain import Price
from batchrank.engine.asking import ask
from batchrank.engine.scorer import shown
from batchrank.job.loading import Job
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


def checked(job: Job) -> Told:
    """
    Ask the vendor of *job* (loaded with its key), if it has one, from outside of any event loop.
    """
    return asyncio.run(_checked(job))


async def _checked(job: Job) -> Told:
    if job.vendor is None:
        return Told()
    wire, secret = wire_of(job)
    try:
        return await check_of(job, wire, secret)
    finally:
        await wire.aclose()


async def check_of(job: Job, wire: Wire, secret: Redacts) -> Told:
    """
    Ask the vendor of *job* over its *wire*.
    """
    assert job.vendor is not None
    return await check(job.vendor, job.settings(), job.price, wire, secret, time.time())


def as_told(job: Job, found: Told) -> Job:
    """
    *job* with as many documents in a request as the server takes, unless it wishes for less.
    """
    most, known = found.documents_max, job.config.provider
    if most is None:
        return job
    changes = {"documents_max": min(most, known.documents_max or most)}
    provider = known.model_copy(update=changes)
    return replace(job, config=job.config.model_copy(update={"provider": provider}))


def wire_of(job: Job) -> tuple[Wire, Redacts]:
    """
    The wire to the vendor of *job* with its key, if it has one, and who redacts that.
    """
    assert job.vendor is not None
    provider = job.config.provider
    carrier = HttpCarrier(
        connections_max=job.config.limits.concurrency_most,
        connect_timeout_s=provider.connect_timeout_s,
        timeout_s=provider.timeout_s,
    )
    return _keyed(carrier, job.key, job.options.keyed(job.vendor.key_header))


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


def refusal_of(job: Job, found: Told) -> str:
    """
    Why the job cannot be done, in one line; "" if nothing is known against it.
    """
    if not found.refused:
        return ""
    return f"{job.config.provider.name} says before the first call: {found.refused}"


def facts_of(job: Job, found: Told) -> tuple[str, ...]:
    """
    What else was told, for whoever wants to see all of it.
    """
    if job.vendor is None or found != Told():
        return found.facts
    return (f"{job.config.provider.name} tells nothing beforehand: the first call goes alone",)


def notes_of(job: Job, found: Told, least_usd: float | None) -> list[str]:
    """
    What a person should know before anything is paid; *least_usd* is what the rest costs at least.
    """
    name = job.config.provider.name
    notes = [f"{name}: {words}" for words in found.warnings]
    if found.left_usd is not None and least_usd is not None and found.left_usd < least_usd:
        notes.append(
            f"{name}: the key has ${found.left_usd:,.4f} left, and what is to be done costs"
            f" ${least_usd:,.4f} at least: the run stops where the credit ends"
        )
    if found.trouble:
        notes.append(f"{name} could not be asked beforehand: {'; '.join(found.trouble)}")
    return notes
