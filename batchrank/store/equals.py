"""
Equal groups of one output: who takes whose outcome, and what it is then.

Owns how the outcome of a group becomes that of another one that asks the same: the scores are the
same, position and id are its own. Finds no equal groups (`reuse` does) and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from batchrank.domain import Outcome, Positions, Ranked, Rejected
from batchrank.store.blocks import opened
from batchrank.store.reading import LedgerReader

TOGETHER = 5_000
"""So many outcomes are made at once, more or less."""


def copies(
    ledger: LedgerReader, leaders: Iterable[int], wanted: Positions
) -> Iterator[list[Outcome]]:
    """
    Yield the outcomes of all groups in *wanted* that take theirs from *leaders*, some at a time.

    A leader that has no outcome is passed over.

    Raises:
        StorageError: the ledger cannot be read.
    """
    ids = _Ids(ledger)
    held: list[Outcome] = []
    for leader in leaders:
        found = _outcome(ledger, leader)
        if found is None:
            continue
        for position, cut in _followers(ledger, leader):
            if position in wanted:
                held.append(_made(found, position, cut, ids))
            if len(held) == TOGETHER:
                yield held
                held = []
    if held:
        yield held


def _followers(ledger: LedgerReader, leader: int) -> Iterator[tuple[int, int]]:
    """
    All of them, read some at a time: there may be millions, and others write in between.
    """
    after = -1
    while some := ledger.followers(leader, after, TOGETHER):
        yield from some
        after = some[-1][0]


def _outcome(ledger: LedgerReader, position: int) -> Ranked | Rejected | None:
    for row in ledger.ranked(position, position + 1):
        return row.outcome(ledger.served())
    return ledger.rejected(position)


def _made(found: Ranked | Rejected, position: int, cut: int, ids: _Ids) -> Outcome:
    if isinstance(found, Ranked):
        return Ranked(position, found.scores, found.shares, cut)
    why = f"{found.message} (told of an equal group, at position {found.position})"
    return replace(found, position=position, query_id=ids.of(position), message=why, attempts=0)


class _Ids:
    """
    Ids of groups as the ledger carries them; the block that was looked into last is at hand.
    """

    def __init__(self, ledger: LedgerReader) -> None:
        self._ledger = ledger
        self._here = range(0)
        self._ids: list[str | int] = []

    def of(self, position: int) -> str | int:
        """
        The id of a group.
        """
        if position not in self._here:
            ((start, rows, body),) = self._ledger.carried(position, position + 1)
            self._here = range(start, start + rows)
            self._ids = opened(body).column("query_id").to_pylist()
        return self._ids[position - self._here.start]
