"""
Free the room that a finished output's ledger takes.

Owns the condition: only what is published and complete may be deleted, because afterwards nobody
can render it again. The account of the money (calls) and the rejects stay.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchrank.errors import OutputError
from batchrank.job import Job
from batchrank.observe.report import counted, size
from batchrank.store.disk import Lock
from batchrank.store.ledger import Ledger
from batchrank.store.output import OutputFolder, part_file, some


@dataclass(frozen=True, slots=True)
class Pruned:
    """
    What was deleted, and the ledger's size before and after, in bytes.
    """

    groups: int
    before_bytes: int
    after_bytes: int

    @property
    def freed_bytes(self) -> int:
        """
        How much smaller the ledger is now.
        """
        return max(0, self.before_bytes - self.after_bytes)

    def as_text(self) -> str:
        """
        A line for people.
        """
        if not self.groups:
            return f"nothing to prune; the ledger takes {size(self.after_bytes)}"
        freed = f"{size(self.freed_bytes)} freed" if self.freed_bytes else "no room to free"
        groups = counted(self.groups, "group")
        return f"pruned {groups}: {freed}, the ledger takes {size(self.after_bytes)} now"


def prune(job: Job) -> Pruned:
    """
    Delete scores and carried columns of a finished output from its ledger.

    Raises:
        OutputError: the output is not finished, as far as the ledger knows, or a part is damaged.
        AlreadyRunning: somebody writes it.
    """
    state = job.state
    if not state.ledger.exists():
        raise OutputError(f"{job.output} has no ledger at {state.ledger}", "run the job first")
    since = job.now.isoformat(timespec="seconds")
    with Lock(state.lock, job.output, since):
        ledger = Ledger.create_or_open(state.ledger)
        try:
            _check_finished(job, ledger)
            before = state.ledger.stat().st_size
            groups = ledger.prune()
            return Pruned(groups, before, state.ledger.stat().st_size)
        finally:
            ledger.close()


def _check_finished(job: Job, ledger: Ledger) -> None:
    output = OutputFolder(job.output, job.state, lambda _: None)
    if not output.has_success():
        raise OutputError(f"{job.output} has no _SUCCESS: it is not finished", "run it first")
    total, published = int(ledger.meta()["total"]), ledger.published()
    if published < total:  # such as a ledger that was restored from a copy of a day before
        raise OutputError(
            f"{job.output} has a _SUCCESS, but its ledger knows only {published:,} of"
            f" {counted(total, 'group')} in parts that are whole",
            "run the job: what the ledger has is published then, and what it lacks is asked about",
        )
    if damaged := output.damaged(ledger.parts()):
        raise OutputError(
            f"{some([part_file(number) for number in damaged])}: damaged or missing, and only the"
            " ledger can mend that",
            "run the job: it renders them again without a call",
        )
