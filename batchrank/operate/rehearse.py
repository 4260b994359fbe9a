"""
The whole job against the embedded server: no key, no cost, the job's own limits.

Owns the folders of a rehearsal, which are made anew each time and have nothing to do with the real
output or its state, and the comparison of our account with the server's.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batchrank.config.schema import BudgetTable
from batchrank.domain import Price
from batchrank.errors import JobError, Problem
from batchrank.events import Reporter
from batchrank.job import Job
from batchrank.job import run as run_job
from batchrank.observe.report import Summary
from batchrank.operate.serve import options, read, server
from batchrank.policy.billing import in_usd
from batchrank.providers import OPENROUTER
from batchrank.wire.auth import Secret

LATENCY = "lognormal:0.15,0.4"
"""Seconds, median and 95th percentile: what hosted rerankers take for some dozens of documents."""


SHARED = ("shared", "day_", "month_")
"""How the settings begin of what jobs spend together."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """
    How the rehearsal went: our summary, and what the server saw and would have charged at *price*.
    """

    summary: Summary
    server: dict[str, Any]
    price: Price | None

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        seen = self.server
        owed = in_usd(sum(account["nano_usd"] for account in seen["bill"].values()))
        bill = f"${owed:,.4f}" if self.price else "no price is known: state it in [provider.price]"
        refused = seen["limit_refusals"]
        calls = f"saw {seen['calls']:,} calls, billed {seen['billed_calls']:,} ({bill})"
        limits = f"refused {refused:,} for its limit, {seen['in_flight_max']} at once at most"
        return f"{self.summary.as_text()}\nserver   {calls}, {limits}"


def rehearse(
    job: Job,
    dials: Mapping[str, object],
    *,
    limit: int | None = None,
    listeners: Sequence[Reporter] = (),
) -> Rehearsal:
    """
    Run *job* (loaded without its key) against a server that has its limits and its price.

    *dials* are turned beyond that, written as for `batchrank serve`.

    Raises:
        JobError: a dial is wrong, or the scorer is in process and there is nothing to rehearse.
        BatchrankError: as a run of the job would.
    """
    if job.vendor is None:
        problem = Problem(0, "provider.name", "needs no server: there is nothing to rehearse")
        raise JobError(str(job.file), [problem], "run it: it costs nothing")
    turned = {**_as_the_job_says(job), **dials}
    read(turned)  # before a process is started that could not say it better
    folder = job.state.path.parent / f"rehearsal-{job.state.path.name}"
    shutil.rmtree(folder, ignore_errors=True)
    with server(options(turned)) as running:
        rehearsed = _redirected(job, running.base_url, str(folder))
        summary = run_job(rehearsed, limit=limit, listeners=listeners)
        return Rehearsal(summary, running.account(), job.price)


def _as_the_job_says(job: Job) -> dict[str, object]:
    dials: dict[str, object] = {"latency": LATENCY, **_price(job.price)}
    limits = job.config.limits
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


def _redirected(job: Job, base_url: str, folder: str) -> Job:
    """
    *job* as it asks the server, which speaks as OpenRouter does: so does the job for once, with its
    vendor's prices and limits. Rehearsed is the first way, and everything but the vendor's own
    words; nobody else is called.
    """
    known, vendor = job.config.provider, job.vendor
    changes: dict[str, object] = {"base_url": base_url, "fallbacks": ()}
    if vendor and known.name != OPENROUTER.name:
        changes |= {"name": OPENROUTER.name, "options": {}}
        facts = {
            name: getattr(vendor, name)
            for name in (
                *("bytes_max", "tokens_max", "pair_bytes"),
                *("splits", "prices", "bills", "bills_hundreds"),
            )
        }
        documents_max = vendor.documents_max_of(known.model)
        vendor = replace(OPENROUTER, documents_max=documents_max, **facts)
    provider = known.model_copy(update=changes)
    output = job.config.output.model_copy(
        update={"path": f"{folder}/scores", "state": f"{folder}/state", "reuse": None}
    )
    # What is rehearsed costs nothing, and counts in no budget that other jobs have a share in.
    alone = dict.fromkeys(name for name in BudgetTable.model_fields if name.startswith(SHARED))
    budget = job.config.budget.model_copy(update=alone)
    config = job.config.model_copy(
        update={"provider": provider, "output": output, "budget": budget}
    )
    key = Secret(f"rehearsal-{secrets.token_hex(8)}")
    return replace(
        job, config=config, ways=(replace(job.first, table=provider, vendor=vendor, key=key),)
    )
