"""
Whether a person has to agree to what a run may cost, and asking one.

Owns the words of the question and of the refusal. What is left is estimated as `plan` does it, from
a sample of two seconds at most: no source is read twice for it. What is free, or has no known
price, is never asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from batchrank.domain import Positions
from batchrank.errors import BatchrankError, SourceError, Unconfirmed
from batchrank.examine.estimate import Looking, left_to_pay, nano_usd_each
from batchrank.job import Job
from batchrank.job.consent import Left, left
from batchrank.job.opening import begun_with, is_begun
from batchrank.observe.report import counted
from batchrank.policy.course import Estimate, needs_consent
from batchrank.source.parquet import ParquetSource
from batchrank.store.reading import LedgerReader

SAMPLE_S_MAX = 2.0
"""Seconds: nothing beside a run that costs enough to be asked about."""

DATES_MAX = 3
"""So many dates of a backfill are looked at; one may have to be staged for it."""

Ask = Callable[[str], bool]
"""Puts a question to a person, who says yes or no."""


@dataclass(frozen=True, slots=True)
class Asking:
    """
    Lets a run begin if it costs little enough, or if somebody agrees. *ask* is None where there is
    nobody to ask; *yes*: a person has agreed beforehand.
    """

    ask: Ask | None = None
    yes: bool = False

    def __call__(self, left: Left) -> Estimate | None:
        """
        Estimate what is left; returns None where nobody can.

        Raises:
            Unconfirmed: it may cost too much, and nobody agrees.
        """
        estimate = _estimated(left)
        confirm_usd = left.job.config.budget.confirm_usd
        if estimate and needs_consent(estimate.high_usd, left.cap_left_usd, confirm_usd):
            self.agreed(left.job, _words(estimate))
        return estimate

    def of_dates(self, jobs: Sequence[Job]) -> None:
        """
        Ask once for what a job may cost on many dates: as often as on the dearest of some.

        Raises:
            Unconfirmed: it may cost too much, and nobody agrees.
        """
        if self.yes or not jobs or not _costs(jobs[0]):
            return
        budget = jobs[0].config.budget
        some = _some_of(jobs)
        dearest = max((_most_usd(job) for job in some), default=0.0)
        cap = None if budget.cost_usd_max is None else budget.cost_usd_max * len(jobs)
        if needs_consent(dearest * len(jobs), cap, budget.confirm_usd):
            looked = f"{counted(len(some), 'date')} of {len(jobs):,} looked at"
            sum_usd = dearest * len(jobs) if cap is None else min(cap, dearest * len(jobs))
            self.agreed(jobs[0], f"all dates together may cost ${sum_usd:,.2f} ({looked})")

    def agreed(self, job: Job, words: str) -> None:
        """
        Return if somebody agrees.

        Raises:
            Unconfirmed: nobody does.
        """
        confirm = f"more than budget.confirm_usd (${job.config.budget.confirm_usd:,.2f})"
        if self.yes or (self.ask and self.ask(f"{job.config.name}: {words}, {confirm}. Run it?")):
            return
        raise Unconfirmed(
            f"{job.config.name}: {words}, {confirm}, and nobody agreed; nobody was called",
            "run it with --yes, raise budget.confirm_usd, or set budget.cost_usd_max to what it"
            " may cost",
        )


def _words(estimate: Estimate) -> str:
    sampled = f"{estimate.sampled:,} of {counted(estimate.groups, 'group')} looked at"
    return (
        f"what is left may cost ${estimate.low_usd:,.2f} to ${estimate.high_usd:,.2f} ({sampled})"
    )


def _costs(job: Job) -> bool:
    """
    Tell whether calls are known to cost anything, whichever way they go.
    """
    return any(nano_usd_each(way.price) > 0 for way in job.ways)


def _estimated(left: Left) -> Estimate | None:
    """
    What is left will cost; None where that is nothing, or where the sample meets a page that cannot
    be read: the run will come to it, tell it, and keep what it has paid for before.
    """
    if not _costs(left.job) or len(left.done) == left.source.total:
        return None
    try:
        return left_to_pay(Looking(left.job, left.source, SAMPLE_S_MAX), left.done, left.known)
    except SourceError:
        return None


def _some_of(jobs: Sequence[Job]) -> list[Job]:
    """
    The first, the last, and one in between.
    """
    places = {0, len(jobs) // 2, len(jobs) - 1}
    return [jobs[place] for place in sorted(places)][:DATES_MAX]


def _most_usd(job: Job) -> float:
    """
    The most that a date may still cost; nothing if it cannot begin, which it will say in its turn.
    """
    try:
        source = job.open_source(begun_with=begun_with(job))
        estimate = _estimated(_left_of(job, source))
    except BatchrankError:
        return 0.0
    return estimate.high_usd if estimate else 0.0


def _left_of(job: Job, source: ParquetSource) -> Left:
    if not is_begun(job.state.ledger):
        return Left(job, source, Positions(source.total))
    with LedgerReader.open(job.state.ledger) as ledger:
        done = ledger.done(source.total)
        return left(job, source, ledger, done, source.total)
