"""
What a job would do and cost, found out before anything is paid.

Owns the order of the looks: what is done, what is saved, what the rest costs and how long it takes.
`planned` is what comes of it, `estimate` reckons, and `warnings` tells what may surprise. Footers
are read in full, texts are sampled for some seconds (or scanned; where earlier outputs or equal
groups count, all are digested); nothing is written. Nobody is called and the key is not needed,
unless the vendor is to be asked what it tells for nothing. What a sample taught was asked by a run
before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from batchrank.domain import Document, Positions, RateLimit
from batchrank.errors import BatchrankError, OutputError
from batchrank.examine.caps import Cap, caps_met
from batchrank.examine.estimate import (
    Foretold,
    Looking,
    Seen,
    foretold,
    mean,
    nano_usd_each,
    rule_of,
)
from batchrank.examine.planned import JobPlan, Sampled, Spread
from batchrank.examine.warnings import about_places, warnings
from batchrank.job import Job
from batchrank.job.account import Account
from batchrank.job.checking import checked, unchecked
from batchrank.job.earlier import Earlier, as_they_are, earlier_of, set_aside
from batchrank.job.money import counted_against
from batchrank.job.opening import begun_with, check_apart, is_begun, is_old_sample
from batchrank.job.reusing import would_reuse
from batchrank.job.sampling import Sample, learned
from batchrank.job.started import refusal
from batchrank.observe.report import counted
from batchrank.policy.amounts import NOTHING, Amount
from batchrank.policy.foreseen import UNTAUGHT, Meter
from batchrank.policy.pace import HEADROOM
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import Lengths
from batchrank.store.output import OutputFolder
from batchrank.store.reading import LedgerReader

SAMPLE_S_MAX = 20.0
LATENCY_S = 0.25
"""What a call is taken to last where only the concurrency holds back."""

LEDGER_BYTES_A_GROUP = 250
LEDGER_BYTES_A_CANDIDATE = 20
OUTPUT_BYTES_A_CANDIDATE = 14
"""Measured on quick-start and SciFact data; ids and carried columns make the difference."""


def plan(
    job: Job,
    *,
    full: bool = False,
    sample_s_max: float = SAMPLE_S_MAX,
    check: bool = False,
    sample: int = 0,
) -> JobPlan:
    """
    Estimate what *job* would do; *full* looks at every text. To *check* is to ask its vendor what
    that tells for nothing: then the job is loaded with its key, else without. What the calls for a
    *sample* of so many groups were billed counts, as far as a run has made them.

    Raises:
        NotReady, SourceError: the source cannot be read as the job says.
        OutputError: an output that is to be reused cannot be, or output and source lie in each
            other.
        StorageError: the ledger of what is done cannot be read, or a budget that jobs share.
    """
    source = job.open_source(begun_with=begun_with(job))
    check_apart(job, source)
    answers = checked(job.ways) if check else unchecked(job.ways)
    job = replace(job, ways=answers.as_told)
    past = _past(job, source)
    looking = Looking(job, source, sample_s_max, full)
    saved = _saved(looking, past)
    seen = looking.beyond(saved.done)
    told = _sampled(job, source, past, sample)
    left = foretold(job, seen, saved.documents, told.taught if told else UNTAUGHT)
    caps = tuple(caps_met(job, left, past.spent))
    found = _Found(job, source, past, saved, seen, left, caps)
    return replace(
        found.plan(),
        warnings=(
            *saved.notes,
            *answers.notes(left.cost_usd[0] if left.cost_usd else None),
            *(about_places(job, seen, told) if told else ()),
            *past.warnings(),
            *warnings(job, source, seen, caps),
        ),
        told=tuple(answers.facts()) if check else (),
        refused=answers.refused,
        sample=Sampled.of(told, sample) if told else None,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """
    All that was looked at for a plan.
    """

    job: Job
    source: ParquetSource
    past: _Past
    saved: _Saved
    seen: Seen
    left: Foretold
    caps: tuple[Cap, ...]

    @property
    def candidates(self) -> float:
        """
        How many there are in all, or will be.
        """
        ready = self.saved.reused.candidates + self.saved.equal.candidates
        profile = self.seen.profile
        return self.past.candidates + ready + mean(profile.candidates) * profile.groups

    def plan(self) -> JobPlan:
        """
        The figures, without words for a person.
        """
        job, source, left, profile = self.job, self.source, self.left, self.seen.profile
        seconds, held_by = _time(job, left)
        held = source.total * LEDGER_BYTES_A_GROUP + self.candidates * LEDGER_BYTES_A_CANDIDATE
        return JobPlan(
            job=job.config.name,
            model=job.model,
            in_process=not job.asks_somebody,
            source=job.config.source.shown,
            files=len(source.files),
            groups=source.total,
            done=len(self.past.done),
            sampled=profile.sampled,
            candidates=_spread_of(profile.candidates),
            query_bytes=_lengths(profile.queries),
            document_bytes=_lengths(profile.documents),
            requests=left.requests,
            search_units=left.units,
            tokens=left.tokens,
            cost_usd=left.cost_usd,
            price=job.price,
            seconds=seconds,
            held_by=held_by,
            ledger_bytes=round(held),
            output_bytes=round(self.candidates * OUTPUT_BYTES_A_CANDIDATE),
            output=str(job.output),
            state=str(job.state.path),
            warnings=(),
            documents_cut=profile.cut_documents,
            reused=self.saved.reused.groups,
            saved_usd=self.saved.reused.usd,
            equal=self.saved.equal.groups,
            equal_saved_usd=self.saved.equal.usd,
            documents_reused=self.saved.documents,
            routes=tuple(way.name for way in job.ways),
            cost_likely_usd=left.likely_usd,
            drivers=left.drivers,
            chars_max=left.chars_max,
            top_n=job.config.output.top_n,
            caps=self.caps,
        )


# --- what is done ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Past:
    """
    What is done and was spent already; *refused* says why `run` would not carry on from there, and
    then it counts for nothing. *aside*: it is a sample at most, which `run` sets aside then.
    """

    done: Positions
    candidates: int = 0
    spent: Amount = NOTHING
    refused: str = ""
    aside: bool = False

    def warnings(self) -> Iterator[str]:
        """
        What `run` would do about it first, for a person.
        """
        if self.refused:
            does = "sets what was only tried aside" if self.aside else "refuses to carry on"
            yield f"`run` {does}, and the figures are of beginning anew: {self.refused}"


def _past(job: Job, source: ParquetSource) -> _Past:
    nothing = Positions(source.total)
    if not is_begun(job.state.ledger):
        return _Past(nothing, refused=_in_a_line(_in_the_way(job)))
    with LedgerReader.open(job.state.ledger) as ledger:
        if error := refusal(job, source, ledger):
            aside = is_old_sample(job, source)
            return _Past(nothing, refused=_in_a_line(error), aside=aside)
        candidates = Account.of(ledger).count("candidates")
        return _Past(ledger.done(source.total), candidates, counted_against(ledger))


def _in_the_way(job: Job) -> OutputError | None:
    """
    What keeps an output that is not begun from beginning; no store is asked for it.
    """
    folder = job.output
    if not isinstance(folder, Path) or not folder.is_dir() or not os.access(folder, os.R_OK):
        return None
    return OutputFolder(folder, job.state, lambda _: None).unknown()


def _in_a_line(error: BatchrankError | None) -> str:
    if error is None:
        return ""
    head, *changes = error.message.splitlines()
    parts = (head, "; ".join(change.strip() for change in changes), f"({error.hint})")
    return " ".join(filter(None, parts))


# --- what is saved --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Share:
    """
    So many *groups* for which nobody is called, with so many *candidates*; *usd* would be paid.
    """

    groups: int = 0
    candidates: float = 0.0
    usd: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class _Saved:
    """
    What earlier outputs have, and what equal groups have from each other; *done* are all these and
    what was done before. *documents* of the other groups are not sent.
    """

    done: Positions
    reused: _Share = _Share()
    equal: _Share = _Share()
    documents: int = 0
    notes: tuple[str, ...] = ()


def _saved(looking: Looking, past: _Past) -> _Saved:
    job, source = looking.job, looking.source
    if len(past.done) == source.total:
        return _Saved(past.done)
    earlier = _earlier(job, past)
    if not (earlier.outputs or job.dedupes(source)):
        return _Saved(past.done, notes=earlier.notes)
    with TemporaryDirectory(prefix="batchrank-") as folder, _begun(job, past) as ledger:
        came_to, found, equal = would_reuse(
            job, source, earlier, past.done, Path(folder) / "reuse", ledger
        )
    return _Saved(
        past.done.united(found).united(equal),
        _share(looking, found),
        _share(looking, equal),
        came_to.pairs,
        (*earlier.notes, *came_to.warnings()),
    )


def _earlier(job: Job, past: _Past) -> Earlier:
    if not job.config.output.reuse:
        return Earlier()
    # What cannot be carried on is there to be set aside, and then it is reused.
    ready = as_they_are([job.output]) if past.refused else Earlier()
    return ready.before(set_aside(job)).before(earlier_of(job))


def _begun(job: Job, past: _Past) -> AbstractContextManager[LedgerReader | None]:
    """
    The ledger of what is done, if anything is.
    """
    return LedgerReader.open(job.state.ledger) if past.done else nullcontext()


def _share(looking: Looking, groups: Positions) -> _Share:
    if not groups:
        return _Share()
    seen = looking.beyond(groups.others())
    cost = foretold(looking.job, seen).cost_usd
    return _Share(len(groups), mean(seen.profile.candidates) * len(groups), cost)


# --- what a sample taught -------------------------------------------------------------------------


def _sampled(job: Job, source: ParquetSource, past: _Past, count: int) -> Sample | None:
    """
    None where nobody was asked, or nobody has to be paid.
    """
    if not (count and past.done and job.asks_somebody):
        return None
    rule, each = rule_of(job), nano_usd_each(job.price)

    def measure(query: str, documents: Sequence[Document]) -> tuple[float, float]:
        low, high = Meter.alone(rule, query, documents)
        if job.price is None:  # of amounts alone only the middle is compared
            return (low + high) / 2, (low + high) / 2
        return low * each, high * each

    with LedgerReader.open(job.state.ledger) as ledger:
        return learned(ledger, source, count, measure)


# --- time -----------------------------------------------------------------------------------------


def _time(job: Job, left: Foretold) -> tuple[float | None, str]:
    """
    Seconds at the limits (None: there are none), and which limit it is that holds.
    """
    requests, ways = left.requests[1], [way.limits for way in job.at_once]
    held = []
    if job.vendor is not None:
        at_once = sum(limits.concurrency_most for limits in ways)
        words = f"concurrency: {counted(at_once, 'call')} at once,"
        taken = requests * LATENCY_S / at_once
        held.append((taken, f"{words} taken to last {LATENCY_S} s each"))
    for told, amount, what in (
        ([limits.request_limit for limits in ways], float(requests), "requests"),
        ([limits.document_limit for limits in ways], left.documents, "documents"),
        ([limits.token_limit for limits in ways], float(left.tokens[1]), "tokens"),
    ):
        rates = [limit for limit in told if limit is not None]
        if len(rates) == len(told):  # who has none takes what there is
            words = " and ".join(_limit(limit, what) for limit in rates)
            per_s = HEADROOM * sum(limit.per_s for limit in rates)
            held.append((amount / per_s, f"the limit of {words}"))
    return max(held, default=(None, ""))


_PERIODS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86_400.0: "a day"}


def _limit(limit: RateLimit, what: str) -> str:
    period = _PERIODS.get(limit.period_s) or f"in {limit.period_s:,g} s"
    return f"{limit.count:,g} {what} {period}"


# --- distributions --------------------------------------------------------------------------------


def _spread_of(counts: Mapping[int, int]) -> Spread:
    """
    The distribution of values that come so many times.
    """
    values = sorted(counts)
    total = sum(counts.values())

    def at(share: float) -> float:
        passed = 0
        for value in values:
            passed += counts[value]
            if passed >= share * total:
                return value
        return 0.0

    if not values:
        return Spread(0, 0, 0, 0)
    return Spread(values[0], at(0.5), at(0.95), values[-1])


def _lengths(lengths: Lengths) -> Spread:
    sample = sorted(lengths.sample)
    if not sample:
        return Spread(0, 0, 0, 0)
    last = len(sample) - 1
    return Spread(sample[0], sample[last // 2], sample[round(last * 0.95)], lengths.bytes_max)
