"""
What is left of a job, as low and high: requests, search units, tokens, money, and what drives it.

Owns the step from the groups that were looked at to all of them. Where all were, figures that do
not depend on tokens are exact. How a group is billed is `policy.foreseen`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from batchrank.domain import Document, Positions, Price
from batchrank.job import Job
from batchrank.job.ways import Way
from batchrank.policy.billing import NANO, TOKENS_PER_CHUNK, in_usd
from batchrank.policy.capacity import Bounds
from batchrank.policy.course import Estimate
from batchrank.policy.foreseen import UNTAUGHT, Driver, Meter, Rule, Sums, Taught
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import Profile


@dataclass(frozen=True, slots=True)
class Driven:
    """
    What one thing costs: *usd* would not be paid without it, *share* of the bill, *groups* have it.
    Each for itself, about, and at half way between low and high: they do not add up.
    """

    name: str
    usd: float
    share: float
    groups: int


@dataclass(frozen=True, slots=True)
class Foretold:
    """
    What is left to do: low and high. *documents* is the high one; *likely_usd* lies between the
    costs. *chars_max*: a document of so many characters counts once, as a rule.
    """

    requests: tuple[int, int]
    documents: float
    units: tuple[int, int]
    tokens: tuple[int, int]
    cost_usd: tuple[float, float] | None
    likely_usd: float | None = None
    drivers: tuple[Driven, ...] = ()
    chars_max: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """
    The groups that were looked at: what they are like, and what they would cost by the first way,
    and by each of the *others*.
    """

    profile: Profile
    meter: Meter
    others: tuple[Meter, ...] = ()


@dataclass(frozen=True, slots=True)
class Looking:
    """
    How a source is looked at: for *seconds_max*, or (*full*) at every text.
    """

    job: Job
    source: ParquetSource
    seconds_max: float
    full: bool = False

    def beyond(self, done: Positions) -> Seen:
        """
        Look at groups that are not in *done*.
        """
        rules = rules_of(self.job)
        meters = {rule: Meter(rule) for rule in rules}  # ways that bill alike are looked at once

        def see(query: str, documents: Sequence[Document]) -> None:
            for meter in meters.values():
                meter.add(query, documents)

        profile = self.source.profile(self.seconds_max, full=self.full, done=done, see=see)
        first, *others = (meters[rule] for rule in rules)
        return Seen(profile, first, tuple(others))


def rules_of(job: Job) -> list[Rule]:
    """
    How calls are billed on each way. Groups are cut for the first one, and what another one does
    not take of that is cut again.
    """
    first, *others = (_plain(way.bounds) for way in job.ways)
    before = [Bounds() if most == first else first for most in (first, *others)]
    return [_rule(*each) for each in zip(job.ways, (first, *others), before, strict=True)]


def _plain(bounds: Bounds) -> Bounds:
    """
    *bounds* as far as they cut groups: equal, where ways cut alike by the number of documents.
    """
    if bounds.weighs:
        return bounds
    return Bounds(bounds.documents_max, hundreds=bounds.hundreds, splits=bounds.splits)


def _rule(way: Way, bounds: Bounds, before: Bounds) -> Rule:
    """
    How calls are billed on one way; by search units where no price says otherwise.
    """
    by_tokens = way.price is not None and way.price.usd_per_search_unit is None
    each = way.vendor.query_each if way.vendor else None
    return Rule(not by_tokens, each, bounds, before)


def rule_of(job: Job) -> Rule:
    """
    How they are billed on the first way.
    """
    return rules_of(job)[0]


def nano_usd_each(price: Price | None) -> float:
    """
    What a search unit costs, or a token where these are billed; 0 where nobody knows.
    """
    if price is None:
        return 0.0
    if price.usd_per_search_unit is not None:
        return price.usd_per_search_unit * NANO
    return (price.usd_per_million_tokens or 0.0) * NANO / 1_000_000


def foretold(job: Job, seen: Seen, known: int = 0, taught: Taught = UNTAUGHT) -> Foretold:
    """
    What *seen* foretells; so many *known* documents of it are not sent. Without a price the bills
    that have *taught* were compared, in 10^-9 US dollars, with plain amounts.
    """
    profile, meter = seen.profile, seen.meter
    requests = _requests(seen, job.bounds)
    if known:  # how many of a group's is not known: one request at least, and no more than as ever
        requests = min(requests[0], _requests(seen, Bounds())[0]), requests[1]
    documents = float(sum(sent * groups for sent, groups in profile.sent.items()))
    left = 1 - min(1.0, known / (mean(profile.sent) * profile.groups or 1.0))
    most = _widened(profile, (documents, documents), _doubt(profile, float))[1] * left
    if not job.asks_somebody:
        return Foretold(requests, most, (0, 0), (0, 0), (0.0, 0.0))
    units, tokens = (_extended(profile, sums) for sums in (meter.units, meter.tokens))
    units = max(units[0], requests[0]), max(units[1], requests[1])  # each costs at least one
    least = requests if meter.rule.by_units and taught.by_rule else (0, 0)
    money = _money(job.price, seen, taught, 1.0 if meter.rule.by_units else left, least)
    return Foretold(
        requests,
        most,
        (round(units[0]), round(units[1])),
        (round(tokens[0] * left), round(tokens[1] * left)),
        money and (money[0], max(money[2], _elsewhere(job, seen, requests[1], left))),
        money and money[1],
        (*_drivers(seen, money[1]),) if money and meter.groups else (),
        _chars_max(meter),
    )


def _elsewhere(job: Job, seen: Seen, requests: int, left: float) -> float:
    """
    What all costs at most on the dearest of the other ways, in US dollars, as far as that is known:
    a search unit for each of the *requests* at least, or this share of the tokens that is *left*.
    """

    def usd(price: Price | None, meter: Meter) -> float:
        most = _extended(seen.profile, meter.billed)[1]
        most = max(most, requests) if meter.rule.by_units else most * left
        return in_usd(most * nano_usd_each(price))

    ways = zip(job.ways[1:], seen.others, strict=True)
    return max((usd(way.price, meter) for way, meter in ways), default=0.0)


def left_to_pay(looking: Looking, done: Positions, known: int) -> Estimate | None:
    """
    What the groups that are not in *done* will cost, of which so many *known* documents are not
    sent; None without a price.
    """
    seen = looking.beyond(done)
    cost = foretold(looking.job, seen, known).cost_usd
    if cost is None:
        return None
    profile = seen.profile
    called = round(seen.meter.groups * profile.groups / (profile.sampled or 1))
    return Estimate(called, profile.sampled, *cost)


def _money(
    price: Price | None, seen: Seen, taught: Taught, left: float, least: tuple[int, int]
) -> tuple[float, float, float] | None:
    """
    Low, likely and high in US dollars, no less than those of *least*. Without a price only replies
    can tell.
    """
    if price is None and taught.by_rule:
        return None
    profile, sums = seen.profile, seen.meter.billed
    each = nano_usd_each(price) if price else 1.0
    low, likely, high = taught.applied(sums)
    low, high = _widened(profile, (low, high), cost_doubt(profile, sums))
    likely *= profile.groups / (profile.sampled or 1)
    low, high = max(low * left, least[0]), max(high * left, least[1])
    likely = min(high, max(low, likely * left))
    return in_usd(low * each), in_usd(likely * each), in_usd(high * each)


def _drivers(seen: Seen, likely_usd: float) -> list[Driven]:
    whole = seen.meter.billed.middle or 1.0
    scale = seen.profile.groups / (seen.profile.sampled or 1)
    shares = {name: amount / whole for name, amount in seen.meter.drivers.items() if amount}
    found = [
        Driven(name.value, share * likely_usd, share, round(seen.meter.driven[name] * scale))
        for name, share in shares.items()
    ]
    return sorted(found, key=lambda driven: -driven.usd)


def _chars_max(meter: Meter) -> int | None:
    """
    The length, as `source.max_chars` has it, up to which a document counts once.
    """
    if not meter.drivers[Driver.LONG]:
        return None
    room = max(0.0, TOKENS_PER_CHUNK - meter.query_tokens / meter.groups)
    chars = int(room * meter.document_chars / meter.document_tokens)
    return chars // 100 * 100 or None


# --- from some groups to all ----------------------------------------------------------------------


def _extended(profile: Profile, sums: Sums) -> tuple[float, float]:
    return _widened(profile, (sums.low, sums.high), cost_doubt(profile, sums))


def cost_doubt(profile: Profile, sums: Sums) -> float:
    """
    As `_doubt`, of what groups cost.
    """
    if profile.complete or not sums.middle:
        return 0.0
    each = sums.middle / profile.sampled
    variance = max(0.0, sums.squares / profile.sampled - each**2)
    return _of_batches(profile, sqrt(variance) / each)


def _of_batches(profile: Profile, variation: float) -> float:
    """
    Neighbours may be alike, so each batch counts as one draw: two standard errors, and one batch
    more for what is too rare to have been met.
    """
    return 2 * variation / sqrt(profile.batches) + 1 / profile.batches


def _requests(found: Seen, bounds: Bounds) -> tuple[int, int]:
    """
    One for each group that needs a call; where *bounds* may cut groups, as many as were counted.
    """
    profile = found.profile
    if bounds.weighs or (bounds.documents_max is not None and bounds.splits):
        low, high = _extended(profile, found.meter.requests)
        return round(low), round(high)
    seen = sum(groups for sent, groups in profile.sent.items() if sent)
    if profile.complete:
        return seen, seen
    share, unseen = seen / profile.sampled, profile.groups - profile.sampled
    doubt = (2 * sqrt(share * (1 - share) * profile.batches) + 1) / profile.batches
    low, high = (min(1.0, max(0.0, share + sign * doubt)) for sign in (-1, 1))
    return seen + round(unseen * low), seen + round(unseen * high)


def _doubt(profile: Profile, amount: Callable[[int], float]) -> float:
    """
    How far the mean of *amount*, a function of the documents that a group sends, may be from that
    of the groups that were not looked at, as a share of itself.
    """
    if profile.complete:
        return 0.0
    amounts = [(amount(sent), groups) for sent, groups in profile.sent.items()]
    whole = sum(value * groups for value, groups in amounts) / profile.sampled
    if not whole:
        return 0.0
    squares = sum((value - whole) ** 2 * groups for value, groups in amounts) / profile.sampled
    return _of_batches(profile, sqrt(squares) / whole)


def _widened(profile: Profile, seen: tuple[float, float], doubt: float) -> tuple[float, float]:
    """
    From what was *seen* to all that is left: exact where everything was looked at.
    """
    if profile.complete:
        return seen
    unseen = (profile.groups - profile.sampled) / profile.sampled
    low, high = seen
    return low * (1 + unseen * max(0.0, 1 - doubt)), high * (1 + unseen * (1 + doubt))


def mean(counts: Mapping[int, int]) -> float:
    """
    The mean of values that come so many times.
    """
    groups = sum(counts.values())
    return sum(size * n for size, n in counts.items()) / groups if groups else 0.0
