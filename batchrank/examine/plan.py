"""
What a job would do and cost, before anything is paid.

Owns the estimates and the warnings. Footers are read in full, texts are sampled for some seconds
(or scanned); nobody is called and nothing is written, so the key is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from batchrank.domain import Price, RateLimit
from batchrank.job import Job
from batchrank.job.ending import Account
from batchrank.observe.panel import duration
from batchrank.policy.billing import DOCUMENTS_PER_UNIT, chunks_mean, units_expected, usd
from batchrank.policy.pace import HEADROOM
from batchrank.source.parquet import ParquetSource, open_source
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
    What a job would do. Pairs are low and high estimates; costs are US dollars.
    """

    job: str
    model: str
    source: str
    files: int
    groups: int
    done: int
    sampled: int
    candidates: Spread
    query_bytes: Spread
    document_bytes: Spread
    requests: int
    search_units: tuple[int, int]
    tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None
    price: Price | None
    seconds: float
    held_by: str
    ledger_bytes: int
    output_bytes: int
    output: str
    state: str
    warnings: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return asdict(self)

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        return "\n".join(f"{name:<12}{value}" for name, value in self._lines() if value)

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "job", f"{self.job}: {self.model}"
        yield "source", f"{self.source}: {self.files:,} files, {self.groups:,} groups"
        yield "done", f"{self.done:,} groups are done already" if self.done else ""
        share = "all" if self.sampled == self.groups else f"{self.sampled:,} sampled"
        yield "candidates", f"per group {self.candidates} ({share})"
        yield "texts", f"queries, bytes: {self.query_bytes}"
        yield "", f"documents, bytes: {self.document_bytes}"
        yield "requests", f"{self.requests:,} still to be sent"
        yield "units", f"{_between(self.search_units)} search units"
        yield "cost", self._cost()
        yield "time", f"{duration(self.seconds)}, held by {self.held_by}"
        disk = f"about {_size(self.ledger_bytes)} state, {_size(self.output_bytes)} output"
        yield "disk", disk
        yield "output", self.output
        yield "state", self.state
        for warning in self.warnings:
            yield "warning", warning

    def _cost(self) -> str:
        if self.cost_usd is None or self.price is None:
            return "not known: no price of this model (state it in [provider.price])"
        low, high = self.cost_usd
        per = self.price.usd_per_search_unit
        unit = f"${per} a search unit" if per is not None else ""
        million = self.price.usd_per_million_tokens
        unit = unit or f"${million} a million tokens"
        seen = f", seen {self.price.as_of} ({self.price.source})" if self.price.as_of else ""
        return f"${low:,.4f} to ${high:,.4f}, at {unit}{seen}"


def plan(job: Job, *, full: bool = False, sample_s_max: float = SAMPLE_S_MAX) -> JobPlan:
    """
    Estimate what *job* (loaded without its key) would do; *full* looks at every text.

    Raises:
        NotReady, SourceError: the source cannot be read as the job says.
    """
    source = open_source(job.config.source, job.base)
    profile = source.profile(sample_s_max, full=full)
    done = _done(job)
    scale = (source.total - done) / profile.sampled if profile.sampled else 0.0
    requests = round(scale * sum(groups for sent, groups in profile.sent.items() if sent))
    documents = scale * sum(sent * groups for sent, groups in profile.sent.items())
    units, tokens = _units(profile, scale), _tokens(profile, scale)
    price = job.price
    seconds, held_by = _time(job, requests, documents)
    mean = _mean(profile.candidates)
    return JobPlan(
        job=job.config.name,
        model=job.model,
        source=job.config.source.path,
        files=len(source.files),
        groups=source.total,
        done=done,
        sampled=profile.sampled,
        candidates=_spread_of(profile.candidates),
        query_bytes=_lengths(profile.queries),
        document_bytes=_lengths(profile.documents),
        requests=requests,
        search_units=units,
        tokens=tokens,
        cost_usd=_cost(price, units, tokens),
        price=price,
        seconds=seconds,
        held_by=held_by,
        ledger_bytes=round(source.total * (LEDGER_BYTES_A_GROUP + mean * LEDGER_BYTES_A_CANDIDATE)),
        output_bytes=round(source.total * mean * OUTPUT_BYTES_A_CANDIDATE),
        output=str(job.output),
        state=str(job.state.path),
        warnings=tuple(_warnings(job, source, profile, price)),
    )


def _done(job: Job) -> int:
    if not job.state.ledger.exists():
        return 0
    with LedgerReader.open(job.state.ledger) as ledger:
        return Account.of(ledger).done


# --- estimates ------------------------------------------------------------------------------------


def _units(profile: Profile, scale: float) -> tuple[int, int]:
    """
    Search units: low counts documents, high counts chunks too.
    """
    query = profile.queries.total_bytes / profile.queries.count if profile.queries.count else 0.0
    few, many = (
        chunks_mean(query, profile.documents.sample, per_token) for per_token in BYTES_PER_TOKEN
    )
    low, high = (units_expected(profile.sent, chunks) for chunks in (few, many))
    return round(scale * low), round(scale * high)


def _tokens(profile: Profile, scale: float) -> tuple[int, int]:
    """
    Tokens: low counts the query once, high counts it for every document.
    """
    once = profile.queries.total_bytes + profile.documents.total_bytes
    low, high = once / BYTES_PER_TOKEN[0], profile.pairs_bytes / BYTES_PER_TOKEN[1]
    return round(scale * low), round(scale * high)


def _cost(
    price: Price | None, units: tuple[int, int], tokens: tuple[int, int]
) -> tuple[float, float] | None:
    if price is None:
        return None
    return usd(price, units[0], tokens[0]), usd(price, units[1], tokens[1])


def _time(job: Job, requests: int, documents: float) -> tuple[float, str]:
    """
    Seconds at the limits, and which limit it is that holds.
    """
    limits = job.config.limits
    concurrency = f"{limits.concurrency_max} in flight, if a call takes {LATENCY_S} s"
    held = [(requests * LATENCY_S / limits.concurrency_max, concurrency)]
    for limit, amount, what in (
        (limits.request_limit, float(requests), "requests"),
        (limits.document_limit, documents, "documents"),
    ):
        if limit is not None:
            held.append((amount / (HEADROOM * limit.per_s), f"{_limit(limit)} {what}"))
    return max(held)


def _limit(limit: RateLimit) -> str:
    return f"{limit.count:,g} per {limit.period_s:,g} s"


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
    job: Job, source: ParquetSource, profile: Profile, price: Price | None
) -> Iterator[str]:
    if price is None:
        yield f"no price of {job.model} is known: no cost can be estimated or capped"
    elif price.as_of and (age := (job.now.date() - date.fromisoformat(price.as_of)).days) > (
        PRICE_DAYS_MAX
    ):
        yield f"the price was seen {age} days ago: check it, and state it in [provider.price]"
    yield from _about_groups(profile)
    yield from _about_texts(profile)
    if profile.row_group_bytes_max > ROW_GROUP_BYTES:
        size = _size(profile.row_group_bytes_max)
        yield f"a row group of {size}: carrying on has to decode up to one of them anew"
    if source.total and job.config.limits.request_limit is None and job.vendor is not None:
        yield "no limit of requests is set: only the concurrency holds back"


def _about_groups(profile: Profile) -> Iterator[str]:
    many = sum(n for sent, n in profile.sent.items() if sent > DOCUMENTS_PER_UNIT)
    counts = (
        (many, f"with more than {DOCUMENTS_PER_UNIT} candidates: each costs another search unit"),
        (profile.empty, "without candidates: no call, no rows"),
        (profile.blank_queries, "with an empty query: rejected without a call"),
        (profile.repeated_query_ids, "whose query_id came before: rows cannot be told apart by it"),
        *((n, f"rejected without a call: {flaw}") for flaw, n in profile.flaws.items()),
    )
    for count, words in counts:
        if count:
            yield f"{count:,} of {profile.sampled:,} groups {words}"


def _about_texts(profile: Profile) -> Iterator[str]:
    sample = profile.documents.sample
    if sample and (long := sum(length > LONG_BYTES for length in sample)):
        share = 100 * long / len(sample)
        yield f"{share:.1f} % of documents are longer than about 500 tokens: they count as several"
    if profile.blank_documents:
        yield f"{profile.blank_documents:,} empty documents: not sent, their score is null"
    if profile.repeated_documents:
        yield f"{profile.repeated_documents:,} documents stand twice in their group: paid twice"


def _between(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _size(size_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"
