"""
A plan: what it consists of, and its words for a person.

Owns no figure: `plan` finds them, `estimate` reckons.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from batchrank.domain import Price
from batchrank.examine.caps import Cap
from batchrank.examine.estimate import Driven
from batchrank.job.sampling import Sample
from batchrank.observe.panel import duration
from batchrank.observe.report import as_shown, counted, size
from batchrank.policy.billing import DOCUMENTS_PER_UNIT, in_usd
from batchrank.policy.foreseen import Driver

TOLD_SHARE = 0.01
"""What makes less of the bill is not told to people."""


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


def _between(pair: tuple[int, int]) -> str:
    low, high = pair
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
