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
from batchrank.job.routes import Access
from batchrank.policy.budget import Allowance
from batchrank.policy.control import Adaptive, Controller, Known
from batchrank.policy.pace import pace_of
from batchrank.store.learned import Account, LearnedLimits


@dataclass(frozen=True, slots=True)
class Reins:
    """
    What decides how fast one route may be asked.
    """

    controller: Controller
    turnstiles: Turnstiles

    @classmethod
    def of(cls, job: Job, way: Access, now: datetime) -> Self:
        """
        Begin at *now* (aware) with the limits that are told of *way*.
        """
        return cls(controller_for(job, way, now), Turnstiles(quotas_of(way)))


@dataclass(frozen=True, slots=True)
class Steering:
    """
    What decides how fast a run may go, by each route's name, and how many calls it may make. Runs
    that are given the same one, each when the one before is over, keep to every limit as if they
    were one run.
    """

    reins: dict[str, Reins]
    allowance: Allowance

    @classmethod
    def of(cls, job: Job, now: datetime, calls_max: int | None = None) -> Self:
        """
        Begin at *now* (aware) with the limits of *job*; *calls_max* is for all runs together.
        """
        allowance = Allowance(inf if calls_max is None else calls_max)
        return cls({way.name: Reins.of(job, way, now) for way in job.routes}, allowance)

    def of_way(self, job: Job, way: Access, now: datetime) -> Reins:
        """
        What steers *way*, begun at *now* (aware) if no run before has known it: its name may hold
        a variable.
        """
        if way.name not in self.reins:
            self.reins[way.name] = Reins.of(job, way, now)
        return self.reins[way.name]


def controller_for(job: Job, way: Access, now: datetime) -> Adaptive:
    """
    The controller that *way* begins with at *now* (aware). A scorer in process has no limit.
    """
    limits = way.limits
    limit = limits.request_limit
    learned = None
    if limit is None and way.vendor is not None and not limits.unlimited:
        learned = _learned(job).per_s(_account(way), now)
    return Adaptive(
        Known(
            pace=pace_of(limit) if limit else None,
            unlimited=limits.unlimited or way.vendor is None,
            learned_per_s=learned,
            concurrency=limits.concurrency_fixed,
            concurrency_max=limits.concurrency_most,
        )
    )


def quotas_of(way: Access) -> Quotas:
    """
    The limits that the job file tells of *way*.
    """
    limits = way.limits
    return Quotas(limits.request_limit, limits.document_limit, limits.token_limit)


def remember(job: Job, steering: Steering, now: datetime) -> str | None:
    """
    Keep what was learned by *now* (aware); returns why that could not be done.
    """
    why_not = None
    for way in job.routes:
        learned = steering.of_way(job, way, now).controller.learned_per_s
        if learned is not None and way.vendor is not None:
            why_not = _learned(job).remember(_account(way), learned, now) or why_not
    return why_not


def _learned(job: Job) -> LearnedLimits:
    return LearnedLimits(job.state.path.parent)


def _account(way: Access) -> Account:
    return Account(way.table.name, way.base_url, way.table.model, way.key_name)
