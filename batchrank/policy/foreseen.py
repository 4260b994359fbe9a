"""
The bill of a job before it is paid: what each group costs at least and at most, and what drives it.

Owns the billing rules as arithmetic on estimated tokens, their sums over the groups that are shown
(in memory that does not grow), and what replies teach about where between least and most a
provider counts. Amounts are search units, or tokens where these are billed; a price makes money of
them. Reads nothing and asks nobody: which groups are looked at, and which are asked about, is
decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, sqrt

from batchrank.domain import Document, text_of
from batchrank.policy.billing import DOCUMENTS_PER_UNIT, TOKENS_PER_CHUNK, places, units_of
from batchrank.policy.capacity import Bounds
from batchrank.policy.characters import Tokens, tokens_between
from batchrank.policy.slicing import pieces

MIDDLE = 0.5
"""Where between least and most the drivers of a bill are reckoned."""


class Driver(StrEnum):
    """
    What makes a bill larger than it had to be, or no smaller.
    """

    CANDIDATES = "candidates_beyond_100"
    LONG = "long_documents"
    VACANT = "places_unused"
    QUERIES = "queries_repeated"
    REPEATED = "documents_repeated"


Cut = Sequence[tuple[int, int]]
"""The documents of each request of a group: from which on, and up to which."""


@dataclass(frozen=True, slots=True)
class Rule:
    """
    How calls are billed: by search units, or (*by_units* False) by tokens. *query_each*: the query
    counts once for every document; None where no document of the provider says so, and then it may
    count once a call, or so. A request holds what *bounds* say; *before* is what groups have been
    cut to already, for another way.
    """

    by_units: bool
    query_each: bool | None = None
    bounds: Bounds = field(default_factory=Bounds)
    before: Bounds = field(default_factory=Bounds)

    def cut(self, query: str, documents: Sequence[Document]) -> Cut:
        """
        Where a group's documents are cut into requests; empty if no request can hold them.
        """
        whole = pieces(query, documents, self.before)
        again = (
            (start, pieces(query, documents[start:stop], self.bounds)) for start, stop in whole
        )
        return [(start + a, start + b) for start, cut in again for a, b in cut]


class Sums:
    """
    Sums over groups of what each costs: *low*, *high*, *middle*, and the squares of *middle*.
    """

    def __init__(self) -> None:
        self.low = self.high = self.middle = self.squares = 0.0

    def add(self, low: float, high: float) -> None:
        """
        Count one group.
        """
        middle = low + MIDDLE * (high - low)
        self.low += low
        self.high += high
        self.middle += middle
        self.squares += middle * middle


@dataclass(slots=True)
class Meter:
    """
    Adds up what groups cost by *rule* as they are shown; *drivers* are amounts, *driven* groups.
    Those that are *too_large* for any request are in no sum: they are rejected for nothing.
    Texts are measured in the middle of their estimates. *requests* are counted, not estimated: they
    are cut as a run cuts them.
    """

    rule: Rule
    requests: Sums = field(default_factory=Sums)
    units: Sums = field(default_factory=Sums)
    tokens: Sums = field(default_factory=Sums)
    drivers: dict[Driver, float] = field(default_factory=lambda: dict.fromkeys(Driver, 0.0))
    driven: dict[Driver, int] = field(default_factory=lambda: dict.fromkeys(Driver, 0))
    groups: int = 0
    too_large: int = 0
    query_tokens: float = 0.0
    document_tokens: float = 0.0
    document_chars: int = 0

    @property
    def billed(self) -> Sums:
        """
        The sums of what is paid for.
        """
        return self.units if self.rule.by_units else self.tokens

    def add(self, query: str, documents: Sequence[Document]) -> None:
        """
        Count a group that would send so many *documents*, one at least.
        """
        cut = self.rule.cut(query, documents)
        if not cut:
            self.too_large += 1
            return
        texts = [*map(text_of, documents)]
        measured = Measured(tokens_between(query), [*map(tokens_between, texts)], cut)
        self.groups += 1
        self.requests.add(len(cut), len(cut))
        self.query_tokens += measured.query.at(MIDDLE)
        self.document_tokens += sum(length.at(MIDDLE) for length in measured.documents)
        self.document_chars += sum(map(len, texts))
        self.units.add(*(search_units(measured, place) for place in (0, 1)))
        self.tokens.add(*tokens(measured, self.rule))
        for driver, amount in driven_by(measured, query, documents, self.rule):
            if amount > 0:
                self.drivers[driver] += amount
                self.driven[driver] += 1

    @classmethod
    def alone(cls, rule: Rule, query: str, documents: Sequence[Document]) -> tuple[float, float]:
        """
        What one group costs at least and at most.
        """
        meter = cls(rule)
        meter.add(query, documents)
        return meter.billed.low, meter.billed.high


# --- one group ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """
    The estimated lengths of one group's texts, and where these are *cut* into requests.
    """

    query: Tokens
    documents: Sequence[Tokens]
    cut: Cut

    def at(self, place: float) -> tuple[float, list[float]]:
        """
        Query and documents, so far between the least and the most (see `Tokens.at`).
        """
        return self.query.at(place), [document.at(place) for document in self.documents]


def search_units(measured: Measured, place: float) -> int:
    """
    The search units of a group: each request has its own, and a document longer than 500 tokens,
    the query's included, counts as several (`billing` says where this rule is from).
    """
    query, documents = measured.at(place)
    return _units(query, documents, measured.cut)


def _units(query: float, documents: Sequence[float], cut: Cut) -> int:
    return sum(units_of(query, documents[start:stop]) for start, stop in cut)


def tokens(measured: Measured, rule: Rule) -> tuple[float, float]:
    """
    The tokens of a group, at least and at most.
    """
    count, requests = len(measured.documents), len(measured.cut)
    low = sum(length.low for length in measured.documents)
    high = sum(length.high for length in measured.documents)
    fewest = count if rule.query_each else requests
    most = requests if rule.query_each is False else count
    return low + fewest * measured.query.low, high + most * measured.query.high


def driven_by(
    measured: Measured, query: str, documents: Sequence[Document], rule: Rule
) -> Iterable[tuple[Driver, float]]:
    """
    What would not be paid if something were otherwise, each for itself: they do not add up.
    """
    query_tokens, lengths = measured.at(MIDDLE)
    reckoned = _Reckoned(rule, query, query_tokens)
    whole = reckoned.amount(lengths, measured.cut)
    if len(lengths) > DOCUMENTS_PER_UNIT:
        # A hundred long ones fill more than a unit: then it is fewer that fit.
        few = documents[:DOCUMENTS_PER_UNIT]
        kept = 1.0 if rule.by_units else reckoned.of(few, lengths[:DOCUMENTS_PER_UNIT])
        yield Driver.CANDIDATES, whole - kept
    room = max(1.0, TOKENS_PER_CHUNK - query_tokens)
    if max(lengths) > room:
        short = [min(length, room) for length in lengths]
        yield Driver.LONG, whole - reckoned.amount(short, measured.cut)
    if len(firsts := dict(zip(documents, lengths, strict=True))) < len(lengths):
        yield Driver.REPEATED, whole - reckoned.of([*firsts], [*firsts.values()])
    if rule.by_units:
        yield Driver.VACANT, whole - places(query_tokens, lengths) / DOCUMENTS_PER_UNIT
    elif rule.query_each is not False:
        yield Driver.QUERIES, query_tokens * (len(lengths) - 1)


@dataclass(frozen=True, slots=True)
class _Reckoned:
    rule: Rule
    query: str
    query_tokens: float

    def of(self, documents: Sequence[Document], lengths: Sequence[float]) -> float:
        return self.amount(lengths, self.rule.cut(self.query, documents))

    def amount(self, lengths: Sequence[float], cut: Cut) -> float:
        if self.rule.by_units:
            return _units(self.query_tokens, lengths, cut)
        each = self.rule.query_each is not False
        return self.query_tokens * (len(lengths) if each else len(cut)) + sum(lengths)


# --- what replies teach ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Billed:
    """
    What a group was estimated at, and what it was billed, in the same unit.
    """

    low: float
    high: float
    billed: float

    @property
    def as_the_rule_says(self) -> bool:
        """
        It lies within its estimate, but for rounding.
        """
        return self.low * (1 - ROUNDING) <= self.billed <= self.high * (1 + ROUNDING)


ROUNDING = 1e-6
"""Prices are fractions, bills whole billionths of a dollar."""

RARE = 3.0
"""
What so many calls have not shown may still be true of three in so many: the rule of three for 95 %
(Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?", JAMA 249, 1983).
"""


@dataclass(frozen=True, slots=True)
class Taught:
    """
    What some calls, chosen at random, say about all: the bill is *low* to *high* and probably
    *likely*, as places between least and most (*by_rule*, see `Tokens.at`), or as factors of the
    middle where bills leave what the rule says.
    """

    low: float
    likely: float
    high: float
    by_rule: bool = True

    def applied(self, sums: Sums) -> tuple[float, float, float]:
        """
        *sums* as *low*, *likely* and *high* say.
        """
        base, band = (sums.low, sums.high - sums.low) if self.by_rule else (0.0, sums.middle)
        return base + self.low * band, base + self.likely * band, base + self.high * band


UNTAUGHT = Taught(0.0, MIDDLE, 1.0)


def taught(calls: Sequence[Billed]) -> Taught:
    """
    The ratio estimator, with a 99 % interval by Student's t (Cochran, "Sampling Techniques", 3rd
    edition, 6.3 and 6.4), widened for what is too rare to have been met.

    What is related to each other is what the estimate leaves open: the bill above the least, to the
    most above the least. So groups whose bill is certain teach nothing, and are not doubted either.
    Where a bill leaves its estimate the rule is another one: then it is the whole bill, to the
    middle of the estimate.
    """
    by_rule = all(call.as_the_rule_says for call in calls)
    pairs = [
        (call.billed - call.low, call.high - call.low)
        if by_rule
        else (call.billed, (call.low + call.high) / 2)
        for call in calls
    ]
    pairs = [(billed, open_) for billed, open_ in pairs if open_ > 0]
    if len(pairs) < 2:
        return UNTAUGHT
    likely, doubt = _ratio(pairs)
    if not by_rule:
        doubt += likely * RARE / len(pairs)
        return Taught(max(0.0, likely - doubt), likely, likely + doubt, by_rule=False)
    doubt += RARE / len(pairs)
    likely = min(1.0, max(0.0, likely))
    return Taught(max(0.0, likely - doubt), likely, min(1.0, likely + doubt))


def middle_of(calls: Sequence[Billed]) -> tuple[float, float]:
    """
    What groups at random places were estimated at on the average, in the middle, and how far the
    average of all may be from that; infinitely far where there are less than two.
    """
    if len(calls) < 2:
        return 0.0, inf
    return _ratio([((call.low + call.high) / 2, 1.0) for call in calls])


def _ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """
    The ratio of two sums, and half of its interval.
    """
    count = len(pairs)
    below = sum(x for _, x in pairs)
    ratio = sum(y for y, _ in pairs) / below
    squares = sum((y - ratio * x) ** 2 for y, x in pairs)
    error = sqrt(squares / (count - 1) / count) / (below / count)
    return ratio, student(count - 1) * error


Z = 2.575829
"""Of the normal distribution 99 % lie within so many standard deviations."""

_FEW = (63.657, 9.925, 5.841, 4.604)


def student(freedom: int) -> float:
    """
    So far out Student's t with so many degrees of *freedom* has 1 % of it, on both sides together.

    From the fifth on it is Fisher's expansion (Abramowitz and Stegun, 26.7.5): right to 0.6 %.
    """
    if freedom <= len(_FEW):
        return _FEW[freedom - 1]
    first = (Z**3 + Z) / 4
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    third = (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384
    return Z + first / freedom + second / freedom**2 + third / freedom**3
