"""
How far a job is, from its ledger alone: also while it runs, also after it died.

Owns the words of `batchrank status`. Reads briefly, so that a running job is not held up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from batchrank.errors import OutputError
from batchrank.job import Job
from batchrank.job.ending import Account
from batchrank.observe.report import as_shown
from batchrank.store.disk import holder, is_held
from batchrank.store.output import OutputFolder
from batchrank.store.reading import LedgerReader, RunRow

SPEED_S = 60.0


@dataclass(frozen=True, slots=True)
class RejectKindCount:
    """
    How many groups were rejected for one reason, with an example.
    """

    kind: str
    count: int
    example_query_id: str
    example_message: str


@dataclass(frozen=True, slots=True)
class Status:
    """
    An output at one moment. Costs are US dollars; *runs* are in order, the last is the newest.
    """

    job: str
    output: str
    running: str | None
    note: str | None
    groups: int
    done: int
    ranked: int
    rejected: int
    empty: int
    rejects: tuple[RejectKindCount, ...]
    parts: int
    parts_stale: int
    success: bool
    calls: int
    calls_failed: Mapping[str, int]
    calls_last_minute: int
    cost_usd: float
    cost_usd_lost: float
    ledger_bytes: int
    ledger_bytes_per_group: float
    runs: tuple[RunRow, ...]

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return asdict(self)

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        return "\n".join(f"{name:<9}{as_shown(value)}" for name, value in self._lines() if value)

    def _lines(self) -> list[tuple[str, str]]:
        failed = ", ".join(f"{count:,} {kind}" for kind, count in self.calls_failed.items())
        shown = f"{self.calls:,}, {self.calls_last_minute:,} in the last minute"
        lost = f", ${self.cost_usd_lost:,.4f} perhaps lost" if self.cost_usd_lost else ""
        size = (
            f"{self.ledger_bytes / 1e6:,.1f} MB, {self.ledger_bytes_per_group:,.0f} bytes a group"
        )
        stale = f", {self.parts_stale} to be rendered again" if self.parts_stale else ""
        return [
            ("job", f"{self.job}: {self._state()}"),
            ("paused", self.note or ""),
            ("groups", self._groups()),
            *(("rejects", _spoken(reject)) for reject in self.rejects),
            ("calls", shown + (f"; failed: {failed}" if failed else "")),
            ("cost", f"${self.cost_usd:,.4f}{lost}"),
            ("output", f"{self.output}: {self.parts} parts{stale}{self._success()}"),
            ("ledger", size),
            *(("run", _run(run)) for run in self.runs[-3:]),
        ]

    def _state(self) -> str:
        if self.running:
            return f"running ({self.running})"
        return "done" if self.success else "not running"

    def _groups(self) -> str:
        share = 100 * self.done / self.groups if self.groups else 100.0
        ends = f"{self.ranked:,} ranked, {self.rejected:,} rejected, {self.empty:,} empty"
        return f"{self.done:,} of {self.groups:,} done ({share:.1f} %): {ends}"

    def _success(self) -> str:
        return ", _SUCCESS" if self.success else ""


def status(job: Job) -> Status:
    """
    Look at the output of *job* (loaded without its key).

    Raises:
        OutputError: it was never begun.
        StorageError: its ledger cannot be read.
    """
    state = job.state
    if not state.ledger.exists():
        raise OutputError(f"{job.output} was never begun (no ledger at {state.ledger})", "run it")
    with LedgerReader.open(state.ledger) as ledger:
        account = Account.of(ledger)
        groups = int(ledger.meta().get("total", 0))
        size = _size(job)
        runs = tuple(ledger.runs())
        running = is_held(state.lock)
        parts = ledger.parts()
        return Status(
            job=job.config.name,
            output=str(job.output),
            running=str(holder(state.lock)) if running else None,
            note=runs[-1].note if runs and running else None,
            groups=groups,
            done=account.done,
            ranked=account.count("ranked"),
            rejected=account.rejected,
            empty=account.count("empty"),
            rejects=tuple(RejectKindCount(*row) for row in ledger.reject_counts()),
            parts=len(parts),
            parts_stale=sum(part.stale for part in parts),
            success=OutputFolder(job.output, state, lambda _: None).has_success(),
            calls=account.calls,
            calls_failed=account.calls_failed,
            calls_last_minute=ledger.calls_since(datetime.now(UTC).timestamp() - SPEED_S),
            cost_usd=account.cost_nano_usd / 1e9,
            cost_usd_lost=account.lost_nano_usd / 1e9,
            ledger_bytes=size,
            ledger_bytes_per_group=size / account.done if account.done else 0.0,
            runs=runs,
        )


def _size(job: Job) -> int:
    """
    The ledger and its write-ahead log.
    """
    return sum(file.stat().st_size for file in job.state.path.glob("ledger.sqlite*"))


def _spoken(reject: RejectKindCount) -> str:
    example = f"such as query {reject.example_query_id}: {reject.example_message}"
    return f"{reject.count:,} {reject.kind}, {example}"


def _run(run: RunRow) -> str:
    began = datetime.fromtimestamp(run.started_at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if run.ended_at is None:
        beat = run.beat_at
        seen = datetime.fromtimestamp(beat, UTC).strftime("%H:%M:%S") if beat else "never"
        return f"{began}, has not ended; last sign of life {seen}"
    reason = f" ({run.reason})" if run.reason else ""
    return f"{began}, {run.ended_at - run.started_at:,.0f} s, exit {run.exit_code}{reason}"
