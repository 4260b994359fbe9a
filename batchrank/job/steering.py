"""
How fast a run may go: what its job file says, and what earlier runs have met.

Owns what the controller begins with, and how large a request may be, that what was learned of both
is there for the next run, and what runs share that follow each other. Steers nothing itself:
`policy.control` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Self

from batchrank.engine.waiting import Quotas, Turnstiles
from batchrank.job.loading import Job
from batchrank.policy.budget import Allowance
from batchrank.policy.capacity import Capacity, Learned, narrowed
from batchrank.policy.control import Adaptive, Controller, Known
from batchrank.policy.pace import pace_of
from batchrank.providers.compatible import address
from batchrank.providers.told import Told
from batchrank.store.learned import Account, LearnedLimits


@dataclass(frozen=True, slots=True)
class Steering:
    """
    What decides how fast a run may go, and how many calls it may make. Runs that are given the same
    one, each when the one before is over, keep to every limit as if they were one run. *asked* is
    what a vendor told for nothing, and *proven* are those that gave scores: neither is asked twice.
    """

    controller: Controller
    turnstiles: Turnstiles
    allowance: Allowance
    asked: dict[Account, Told] = field(default_factory=dict)
    proven: set[Account] = field(default_factory=set)

    @classmethod
    def of(cls, job: Job, now: datetime, calls_max: int | None = None) -> Self:
        """
        Begin at *now* (aware) with the limits of *job*; *calls_max* is for all runs together.
        """
        allowance = Allowance(inf if calls_max is None else calls_max)
        learned = _learned_per_s(job, now)
        proven = set() if learned is None else {account_of(job)}
        controller = controller_for(job, learned)
        return cls(controller, Turnstiles(quotas_of(job)), allowance, proven=proven)


def _learned_per_s(job: Job, now: datetime) -> float | None:
    """
    The limit that runs before this one have met, if it is one to be found.
    """
    limits = job.config.limits
    if limits.request_limit is not None or job.vendor is None or limits.unlimited:
        return None
    return _learned(job).per_s(account_of(job), now)


def controller_for(job: Job, learned: float | None) -> Adaptive:
    """
    The controller that *job* begins with, where the limit was *learned* (1/s) or not. A scorer in
    process has no limit.
    """
    limits = job.config.limits
    limit = limits.request_limit
    return Adaptive(
        Known(
            pace=pace_of(limit) if limit else None,
            unlimited=limits.unlimited or job.vendor is None,
            learned_per_s=learned,
            concurrency=limits.concurrency_fixed,
            concurrency_max=limits.concurrency_most,
        )
    )


def quotas_of(job: Job) -> Quotas:
    """
    The limits that the job file tells.
    """
    limits = job.config.limits
    return Quotas(limits.request_limit, limits.document_limit, limits.token_limit)


def remember(job: Job, controller: Controller, now: datetime) -> str | None:
    """
    Keep what *controller* has learned by *now* (aware); returns why that could not be done.
    """
    if controller.learned_per_s is None or job.vendor is None:
        return None
    return _learned(job).remember(account_of(job), controller.learned_per_s, now)


def capacity_for(job: Job, now: datetime) -> Capacity:
    """
    What a request of *job* may hold at *now* (aware): as it says, else as was learned, else as is
    known of the vendor.
    """
    bounds, told = job.bounds, job.config.provider
    if job.vendor is None or not bounds.splits:
        return Capacity(bounds)
    learned = _learned(job).of_request(account_of(job), now)
    return Capacity(
        narrowed(
            bounds,
            Learned(
                None if told.documents_max else learned.documents_max,
                None if told.bytes_max else learned.bytes_max,
            ),
        )
    )


def remember_capacity(job: Job, capacity: Capacity, now: datetime) -> str | None:
    """
    Keep what *capacity* has learned by *now* (aware); returns why that could not be done.
    """
    if capacity.learned == Learned() or job.vendor is None:
        return None
    return _learned(job).remember_request(account_of(job), capacity.learned, now)


def _learned(job: Job) -> LearnedLimits:
    return LearnedLimits(job.state.path.parent)


def account_of(job: Job) -> Account:
    """
    Whose limits, key and model the job is about; it has a vendor.
    """
    provider = job.config.provider
    assert job.vendor is not None
    # What the command is called with is nobody's business: people may put the key there.
    command = "key_command" if provider.key_command else ""
    key = provider.key_file or provider.key_env or command or job.vendor.key_env
    where = address(job.base_url, job.settings())
    return Account(provider.name, where, provider.model, key)
