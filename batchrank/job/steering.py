"""
How fast a run may go: what its job file says, and what earlier runs have met.

Owns what the controller begins with, and how large a request may be, that what was learned of both
is there for the next run, and what runs share that follow each other. Steers nothing itself:
`policy.control` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Self

from batchrank.engine.waiting import Quotas, Turnstiles
from batchrank.job.loading import Job
from batchrank.job.ways import Way
from batchrank.policy.budget import Allowance
from batchrank.policy.capacity import Capacity, Learned, narrowed
from batchrank.policy.control import Adaptive, Controller, Known
from batchrank.policy.pace import pace_of
from batchrank.providers.compatible import address
from batchrank.providers.told import Told
from batchrank.store.learned import Customer, LearnedLimits


@dataclass(slots=True)
class Reins:
    """
    What decides how fast one route may be asked. *proven*: it has given scores to this key and
    model before; *told* is what its vendor has told for nothing. Neither is found out twice.
    """

    controller: Controller
    turnstiles: Turnstiles
    proven: bool = False
    told: Told | None = None

    @classmethod
    def of(cls, job: Job, way: Way, now: datetime) -> Self:
        """
        Begin at *now* (aware) with the limits that are told of *way*.
        """
        learned = _learned_per_s(job, way, now)
        controller = controller_for(way, learned)
        return cls(controller, Turnstiles(quotas_of(way)), proven=learned is not None)


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
        return cls({way.name: Reins.of(job, way, now) for way in job.ways}, allowance)

    def of_way(self, job: Job, way: Way, now: datetime) -> Reins:
        """
        What steers *way*, begun at *now* (aware) if no run before has known it: its name may hold
        a variable.
        """
        if way.name not in self.reins:
            self.reins[way.name] = Reins.of(job, way, now)
        return self.reins[way.name]


def _learned_per_s(job: Job, way: Way, now: datetime) -> float | None:
    """
    The limit that runs before this one have met, if it is one to be found.
    """
    if way.limits.request_limit is not None or way.vendor is None or way.limits.unlimited:
        return None
    return _learned(job).per_s(customer_of(way), now)


def controller_for(way: Way, learned: float | None) -> Adaptive:
    """
    The controller that *way* begins with, where the limit was *learned* (1/s) or not. A scorer in
    process has no limit.
    """
    limits, local = way.limits, way.in_process
    limit = limits.request_limit
    return Adaptive(
        Known(
            pace=pace_of(limit) if limit else None,
            unlimited=limits.unlimited or way.vendor is None,
            learned_per_s=learned,
            concurrency=limits.concurrency_fixed or (local.concurrency if local else None),
            concurrency_max=limits.concurrency_most,
        )
    )


def quotas_of(way: Way) -> Quotas:
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
    for way in job.ways:
        learned = steering.of_way(job, way, now).controller.learned_per_s
        if learned is not None and way.vendor is not None:
            why_not = _learned(job).remember(customer_of(way), learned, now) or why_not
    return why_not


def capacity_for(job: Job, way: Way, now: datetime) -> Capacity:
    """
    What a request on *way* may hold at *now* (aware): as the job says, else as was learned, else
    as is known of the vendor.
    """
    bounds, told = way.bounds, way.table
    if way.vendor is None or not bounds.splits:
        return Capacity(bounds)
    learned = _learned(job).of_request(customer_of(way), now)
    return Capacity(
        narrowed(
            bounds,
            Learned(
                None if told.documents_max else learned.documents_max,
                None if told.bytes_max else learned.bytes_max,
            ),
        )
    )


def remember_capacity(job: Job, way: Way, capacity: Capacity, now: datetime) -> str | None:
    """
    Keep what *capacity* has learned by *now* (aware); returns why that could not be done.
    """
    if capacity.learned == Learned() or way.vendor is None:
        return None
    return _learned(job).remember_request(customer_of(way), capacity.learned, now)


def _learned(job: Job) -> LearnedLimits:
    return LearnedLimits(job.state.path.parent)


def customer_of(way: Way) -> Customer:
    """
    Whose limits, key and model *way* is about.
    """
    where = address(way.base_url, way.settings())
    return Customer(way.table.name, where, way.table.model, way.key_name)
