"""
What somebody may be asked before a run calls anybody, and who that is.

Owns what is left to be paid for, once everything is known that costs nothing. Estimates nothing
and asks nobody: whoever runs the job brings someone who does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from batchrank.domain import Positions
from batchrank.job.loading import Job
from batchrank.job.money import counted_against
from batchrank.policy.billing import in_usd
from batchrank.policy.course import Estimate
from batchrank.source.parquet import ParquetSource
from batchrank.store.reading import LedgerReader


@dataclass(frozen=True, slots=True)
class Left:
    """
    What a run is about to pay for: the groups of *source* that are not in *done*. So many *known*
    documents of them are not sent. *spent_usd* is what counts against the job's own cap by now.
    """

    job: Job
    source: ParquetSource
    done: Positions
    known: int = 0
    spent_usd: float = 0.0

    @property
    def cap_left_usd(self) -> float | None:
        """
        What the job's own cap leaves; None if it has none.
        """
        cap = self.job.config.budget.cost_usd_max
        return None if cap is None else max(0.0, cap - self.spent_usd)


Consent = Callable[[Left], Estimate | None]
"""
Is told what is left, and returns what it will cost, as far as that can be known. Raises
`Unconfirmed` where nobody agrees to it.
"""


def left(
    job: Job, source: ParquetSource, ledger: LedgerReader, done: Positions, target: int
) -> Left:
    """
    What is left before position *target*, but for *done*, in an output with such a *ledger*.
    """
    beyond = Positions(source.total)
    beyond.add_range(target, source.total)
    others = done.united(beyond)
    pairs = ledger.known_documents(source.total)
    known = sum(documents for position, documents in pairs if position not in others)
    return Left(job, source, others, known, in_usd(counted_against(ledger).nano_usd))
