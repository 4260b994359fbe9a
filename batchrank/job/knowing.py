"""
A source whose groups know the scores that earlier outputs have of some of their documents.

Owns where the two meet: the ledger is read for one batch at a time, by whoever reads the source, so
that memory does not depend on how much is known. What was found is `reusing`'s business, and what
follows from it `policy.slicing`'s: these documents are not sent, and the outcome has their scores.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import partial

from batchrank.domain import Group, Positions, Ranked, SourceBatch
from batchrank.engine.feed import Source
from batchrank.policy.slicing import knowing
from batchrank.source.batch import Altered
from batchrank.store.reading import LedgerReader


class KnowingSource:
    """
    The groups of *source*, with what *ledger* knows of them. It is read where the source is, by
    nobody else.
    """

    def __init__(self, source: Source, ledger: LedgerReader) -> None:
        self._source = source
        self._ledger = ledger

    def batches(self, done: Positions, stop: int) -> Generator[SourceBatch, None, None]:
        """
        As those of the source.

        Raises:
            SourceError, ChangedError: as there.
            StorageError: the ledger cannot be read.
        """
        for batch in self._source.batches(done, stop):
            found = self._ledger.known(batch.position, batch.position + batch.rows)
            known = {ranked.position: ranked for ranked in found}
            yield Altered(batch, partial(_less, known)) if known else batch


def _less(known: Mapping[int, Ranked], group: Group) -> Group:
    """
    The group without the documents that need not be sent.
    """
    ranked = known.get(group.position)
    return group if ranked is None or group.flaw is not None else knowing(group, ranked)
