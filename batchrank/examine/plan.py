"""
What a job would do and cost, before anything is paid.

Owns what a plan consists of, and its words; `estimate` reckons, and what may surprise is told by
`warnings`. Footers are read in full, texts are sampled for some seconds (or scanned; where earlier
outputs or equal groups count, all are digested); nothing is written. Nobody is called and the key
is not needed, unless the vendor is to be asked what it tells for nothing. What a sample taught was
asked by a run before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from batchrank.domain import Document, Positions, Price, RateLimit
from batchrank.examine.caps import Cap, caps_met
from batchrank.examine.estimate import (
    Driven,
    Looking,
    Seen,
    Work,
    mean,
    nano_usd_each,
    rule_of,
    work,
)
from batchrank.examine.warnings import about_places, warnings
from batchrank.job import Job
from batchrank.job.account import Account
from batchrank.job.checking import checked, unchecked
from batchrank.job.earlier import Earlier, as_they_are, earlier_of, set_aside
from batchrank.job.money import counted_against
from batchrank.job.opening import begun_with, is_begun, is_old_sample, refusal
from batchrank.job.reusing import would_reuse
from batchrank.job.sampling import Sample, learned
from batchrank.observe.panel import duration
from batchrank.observe.report import as_shown, counted, size
from batchrank.policy.amounts import NOTHING, Amount
from batchrank.policy.billing import DOCUMENTS_PER_UNIT, in_usd
from batchrank.policy.foreseen import UNTAUGHT, Driver, Meter
from batchrank.policy.pace import HEADROOM
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import Lengths
from batchrank.store.reading import LedgerReader

SAMPLE_S_MAX = 20.0
LATENCY_S = 0.25
"""What a call is taken to last where only the concurrency holds back."""

TOLD_SHARE = 0.01
"""What makes less of the bill is not told to people."""

LEDGER_BYTES_A_GROUP = 250
LEDGER_BYTES_A_CANDIDATE = 20
OUTPUT_BYTES_A_CANDIDATE = 14
"""Measured on quick-start and SciFact data; ids and carried columns make the difference."""


@dataclass(frozen=True, slots=True)
class Spread:
    """
    A distribution in four numbers.
    """

    least: float
    median: float
    p95: float
    most: float

    def __str__(self) -> str:
        shown = (self.least, self.median, self.p95, self.most)
        low, middle, high, top = (f"{value:,.0f}" for value in shown)
        return f"min {low}, median {middle}, p95 {high}, max {top}"


@dataclass(frozen=True, slots=True)
class Sampled:
    """
    What paid calls have taught: so many *groups* of those that were *wanted* were asked about, for
    *cost_usd*; the bills of *told* groups are known and counted. *by_rule*: each was billed as the
    rule says, so that what they narrow is how texts are counted; else the whole bill follows them.
    """

    wanted: int
    groups: int
    told: int
    cost_usd: float
    by_rule: bool

    @classmethod
    def of(cls, sample: Sample, wanted: int) -> Sampled:
        """
        A sample in the words of a plan.
        """
        cost = in_usd(sample.cost_nano_usd)
        return cls(wanted, sample.asked, sample.told, cost, sample.taught.by_rule)

    def __str__(self) -> str:
        paid = f"{counted(self.groups, 'group')} asked about at random, for ${self.cost_usd:,.4f}"
        if self.told < 2:
            return f"{paid}: too few bills are known to teach anything"
        if not self.by_rule:
            return f"{paid}: billed otherwise than the rule says; the cost follows these bills"
        return f"{paid}: {self.told:,} bills narrow down how texts are counted"


@dataclass(frozen=True, slots=True)
class JobPlan:
    """
    What a job would do. Pairs are low and high estimates, equal where everything was read and texts
    do not matter; costs are US dollars. Estimates are of what is left to do.

    *in_process*: there is no vendor, so nobody is called and nothing is paid. *seconds* is None
    where nothing that is known holds the job back. *reused* groups have all their scores in earlier
    outputs, *equal* ones take those of a group that asks the same: they are in none of the
    estimates, but for *saved_usd* and *equal_saved_usd*, what they would cost. Of the other groups
    *documents_reused* are not sent; tokens are estimated as if these were as long as the rest.
    *documents_cut* of the *sampled* groups' documents are longer than `source.max_chars`. *told* is
    what the vendor told for nothing, and *refused* why it would not do the job, if it was asked.

    *cost_likely_usd* lies between the two of *cost_usd*: half way, unless a sample knows better.
    *drivers* say what makes it, the dearest first; documents of at most *chars_max* characters
    count once. *sample* is what paid calls have taught about all of it. *caps* are those that are
    not enough for it, or may not be.
    """

    job: str
    model: str
    in_process: bool
    source: str
    files: int
    groups: int
    done: int
    sampled: int
    candidates: Spread
    query_bytes: Spread
    document_bytes: Spread
    requests: tuple[int, int]
    search_units: tuple[int, int]
    tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None
    price: Price | None
    seconds: float | None
    held_by: str
    ledger_bytes: int
    output_bytes: int
    output: str
    state: str
    warnings: tuple[str, ...]
    documents_cut: int = 0
    reused: int = 0
    saved_usd: tuple[float, float] | None = None
    equal: int = 0
    equal_saved_usd: tuple[float, float] | None = None
    documents_reused: int = 0
    told: tuple[str, ...] = ()
    refused: str = ""
    routes: tuple[str, ...] = ()
    cost_likely_usd: float | None = None
    drivers: tuple[Driven, ...] = ()
    chars_max: int | None = None
    top_n: int | None = None
    sample: Sampled | None = None
    caps: tuple[Cap, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return asdict(self)

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        return "\n".join(f"{name:<12}{as_shown(value)}" for name, value in self._lines() if value)

    def _lines(self) -> Iterator[tuple[str, str]]:
        files, groups = counted(self.files, "file"), counted(self.groups, "group")
        yield "job", f"{self.job}: {self.model}"
        if len(self.routes) > 1:
            yield "routes", f"{', '.join(self.routes)} (the highest cost is that of the dearest)"
        yield "source", f"{self.source}: {files}, {groups}"
        yield "done", self._done()
        yield "reused", self._saved(self.reused, "from earlier outputs", self.saved_usd)
        yield "equal", self._saved(self.equal, "equal to another", self.equal_saved_usd)
        yield "known", self._known()
        yield from self._texts() if self.sampled else ()
        yield from self._work()
        disk = f"about {size(self.ledger_bytes)} state, {size(self.output_bytes)} output"
        yield "disk", disk
        yield "output", self.output
        yield "state", self.state
        for fact in self.told:
            yield "told", fact
        yield "refused", self.refused
        for warning in self.warnings:
            yield "warning", warning

    def _done(self) -> str:
        if not self.done:
            return ""
        left = "what follows is about the rest" if self.done < self.groups else "nothing is left"
        return f"{self.done:,} of {counted(self.groups, 'group')}: {left}"

    def _known(self) -> str:
        if not self.documents_reused:
            return ""
        known = counted(self.documents_reused, "document")
        return f"{known} of groups that have changed, from earlier outputs: not sent"

    def _saved(self, count: int, why: str, usd: tuple[float, float] | None) -> str:
        if not count:
            return ""
        whose = f"{count:,} of {counted(self.groups, 'group')}, {why}"
        if self.in_process or usd is None:
            return whose
        low, high = (f"${amount:,.4f}" for amount in usd)
        saved = low if low == high else f"{low} to {high}"
        return f"{whose}: {counted(count, 'call')} and {saved} are saved"

    def _texts(self) -> Iterator[tuple[str, str]]:
        left = self.groups - self.done - self.reused - self.equal
        share = "all" if self.sampled == left else f"{self.sampled:,} sampled"
        yield "candidates", f"per group {self.candidates} ({share})"
        yield "texts", f"queries, bytes: {self.query_bytes}"
        yield "", f"documents, bytes: {self.document_bytes}"

    def _work(self) -> Iterator[tuple[str, str]]:
        if self.in_process:
            yield "requests", f"none: {_between(self.requests)} groups are scored in process"
            yield "cost", "nothing"
        else:
            yield "requests", f"{_between(self.requests)} still to be sent"
            yield self._billed()
            yield "cost", self._cost()
            yield "", self._likely()
            yield "sample", str(self.sample or "")
            for n, words in enumerate(self._drivers()):
                yield "" if n else "of it", words
        if self.seconds is None:
            yield "time", "as fast as this machine is"
        else:
            yield "time", f"{duration(self.seconds)}, held by {self.held_by}"

    def _billed(self) -> tuple[str, str]:
        if self.price and self.price.usd_per_search_unit is None:
            return "tokens", f"{_between(self.tokens)} tokens"
        return "units", f"{_between(self.search_units)} search units"

    def _likely(self) -> str:
        taught = self.sample and self.sample.told > 1 and self.cost_likely_usd
        return f"probably about ${self.cost_likely_usd:,.4f}" if taught else ""

    def _drivers(self) -> Iterator[str]:
        for driven in self.drivers:
            if driven.share >= TOLD_SHARE:
                about = f"about ${driven.usd:,.4f} ({100 * driven.share:.0f} %)"
                yield f"{about}: {self._remedy(Driver(driven.name), driven.groups)}"

    def _remedy(self, driver: Driver, groups: int) -> str:
        whose = f"of {counted(groups, 'group')}"
        match driver:
            case Driver.CANDIDATES:
                keeps = f" (output.top_n keeps {self.top_n})" if self.top_n else ""
                return f"candidates beyond {DOCUMENTS_PER_UNIT}, {whose}; saved if none came{keeps}"
            case Driver.LONG:
                cut = f" (source.max_chars = {self.chars_max})" if self.chars_max else ""
                return f"texts beyond 500 tokens, {whose}; saved if they were cut{cut}"
            case Driver.VACANT:
                more = f"up to {DOCUMENTS_PER_UNIT} candidates cost the same as one"
                return f"places in search units that nobody fills, {whose}: {more}"
            case Driver.QUERIES:
                return f"queries, {whose}, counted once more for each document; shorter ones save"
            case Driver.REPEATED:
                return f"equal documents, {whose}; saved by source.dedupe_documents = true"

    def _cost(self) -> str:
        if self.cost_usd is None:
            return "not known: no price of this model (state it in [provider.price])"
        low, high = (f"${usd:,.4f}" for usd in self.cost_usd)
        if self.price is None:
            return f"{low} to {high}, as the sample was billed"
        per = self.price.usd_per_search_unit
        unit = f"${per} a search unit" if per is not None else ""
        million = self.price.usd_per_million_tokens
        unit = unit or f"${million} a million tokens"
        seen = f", seen {self.price.as_of} ({self.price.source})" if self.price.as_of else ""
        return f"{low if low == high else f'{low} to {high}'}, at {unit}{seen}"


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
        OutputError: an output that is to be reused cannot be.
        StorageError: the ledger of what is done cannot be read, or a budget that jobs share.
    """
    source = job.open_source(begun_with=begun_with(job))
    answers = checked(job.ways) if check else unchecked(job.ways)
    job = replace(job, ways=answers.as_told)
    past = _past(job, source)
    looking = Looking(job, source, sample_s_max, full)
    saved = _saved(looking, past)
    seen = looking.beyond(saved.done)
    told = _sampled(job, source, past, sample)
    left = work(job, seen, saved.documents, told.taught if told else UNTAUGHT)
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
    left: Work
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
        return _Past(nothing)
    with LedgerReader.open(job.state.ledger) as ledger:
        if error := refusal(job, source, ledger):
            head, *changes = error.message.splitlines()
            words = f"{head} {'; '.join(change.strip() for change in changes)} ({error.hint})"
            return _Past(nothing, refused=words, aside=is_old_sample(job, source))
        candidates = Account.of(ledger).count("candidates")
        return _Past(ledger.done(source.total), candidates, counted_against(ledger))


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
    cost = work(looking.job, seen).cost_usd
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


def _time(job: Job, work: Work) -> tuple[float | None, str]:
    """
    Seconds at the limits (None: there are none), and which limit it is that holds.
    """
    requests, ways = work.requests[1], [way.limits for way in job.at_once]
    held = []
    if job.vendor is not None:
        at_once = sum(limits.concurrency_most for limits in ways)
        words = f"concurrency: {counted(at_once, 'call')} at once,"
        taken = requests * LATENCY_S / at_once
        held.append((taken, f"{words} taken to last {LATENCY_S} s each"))
    for told, amount, what in (
        ([limits.request_limit for limits in ways], float(requests), "requests"),
        ([limits.document_limit for limits in ways], work.documents, "documents"),
        ([limits.token_limit for limits in ways], float(work.tokens[1]), "tokens"),
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


def _between(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
