"""
What may surprise somebody about a job before it runs: each in one line, with what mends it.

Owns the words, and from where on something is worth a word. The figures come from `estimate` and
from the profile of the source; what each cap leaves is `caps`'s business. Stops nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchrank.config.schema import LimitsTable, SourceTable
from batchrank.examine.caps import Cap
from batchrank.examine.estimate import Seen, cost_doubt, nano_usd_each, rule_of
from batchrank.job import Job
from batchrank.job.sampling import Sample
from batchrank.observe.report import counted, size
from batchrank.policy.billing import DOCUMENTS_PER_UNIT, about_age
from batchrank.policy.capacity import Bounds
from batchrank.source.parquet import ParquetSource
from batchrank.source.profile import Profile

LONG_BYTES = 2_000
"""About 500 tokens: a longer document counts as several."""

ROW_GROUP_BYTES = 512 * 1024 * 1024
"""What has to be decoded anew when a run carries on; a larger one is told."""


def warnings(job: Job, source: ParquetSource, seen: Seen, caps: Sequence[Cap]) -> Iterator[str]:
    """
    What of the job, of its source as far as it was looked at, and of its *caps* may surprise.
    """
    profile = seen.profile
    if job.in_process and (needs := job.in_process.missing()):
        yield f"`run` {needs}"
    if job.asks_somebody:
        yield from _about_price(job)
    yield from map(str, caps)
    if job.vendor is not None:
        yield from _about_sizes(seen, job.bounds)
    by_units = job.vendor is not None and rule_of(job).by_units
    yield from _about_groups(profile, by_units=by_units)
    yield from _about_long(profile, by_units=by_units)
    yield from _about_texts(profile, job.config.source, billed=job.asks_somebody)
    if profile.row_group_bytes_max > ROW_GROUP_BYTES:
        largest = size(profile.row_group_bytes_max)
        yield f"a row group of {largest}: carrying on has to decode up to one of them anew"
    if source.total and job.vendor is not None:
        yield from _about_limit(job.config.limits)


def _about_limit(limits: LimitsTable) -> Iterator[str]:
    if limits.request_limit is None:
        yield (
            "no limit of requests: only the concurrency holds back"
            if limits.unlimited
            else "no limit of requests is told: the run begins slowly and finds it out by 429s"
        )


def _about_price(job: Job) -> Iterator[str]:
    if job.price is None:
        yield f"no price of {job.model} is known: no cost can be estimated or capped"
    elif aged := about_age(job.price, job.now.date()):
        yield aged
    for way in job.ways[1:]:
        if way.price is None:
            yield f"no price of {way.model} by {way.name} is known: it is in no estimate"


def about_places(job: Job, seen: Seen, told: Sample) -> Iterator[str]:
    """
    Whether *told*, a sample that has been everywhere, shows that the groups that were looked at, at
    the beginnings of row groups, are like the others.
    """
    profile, billed = seen.profile, seen.meter.billed
    if profile.complete or not seen.meter.groups:
        return
    looked_at = billed.middle / seen.meter.groups * (nano_usd_each(job.price) or 1.0)
    everywhere, doubt = told.middle
    if abs(everywhere - looked_at) > doubt + looked_at * cost_doubt(profile, billed):
        factor = everywhere / looked_at
        yield (
            f"groups at random places are estimated at {factor:,.2f} times what those at the"
            " beginnings of row groups are, and only these were looked at: see --full"
        )


def _about_sizes(seen: Seen, bounds: Bounds) -> Iterator[str]:
    profile, most = seen.profile, None if bounds.splits else bounds.documents_max
    many = sum(n for sent, n in profile.sent.items() if most is not None and sent > most)
    if many:
        yield (
            f"{many:,} of {counted(profile.sampled, 'group')} with more documents than the {most:,}"
            " that one request may hold: `run` refuses the source before it calls anybody, unless"
            " provider.splits = true says that groups may be cut apart"
        )
    elif seen.meter.too_large:
        yield (
            f"{seen.meter.too_large:,} of {counted(profile.sampled, 'group')} with texts that are"
            " more than one request may hold: rejected without a call"
        )


def _about_groups(profile: Profile, *, by_units: bool) -> Iterator[str]:
    many = sum(n for sent, n in profile.sent.items() if sent > DOCUMENTS_PER_UNIT)
    hundred = f"with more than {DOCUMENTS_PER_UNIT} candidates: each costs another search unit"
    counts = (
        (many if by_units else 0, hundred),
        (profile.empty, "without candidates: no call, no rows"),
        (profile.blank_queries, "with an empty query: rejected without a call"),
        (profile.repeated_query_ids, "whose query_id came before: rows cannot be told apart by it"),
        *((n, f"rejected without a call: {flaw}") for flaw, n in profile.flaws.items()),
    )
    for count, words in counts:
        if count:
            yield f"{count:,} of {counted(profile.sampled, 'group')} {words}"


def _about_long(profile: Profile, *, by_units: bool) -> Iterator[str]:
    sample = profile.documents.sample if by_units else ()
    if sample and (long := sum(length > LONG_BYTES for length in sample)):
        share = 100 * long / len(sample)
        yield f"{share:.1f} % of documents are longer than about 500 tokens: they count as several"


def _about_texts(profile: Profile, source: SourceTable, *, billed: bool) -> Iterator[str]:
    if cut := profile.cut_documents:
        are = "is" if cut == 1 else "are"
        yield f"{counted(cut, 'document')} {are} cut to source.max_chars ({source.max_chars:,})"
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
