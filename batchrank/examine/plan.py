"""
What a job would do and cost, before anything is paid.

Owns the estimates and the warnings. Footers are read in full, texts are sampled for some seconds
(or scanned; where earlier outputs or equal groups count, all are digested); nobody is called and
nothing is written, so the key is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from math import hypot, sqrt
from pathlib import Path
from statistics import fmean, pstdev
from tempfile import TemporaryDirectory
from typing import Any

from batchrank.config.schema import SourceTable
from batchrank.domain import Positions, Price, RateLimit
from batchrank.job import Job
from batchrank.job.earlier import Earlier, as_they_are, earlier_of, set_aside
from batchrank.job.ending import Account
from batchrank.job.opening import begun_with, is_begun, refusal
from batchrank.job.reusing import would_reuse
from batchrank.observe.panel import duration
from batchrank.observe.report import as_shown, counted, size
from batchrank.policy.billing import (
    DOCUMENTS_PER_UNIT,
    NANO,
    chunks_mean,
    nano_usd,
    units_expected,
    usd,
)
from batchrank.policy.pace import HEADROOM
from batchrank.policy.slicing import slices
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import Lengths, Profile
from batchrank.store.reading import LedgerReader

SAMPLE_S_MAX = 20.0
PRICE_DAYS_MAX = 90
LATENCY_S = 0.25
"""What a call is taken to last where only the concurrency holds back."""

BYTES_PER_TOKEN = (5.0, 2.5)
"""For the low and the high estimate. English has about 4.5, German 4, Chinese and Japanese 2.5."""

LONG_BYTES = 2_000
"""About 500 tokens: a longer document counts as several."""

ROW_GROUP_BYTES = 512 * 1024 * 1024

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
class JobPlan:
    """
    What a job would do. Pairs are low and high estimates, equal where everything was read and texts
    do not matter; costs are US dollars. Estimates are of what is left to do.

    *in_process*: there is no vendor, so nobody is called and nothing is paid. *seconds* is None
    where nothing that is known holds the job back. *reused* groups have all their scores in earlier
    outputs, *equal* ones take those of a group that asks the same: they are in none of the
    estimates, but for *saved_usd* and *equal_saved_usd*, what they would cost. Of the other groups
    *documents_reused* are not sent; tokens are estimated as if these were as long as the rest.
    *documents_cut* of the *sampled* groups' documents are longer than `source.max_chars`.
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
            yield "units", f"{_between(self.search_units)} search units"
            yield "cost", self._cost()
        if self.seconds is None:
            yield "time", "as fast as this machine is"
        else:
            yield "time", f"{duration(self.seconds)}, held by {self.held_by}"

    def _cost(self) -> str:
        if self.cost_usd is None or self.price is None:
            return "not known: no price of this model (state it in [provider.price])"
        low, high = (f"${usd:,.4f}" for usd in self.cost_usd)
        per = self.price.usd_per_search_unit
        unit = f"${per} a search unit" if per is not None else ""
        million = self.price.usd_per_million_tokens
        unit = unit or f"${million} a million tokens"
        seen = f", seen {self.price.as_of} ({self.price.source})" if self.price.as_of else ""
        return f"{low if low == high else f'{low} to {high}'}, at {unit}{seen}"


def plan(job: Job, *, full: bool = False, sample_s_max: float = SAMPLE_S_MAX) -> JobPlan:
    """
    Estimate what *job* (loaded without its key) would do; *full* looks at every text.

    Raises:
        NotReady, SourceError: the source cannot be read as the job says.
        OutputError: an output that is to be reused cannot be.
        StorageError: the ledger of what is done cannot be read.
    """
    source = job.open_source(begun_with=begun_with(job))
    past = _past(job, source)
    saved = _saved(job, source, past, lambda d: source.profile(sample_s_max, full=full, done=d))
    profile = source.profile(sample_s_max, full=full, done=saved.done)
    work = _work(job, profile, saved.documents)
    seconds, held_by = _time(job, work)
    mean = _mean(profile.candidates)
    ready = saved.reused.candidates + saved.equal.candidates
    candidates = past.candidates + ready + mean * profile.groups
    return JobPlan(
        job=job.config.name,
        model=job.model,
        in_process=job.vendor is None,
        source=job.config.source.shown,
        files=len(source.files),
        groups=source.total,
        done=len(past.done),
        sampled=profile.sampled,
        candidates=_spread_of(profile.candidates),
        query_bytes=_lengths(profile.queries),
        document_bytes=_lengths(profile.documents),
        requests=work.requests,
        search_units=work.units,
        tokens=work.tokens,
        cost_usd=work.cost_usd,
        price=job.price,
        seconds=seconds,
        held_by=held_by,
        ledger_bytes=round(
            source.total * LEDGER_BYTES_A_GROUP + candidates * LEDGER_BYTES_A_CANDIDATE
        ),
        output_bytes=round(candidates * OUTPUT_BYTES_A_CANDIDATE),
        output=str(job.output),
        state=str(job.state.path),
        warnings=(*saved.notes, *_warnings(job, source, profile, past, work)),
        documents_cut=profile.cut_documents,
        reused=saved.reused.groups,
        saved_usd=saved.reused.usd,
        equal=saved.equal.groups,
        equal_saved_usd=saved.equal.usd,
        documents_reused=saved.documents,
    )


# --- what is done ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Past:
    """
    What is done and was spent already; *refused* says why `run` would not carry on from there, and
    then it counts for nothing.
    """

    done: Positions
    candidates: int = 0
    spent_nano_usd: int = 0
    refused: str = ""


def _past(job: Job, source: ParquetSource) -> _Past:
    nothing = Positions(source.total)
    if not is_begun(job.state.ledger):
        return _Past(nothing)
    with LedgerReader.open(job.state.ledger) as ledger:
        if error := refusal(job, source, ledger):
            head, *changes = error.message.splitlines()
            words = f"{head} {'; '.join(change.strip() for change in changes)} ({error.hint})"
            return _Past(nothing, refused=words)
        account = Account.of(ledger)
        spent = account.cost_nano_usd + account.lost_nano_usd
        spent = max(spent, int(ledger.meta().get("authorised_nano_usd", 0)))
        return _Past(ledger.done(source.total), account.count("candidates"), spent)


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


def _saved(
    job: Job, source: ParquetSource, past: _Past, profiled: Callable[[Positions], Profile]
) -> _Saved:
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
        _share(job, found, profiled),
        _share(job, equal, profiled),
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


def _share(job: Job, groups: Positions, profiled: Callable[[Positions], Profile]) -> _Share:
    if not groups:
        return _Share()
    profile = profiled(groups.others())
    return _Share(
        len(groups), _mean(profile.candidates) * len(groups), _work(job, profile).cost_usd
    )


# --- estimates ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    """
    What is left to do: low and high, as in `JobPlan`. *documents* is the high one.
    """

    requests: tuple[int, int]
    documents: float
    units: tuple[int, int]
    tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None


def _work(job: Job, profile: Profile, known: int = 0) -> _Work:
    """
    What *profile* foretells; so many *known* documents of it are not sent.
    """
    requests = _requests(profile, job.documents_max)
    if known:  # how many of a group's is not known: one request at least, and no more than as ever
        requests = _requests(profile, None)[0], requests[1]
    documents = sum(sent * groups for sent, groups in profile.sent.items())
    left = 1 - min(1.0, known / (_mean(profile.sent) * profile.groups or 1.0))
    most = _widened(profile, (documents, documents), _doubt(profile, float))[1] * left
    if job.vendor is None:
        return _Work(requests, most, (0, 0), (0, 0), (0.0, 0.0))
    units, (few, many) = _units(profile), _tokens(profile)
    tokens = round(few * left), round(many * left)
    units = max(units[0], requests[0]), max(units[1], requests[1])  # each costs at least one
    return _Work(requests, most, units, tokens, _cost(job.price, units, tokens))


def _requests(profile: Profile, documents_max: int | None) -> tuple[int, int]:
    """
    One for each group that needs a call, several for one above *documents_max*.
    """
    if documents_max is not None:
        sliced = float(sum(slices(n, documents_max) * many for n, many in profile.sent.items()))
        doubt = _doubt(profile, lambda sent: slices(sent, documents_max))
        low, high = _widened(profile, (sliced, sliced), doubt)
        return round(low), round(high)
    seen = sum(groups for sent, groups in profile.sent.items() if sent)
    if profile.complete:
        return seen, seen
    share, unseen = seen / profile.sampled, profile.groups - profile.sampled
    doubt = (2 * sqrt(share * (1 - share) * profile.batches) + 1) / profile.batches
    low, high = (min(1.0, max(0.0, share + sign * doubt)) for sign in (-1, 1))
    return seen + round(unseen * low), seen + round(unseen * high)


def _doubt(profile: Profile, amount: Callable[[int], float], lengths_vary: float = 0.0) -> float:
    """
    How far the mean of *amount*, a function of the documents that a group sends, may be from that
    of the groups that were not looked at, as a share of itself.

    Neighbours may be alike, so each batch counts as one draw: two standard errors, and one batch
    more for what is too rare to have been met. *lengths_vary* is the variation of texts' lengths.
    """
    if profile.complete:
        return 0.0
    amounts = [(amount(sent), groups) for sent, groups in profile.sent.items()]
    mean = sum(value * groups for value, groups in amounts) / profile.sampled
    if not mean:
        return 0.0
    squares = sum((value - mean) ** 2 * groups for value, groups in amounts) / profile.sampled
    return 2 * hypot(sqrt(squares) / mean, lengths_vary) / sqrt(profile.batches) + (
        1 / profile.batches
    )


def _widened(profile: Profile, seen: tuple[float, float], doubt: float) -> tuple[float, float]:
    """
    From what was *seen* to all that is left: exact where everything was looked at.
    """
    if profile.complete:
        return seen
    unseen = (profile.groups - profile.sampled) / profile.sampled
    low, high = seen
    return low * (1 + unseen * max(0.0, 1 - doubt)), high * (1 + unseen * (1 + doubt))


def _units(profile: Profile) -> tuple[int, int]:
    """
    Search units, by the documents and by how many of them count as several.
    """
    query = profile.queries.total_bytes / profile.queries.count if profile.queries.count else 0.0
    few, many = (
        chunks_mean(query, profile.documents.sample, per_token) for per_token in BYTES_PER_TOKEN
    )
    seen = (units_expected(profile.sent, few), units_expected(profile.sent, many))
    doubt = _doubt(profile, lambda sent: units_expected({sent: 1}, many))
    low, high = _widened(profile, seen, doubt)
    return round(low), round(high)


def _tokens(profile: Profile) -> tuple[int, int]:
    """
    Tokens: low counts the query once, high counts it for every document.
    """
    once = profile.queries.total_bytes + profile.documents.total_bytes
    seen = once / BYTES_PER_TOKEN[0], profile.pairs_bytes / BYTES_PER_TOKEN[1]
    lengths = profile.documents.sample
    vary = pstdev(lengths) / (fmean(lengths) or 1.0) if lengths else 0.0
    low, high = _widened(profile, seen, _doubt(profile, float, vary))
    return round(low), round(high)


def _cost(
    price: Price | None, units: tuple[int, int], tokens: tuple[int, int]
) -> tuple[float, float] | None:
    if price is None:
        return None
    return usd(price, units[0], tokens[0]), usd(price, units[1], tokens[1])


def _time(job: Job, work: _Work) -> tuple[float | None, str]:
    """
    Seconds at the limits (None: there are none), and which limit it is that holds.
    """
    limits, requests = job.config.limits, work.requests[1]
    held = []
    if job.vendor is not None:
        words = f"concurrency: {counted(limits.concurrency_most, 'call')} at once,"
        taken = requests * LATENCY_S / limits.concurrency_most
        held.append((taken, f"{words} taken to last {LATENCY_S} s each"))
    for limit, amount, what in (
        (limits.request_limit, float(requests), "requests"),
        (limits.document_limit, work.documents, "documents"),
        (limits.token_limit, float(work.tokens[1]), "tokens"),
    ):
        if limit is not None:
            held.append((amount / (HEADROOM * limit.per_s), f"the limit of {_limit(limit, what)}"))
    return max(held, default=(None, ""))


_PERIODS = {1.0: "a second", 60.0: "a minute", 3600.0: "an hour", 86_400.0: "a day"}


def _limit(limit: RateLimit, what: str) -> str:
    period = _PERIODS.get(limit.period_s) or f"in {limit.period_s:,g} s"
    return f"{limit.count:,g} {what} {period}"


def _mean(counts: Mapping[int, int]) -> float:
    groups = sum(counts.values())
    return sum(size * n for size, n in counts.items()) / groups if groups else 0.0


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


# --- warnings -------------------------------------------------------------------------------------


def _warnings(
    job: Job, source: ParquetSource, profile: Profile, past: _Past, work: _Work
) -> Iterator[str]:
    if past.refused:
        yield f"`run` refuses to carry on, and the figures are of beginning anew: {past.refused}"
    if job.in_process and (needs := job.in_process.missing()):
        yield f"`run` {needs}"
    if job.vendor is not None:
        yield from _about_money(job, past, work)
    yield from _about_groups(profile, billed=job.vendor is not None)
    yield from _about_texts(profile, job.config.source, billed=job.vendor is not None)
    if profile.row_group_bytes_max > ROW_GROUP_BYTES:
        largest = size(profile.row_group_bytes_max)
        yield f"a row group of {largest}: carrying on has to decode up to one of them anew"
    limits = job.config.limits
    if source.total and limits.request_limit is None and job.vendor is not None:
        yield (
            "no limit of requests: only the concurrency holds back"
            if limits.unlimited
            else "no limit of requests is told: the run begins slowly and finds it out by 429s"
        )


def _about_money(job: Job, past: _Past, work: _Work) -> Iterator[str]:
    price, cap = job.price, job.config.budget.cost_usd_max
    if price is None:
        yield f"no price of {job.model} is known: no cost can be estimated or capped"
    elif price.as_of and (age := (job.now.date() - date.fromisoformat(price.as_of)).days) > (
        PRICE_DAYS_MAX
    ):
        yield f"the price was seen {age} days ago: check it, and state it in [provider.price]"
    if cap is None or work.cost_usd is None:
        return
    low, high = (past.spent_nano_usd + nano_usd(cost) for cost in work.cost_usd)
    if high > nano_usd(cap):
        verb = "is not" if low > nano_usd(cap) else "may not be"
        spent = past.spent_nano_usd / NANO
        before = f", with ${spent:,.4f} spent before" if spent else ""
        yield (
            f"budget.cost_usd_max (${cap:,.4f}) {verb} enough: it can take ${high / NANO:,.4f}"
            f"{before}, and the run stops where the budget ends"
        )


def _about_groups(profile: Profile, *, billed: bool) -> Iterator[str]:
    many = sum(n for sent, n in profile.sent.items() if sent > DOCUMENTS_PER_UNIT)
    hundred = f"with more than {DOCUMENTS_PER_UNIT} candidates: each costs another search unit"
    counts = (
        (many if billed else 0, hundred),
        (profile.empty, "without candidates: no call, no rows"),
        (profile.blank_queries, "with an empty query: rejected without a call"),
        (profile.repeated_query_ids, "whose query_id came before: rows cannot be told apart by it"),
        *((n, f"rejected without a call: {flaw}") for flaw, n in profile.flaws.items()),
    )
    for count, words in counts:
        if count:
            yield f"{count:,} of {counted(profile.sampled, 'group')} {words}"


def _about_texts(profile: Profile, source: SourceTable, *, billed: bool) -> Iterator[str]:
    if cut := profile.cut_documents:
        are = "is" if cut == 1 else "are"
        yield f"{counted(cut, 'document')} {are} cut to source.max_chars ({source.max_chars:,})"
    sample = profile.documents.sample if billed else ()
    if sample and (long := sum(length > LONG_BYTES for length in sample)):
        share = 100 * long / len(sample)
        yield f"{share:.1f} % of documents are longer than about 500 tokens: they count as several"
    if blank := profile.blank_documents:
        yield f"{counted(blank, 'empty document')}: not sent, the score is null"
    if twice := profile.repeated_documents:
        before = f"{counted(twice, 'document')} stood in the same group before"
        is_sent = "sent and scored" if billed else "scored"
        yield (
            f"{before}: {is_sent} once, as source.dedupe_documents says"
            if source.dedupe_documents
            else f"{before}: {is_sent} twice, unless source.dedupe_documents = true"
        )


def _between(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
