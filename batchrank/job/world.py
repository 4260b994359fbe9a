"""
What a run is about: the wishes of whoever runs it, and the world that it works on.

Owns which groups a run need not ask about, and how far it goes. Checks nothing: `opening` has seen
to all that is here.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchrank.domain import Positions
from batchrank.events import Noticed, Reporter
from batchrank.job.consent import Consent
from batchrank.job.loading import Job
from batchrank.job.steering import Steering
from batchrank.source.parquet import ParquetSource
from batchrank.store.ledger import Ledger
from batchrank.store.output import OutputFolder, StateFolder


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    What the person who runs a job asks for, beside the job file.

    *limit*: only the first so many groups. *accept*: source files, as the job finds them, that may
    have changed. *restart*: set the old output and its state aside. *steering*: that of the runs
    before this one. *consent* is asked before anybody is called. *interrupted* is set when the
    person loses patience and no signal can tell. *sample*: only so many groups, at random places.
    """

    limit: int | None = None
    retry_rejects: bool = False
    accept: Sequence[str] = ()
    restart: bool = False
    steering: Steering | None = None
    consent: Consent | None = None
    interrupted: threading.Event = field(default_factory=threading.Event)
    sample: int | None = None


@dataclass(slots=True)
class World:
    """
    Everything a run works on, held by nobody else. *later* are groups that this run leaves for
    another although they come before its target.
    """

    job: Job
    wishes: Wishes
    source: ParquetSource
    state: StateFolder
    output: OutputFolder
    ledger: Ledger
    notes: list[str] = field(default_factory=list)
    later: Positions | None = None

    def done(self) -> Positions:
        """
        The positions that need not be asked about.
        """
        done = self.ledger.done(self.source.total)
        if self.wishes.retry_rejects:
            for position in self.ledger.rejected_positions():
                done.discard(position)
        return done

    @property
    def dedupes(self) -> bool:
        """
        Whether equal groups are asked about once.
        """
        return self.job.dedupes(self.source)

    @property
    def target(self) -> int:
        """
        Groups at or beyond this position are left alone.
        """
        limit = self.wishes.limit
        return self.source.total if limit is None else min(limit, self.source.total)

    def notice(self, note: str, reporter: Reporter) -> None:
        """
        Tell a person *note* now, and in the summary.
        """
        self.notes.append(note)
        reporter.report(Noticed(note))
