"""
The whole job against the embedded server: no key, no cost, the job's own limits.

Owns the folders of a rehearsal, which are made anew each time and have nothing to do with the real
output or its state, the server that stands for each of the job's ways, and the comparison of our
account with theirs.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchrank.config.schema import BudgetTable, RouteTable
from batchrank.domain import Price
from batchrank.errors import JobError, Problem
from batchrank.events import Reporter
from batchrank.job import Job
from batchrank.job import run as run_job
from batchrank.job.ways import Way, kinds
from batchrank.observe.report import Summary
from batchrank.operate.serve import options, read, server
from batchrank.policy.billing import in_usd
from batchrank.providers import OPENROUTER
from batchrank.wire.auth import Secret

LATENCY = "lognormal:0.15,0.4"
"""Seconds, median and 95th percentile: what hosted rerankers take for some dozens of documents."""


SHARED = ("shared", "day_", "month_")
"""How the settings begin of what jobs spend together."""


NEXT = "`batchrank run` begins anew, with the real provider: nothing of a rehearsal counts there"
"""Who means to carry on a rehearsal would pay for all of it."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """
    How the rehearsal went: our summary, and what the *servers* saw and would have charged, by the
    way that each stood for. *priced* are the ways of which a price is known.
    """

    summary: Summary
    servers: Mapping[str, dict[str, Any]]
    priced: frozenset[str]

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        several = len(self.servers) > 1
        lines = (
            f"server   {f'{name}: ' if several else ''}{self._seen(name)}" for name in self.servers
        )
        return "\n".join((self.summary.as_text(goes_on=False), *lines, f"next     {NEXT}"))

    def _seen(self, name: str) -> str:
        seen = self.servers[name]
        owed = in_usd(sum(account["nano_usd"] for account in seen["bill"].values()))
        unknown = "no price is known: state it in [provider.price]"
        bill = f"${owed:,.4f}" if name in self.priced else unknown
        refused = seen["limit_refusals"]
        calls = f"saw {seen['calls']:,} calls, billed {seen['billed_calls']:,} ({bill})"
        return (
            f"{calls}, refused {refused:,} for its limit, {seen['in_flight_max']} at once at most"
        )


def rehearse(
    job: Job,
    dials: Mapping[str, object],
    *,
    faults: Sequence[str] = (),
    limit: int | None = None,
    listeners: Sequence[Reporter] = (),
) -> Rehearsal:
    """
    Run *job* (loaded without its keys) against servers, one for each way, that have its limits and
    its price.

    *dials* are turned beyond that on all of them, and *faults* happen on the first way's alone, so
    that others take over; both are written as for `batchrank serve`.

    Raises:
        JobError: a dial is wrong, or the scorer is in process and there is nothing to rehearse.
        BatchrankError: as a run of the job would.
    """
    if job.vendor is None:
        problem = Problem(0, "provider.name", "needs no server: there is nothing to rehearse")
        raise JobError(str(job.file), [problem], "run it: it costs nothing")
    turned = [{**_as_the_job_says(way), **dials} for way in job.ways]
    if faults:
        turned[0]["faults"] = faults
    for each in turned:
        read(each)  # before a process is started that could not say it better
    folder = job.state.path.parent / f"rehearsal-{job.state.path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    with ExitStack() as held:
        running = {
            way.name: held.enter_context(server(options(dialled)))
            for way, dialled in zip(job.ways, turned, strict=True)
            if way.vendor is not None
        }
        rehearsed = _redirected(job, {name: one.base_url for name, one in running.items()}, folder)
        summary = run_job(rehearsed, limit=limit, listeners=listeners)
        seen = {name: one.account() for name, one in running.items()}
    return Rehearsal(summary, seen, frozenset(way.name for way in job.ways if way.price))


def _as_the_job_says(way: Way) -> dict[str, object]:
    dials: dict[str, object] = {"latency": LATENCY, **_price(way.price)}
    limits = way.limits
    for name, rate in (("limit", limits.request_limit), ("document_limit", limits.document_limit)):
        if rate is not None:
            dials[name] = f"sliding:{rate.count!r}/{rate.period_s!r}s"
    return dials


def _price(price: Price | None) -> dict[str, object]:
    """
    The server bills at the price that `plan` reckons with; where none is known it names none.
    """
    if price is None:
        return {"price": "0/unit", "usage": "no-cost"}
    if price.usd_per_search_unit is not None:
        return {"price": f"{price.usd_per_search_unit!r}/unit"}
    return {"price": f"{price.usd_per_million_tokens!r}/mtok"}


def _redirected(job: Job, base_urls: Mapping[str, str], folder: Path) -> Job:
    """
    *job* as it asks the servers, whose addresses are named by way; nobody else is called.
    """
    named = zip(job.ways, kinds(job.ways), strict=True)
    ways = tuple(
        _to_server(way, kind, base_urls[way.name]) if way.name in base_urls else way
        for way, kind in named
    )
    provider = job.config.provider.model_copy(
        update={**_fields(ways[0].table), "fallbacks": tuple(way.table for way in ways[1:])}
    )
    output = job.config.output.model_copy(
        update={"path": f"{folder}/scores", "state": f"{folder}/state", "reuse": None}
    )
    # What is rehearsed costs nothing, and counts in no budget that other jobs have a share in.
    alone = dict.fromkeys(name for name in BudgetTable.model_fields if name.startswith(SHARED))
    budget = job.config.budget.model_copy(update=alone)
    config = job.config.model_copy(
        update={"provider": provider, "output": output, "budget": budget}
    )
    return replace(job, config=config, ways=ways)


def _to_server(way: Way, kind: str, base_url: str) -> Way:
    """
    *way* to a server, which speaks as OpenRouter does: so does the way for once, with its vendor's
    prices and limits. Rehearsed is everything but the vendor's own words. The model is called as
    the first way to it calls it, its *kind*: there it is known to be the same.
    """
    assert way.vendor is not None
    vendor = replace(way.vendor, prices={kind: way.price} if way.price else {})
    changes: dict[str, object] = {"base_url": base_url, "model": kind}
    if way.table.name != OPENROUTER.name:
        changes |= {"name": OPENROUTER.name, "options": {}}
        facts = {name: getattr(vendor, name) for name in FACTS}
        documents_max = way.vendor.documents_max_of(way.model)
        vendor = replace(OPENROUTER, documents_max=documents_max, **facts)
    key = Secret(f"rehearsal-{secrets.token_hex(8)}")
    return replace(way, table=way.table.model_copy(update=changes), vendor=vendor, key=key)


FACTS = (
    *("bytes_max", "tokens_max", "pair_bytes"),
    *("splits", "prices", "bills", "bills_hundreds"),
)
"""What of a vendor is rehearsed."""


def _fields(table: RouteTable) -> dict[str, object]:
    return {name: getattr(table, name) for name in RouteTable.model_fields}
