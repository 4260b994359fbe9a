"""
What a source is like: how many candidates, how long the texts, how much of it is empty.

Owns counting, in memory that does not grow with the source. Draws no conclusion: what a job would
cost is for `examine` to say.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from batchrank.domain import Document, Group, RichDocument, text_of

SAMPLE_MAX = 10_000
"""So many lengths of each kind are kept; every length has the same chance to be among them."""

QUERY_IDS_MAX = 500_000
"""Repeated ids are looked for among so many groups."""

See = Callable[[str, tuple[Document, ...]], None]
"""Is shown the query and the documents that a group would send, if it sends any."""


def nothing_seen(_query: str, _documents: tuple[Document, ...]) -> None:
    """
    For whoever wants to know no more than a profile tells.
    """


def sendable(group: Group) -> tuple[Document, ...]:
    """
    The documents that would be sent if the group is asked about; none if it need not be.
    """
    if group.flaw is not None or not group.query.strip():
        return ()
    documents = tuple(document for document in group.documents if document is not None)
    return tuple(dict.fromkeys(documents)) if group.firsts else documents


@dataclass(frozen=True, slots=True)
class Lengths:
    """
    Lengths in bytes of UTF-8: how many, their sum, the longest, and a fair sample.
    """

    count: int
    total_bytes: int
    bytes_max: int
    sample: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Profile:
    """
    What was found in the groups that were looked at.

    Attributes:
        groups: that there are to look at: the whole source, but for those that are done.
        sampled: groups that were looked at; *complete* if these are all.
        batches: of neighbours in which they came: such groups may be alike.
        candidates: how many groups have so many candidates.
        sent: how many groups would ask about so many documents; groups that need no call count 0.
            Equal documents count once where they are sent once.
        queries, documents: lengths of what would be sent, each text once.
        empty: groups without candidates.
        blank_queries: groups that have candidates and no query.
        blank_documents: candidates without anything to send.
        images: candidates with an image.
        cut_documents: candidates whose text is longer than it may be, and is cut.
        repeated_documents: candidates whose group has the same document before.
        repeated_query_ids: groups among the first `query_ids` whose id was seen before.
        flaws: groups that are flawed, by what is wrong, at most a hundred kinds.
        row_group_bytes_max: the largest row group, uncompressed, in the whole source.
    """

    groups: int
    sampled: int
    batches: int
    candidates: Mapping[int, int]
    sent: Mapping[int, int]
    queries: Lengths
    documents: Lengths
    empty: int
    blank_queries: int
    blank_documents: int
    images: int
    cut_documents: int
    repeated_documents: int
    query_ids: int
    repeated_query_ids: int
    flaws: Mapping[str, int]
    row_group_bytes_max: int

    @property
    def complete(self) -> bool:
        """
        Every group was looked at.
        """
        return self.sampled == self.groups


class _Reservoir:
    """
    Lengths as they come.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0
        self._total = 0
        self._longest = 0
        self._sample: list[int] = []

    def add(self, text: str) -> None:
        length = len(text.encode())
        self._count += 1
        self._total += length
        self._longest = max(self._longest, length)
        if self._count <= SAMPLE_MAX:
            self._sample.append(length)
        elif (place := int(self._chance.random() * self._count)) < SAMPLE_MAX:
            self._sample[place] = length

    def lengths(self) -> Lengths:
        return Lengths(self._count, self._total, self._longest, tuple(self._sample))


class Tally:
    """
    Counts groups as they are shown.
    """

    def __init__(self, seed: int, see: See = nothing_seen) -> None:
        self._see = see
        chance = random.Random(seed)  # noqa: S311 - a fair sample, not a secret
        self.sampled = 0
        self._batches = 0
        self._candidates: Counter[int] = Counter()
        self._sent: Counter[int] = Counter()
        self._queries = _Reservoir(chance)
        self._documents = _Reservoir(chance)
        self._counts: Counter[str] = Counter()
        self._flaws: Counter[str] = Counter()
        self._ids: set[int] = set()

    def add_batch(self, groups: Iterable[Group]) -> None:
        """
        Count groups that stand together.
        """
        before = self.sampled
        for group in groups:
            self._add_group(group)
        self._batches += self.sampled > before

    def _add_group(self, group: Group) -> None:
        self.sampled += 1
        self._candidates[len(group.documents)] += 1
        self._count_id(group)
        sent = sendable(group)
        self._sent[len(sent)] += 1
        if group.flaw is not None:
            self._count_flaw(group.flaw)
        else:
            self._count_documents(group)
        if sent:
            self._queries.add(group.query)
            for document in sent:
                self._documents.add(text_of(document))
            self._see(group.query, sent)

    def _count_documents(self, group: Group) -> None:
        documents = tuple(document for document in group.documents if document is not None)
        counts = self._counts
        counts["empty"] += not group.documents
        counts["blank_documents"] += len(group.documents) - len(documents)
        counts["repeated_documents"] += len(documents) - len(set(documents))
        counts["images"] += sum(isinstance(document, RichDocument) for document in documents)
        counts["cut_documents"] += group.cut
        counts["blank_queries"] += bool(group.documents and not group.query.strip())

    def _count_id(self, group: Group) -> None:
        if self._counts["query_ids"] < QUERY_IDS_MAX:
            self._counts["query_ids"] += 1
            known = len(self._ids)
            self._ids.add(hash(group.query_id))
            self._counts["repeated_query_ids"] += len(self._ids) == known

    def _count_flaw(self, flaw: str) -> None:
        if flaw in self._flaws or len(self._flaws) < 99:
            self._flaws[flaw] += 1
        else:
            self._flaws["other"] += 1

    def profile(self, groups: int, row_group_bytes_max: int) -> Profile:
        """
        What has been counted, as a value.
        """
        counts = self._counts
        return Profile(
            groups=groups,
            sampled=self.sampled,
            batches=self._batches,
            candidates=dict(self._candidates),
            sent=dict(self._sent),
            queries=self._queries.lengths(),
            documents=self._documents.lengths(),
            empty=counts["empty"],
            blank_queries=counts["blank_queries"],
            blank_documents=counts["blank_documents"],
            images=counts["images"],
            cut_documents=counts["cut_documents"],
            repeated_documents=counts["repeated_documents"],
            query_ids=counts["query_ids"],
            repeated_query_ids=counts["repeated_query_ids"],
            flaws=dict(self._flaws),
            row_group_bytes_max=row_group_bytes_max,
        )
