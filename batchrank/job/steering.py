"""
How fast a run may go: what its job file says, and what earlier runs have met.

Owns what the controller begins with, that what it has learned is there for the next run, and what
runs share that follow each other. Steers nothing itself: `policy.control` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Self

from batchrank.engine.waiting import Quotas, Turnstiles
from batchrank.job.loading import Job
from batchrank.policy.budget import Allowance
from batchrank.policy.control import Adaptive, Controller, Known
from batchrank.policy.pace import pace_of
from batchrank.store.learned import Account, LearnedLimits


@dataclass(frozen=True, slots=True)
class Steering:
    """
    What decides how fast a run may go, and how many calls it may make. Runs that are given the same
    one, each when the one before is over, keep to every limit as if they were one run.
    """

    controller: Controller
    turnstiles: Turnstiles
    allowance: Allowance

    @classmethod
    def of(cls, job: Job, now: datetime, calls_max: int | None = None) -> Self:
        """
        Begin at *now* (aware) with the limits of *job*; *calls_max* is for all runs together.
        """
        allowance = Allowance(inf if calls_max is None else calls_max)
        return cls(controller_for(job, now), Turnstiles(quotas_of(job)), allowance)


def controller_for(job: Job, now: datetime) -> Adaptive:
    """
    The controller that *job* begins with at *now* (aware). A scorer in process has no limit.
    """
    limits, local = job.config.limits, job.in_process
    limit = limits.request_limit
    learned = None
    if limit is None and job.vendor is not None and not limits.unlimited:
        learned = _learned(job).per_s(_account(job), now)
    return Adaptive(
        Known(
            pace=pace_of(limit) if limit else None,
            unlimited=limits.unlimited or job.vendor is None,
            learned_per_s=learned,
            concurrency=limits.concurrency_fixed or (local.concurrency if local else None),
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
    return _learned(job).remember(_account(job), controller.learned_per_s, now)


def _learned(job: Job) -> LearnedLimits:
    return LearnedLimits(job.state.path.parent)


def _account(job: Job) -> Account:
    provider = job.config.provider
    assert job.vendor is not None
    key = provider.key_file or provider.key_env or job.vendor.key_env
    return Account(provider.name, provider.base_url or job.vendor.base_url, provider.model, key)
