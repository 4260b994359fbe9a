"""
How far a job is, from its ledger alone: also while it runs, also after it died.

Owns the words of `batchrank status`. Reads briefly, so that a running job is not held up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from batchrank.errors import Exit, OutputError
from batchrank.job import Job
from batchrank.job.account import Account
from batchrank.job.ending import ENDED
from batchrank.job.money import perhaps_lost
from batchrank.observe.panel import duration
from batchrank.observe.report import (
    FAILURE_WORDS,
    REJECT_WORDS,
    RETRY,
    RouteShare,
    as_shown,
    counted,
    in_words,
    routes_in_words,
    size,
    too_many_rejects,
    with_unknown,
)
from batchrank.policy.billing import in_usd
from batchrank.store.disk import Holder, holder, is_held
from batchrank.store.output import OutputFolder
from batchrank.store.reading import LedgerReader, RunRow

SPEED_S = 60.0

GROUPS_MIN = 1_000
"""With fewer groups the ledger's size tells nothing of one: most of it is its empty tables."""


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
class Pace:
    """
    A run that is under way: *done_now* groups so far at their mean speed, and what follows from it
    (None while nothing is known). *limit_per_s* is the limit of requests, None if none is set.
    """

    done_now: int
    left: int
    elapsed_s: float
    groups_per_s: float
    limit_per_s: float | None
    left_s: float | None
    cost_usd_at_end: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """
    An output at one moment. Costs are US dollars; *runs* are in order, the last is the newest.

    *pace* is None where nobody runs it. *ledger_bytes* is the ledger without its log, whose size,
    *log_bytes*, goes up and down and says nothing about groups.
    """

    job: str
    output: str
    running: str | None
    note: str | None
    pace: Pace | None
    groups: int
    done: int
    ranked: int
    rejected: int
    rejected_max: int
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
    calls_cost_unknown: int
    routes: Mapping[str, RouteShare]
    cost_usd_max: float | None
    ledger_bytes: int
    ledger_bytes_per_group: float
    log_bytes: int
    runs: tuple[RunRow, ...]
    seen_at: float

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
        failed = in_words(self.calls_failed, FAILURE_WORDS)
        return [
            ("job", f"{self.job}: {self._state()}"),
            ("next", RETRY if self._has_too_many_rejects() else ""),
            ("paused", self.note or ""),
            ("groups", self._groups()),
            *(_paced(self.pace, self.seen_at) if self.pace else ()),
            *(("rejects", _spoken(reject)) for reject in self.rejects),
            ("calls", self._calls() + (f"; failed: {failed}" if failed else "")),
            ("cost", self._cost()),
            *(("route", line) for line in routes_in_words(self.routes)),
            ("output", self._output()),
            ("ledger", self._ledger()),
            *(("run", _run(run, running=self._is_under_way(run))) for run in self.runs[-3:]),
        ]

    # --- how it is --------------------------------------------------------------------------------

    def _state(self) -> str:
        if self.running:
            return f"running ({self.running})"
        if self.success:
            return "done"
        if self._has_too_many_rejects():
            return too_many_rejects(self.rejected, self.rejected_max)
        last = self.runs[-1].exit_code if self.runs else None
        if self.done == self.groups and last in (None, Exit.DONE, Exit.REJECTS):
            return "every group is done, and _SUCCESS is missing: run it again"
        return _left_off(self.runs[-1]) if self.runs else "not running"

    def _has_too_many_rejects(self) -> bool:
        whole = self.done == self.groups and not self.running and not self.success
        return whole and self.rejected > self.rejected_max

    def _is_under_way(self, run: RunRow) -> bool:
        return bool(self.running) and run is self.runs[-1]

    # --- lines ------------------------------------------------------------------------------------

    def _groups(self) -> str:
        share = 100 * self.done / self.groups if self.groups else 100.0
        ends = f"{self.ranked:,} ranked, {self.rejected:,} rejected, {self.empty:,} empty"
        return f"{self.done:,} of {self.groups:,} done ({share:.1f} %): {ends}"

    def _calls(self) -> str:
        recent = f", {self.calls_last_minute:,} in the last minute" if self.running else ""
        return f"{self.calls:,}{recent}"

    def _cost(self) -> str:
        lost = f", ${self.cost_usd_lost:,.4f} perhaps lost" if self.cost_usd_lost else ""
        cap = "" if self.cost_usd_max is None else f" of ${self.cost_usd_max:,.4f} allowed"
        end = self.pace.cost_usd_at_end if self.pace else None
        spent = f"${self.cost_usd:,.4f}{cap}{lost}" + (
            f", about ${end:,.4f} at the end" if end else ""
        )
        known = self.cost_usd or self.cost_usd_lost
        return with_unknown(spent if known else "", self.calls_cost_unknown) or spent

    def _output(self) -> str:
        stale = f", {self.parts_stale} to be rendered again" if self.parts_stale else ""
        success = ", _SUCCESS" if self.success else ""
        return f"{self.output}: {counted(self.parts, 'part')}{stale}{success}"

    def _ledger(self) -> str:
        of_one = f" ({self.ledger_bytes_per_group:,.0f} bytes a group)"
        held = f"{size(self.ledger_bytes)}{of_one if self.done >= GROUPS_MIN else ''}"
        return held + (f", and {size(self.log_bytes)} of its log" if self.log_bytes else "")


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
    now = time.time()
    with LedgerReader.open(state.ledger) as ledger:
        account = Account.of(ledger)
        held_bytes = ledger.size_bytes()
        runs = tuple(ledger.runs())
        running = is_held(state.lock)
        parts = ledger.parts()
        return Status(
            job=job.config.name,
            output=str(job.output),
            running=_who(holder(state.lock)) if running else None,
            note=runs[-1].note if runs and running else None,
            pace=_pace(job, ledger, account, runs[-1], now) if runs and running else None,
            groups=int(ledger.meta().get("total", 0)),
            done=account.done,
            ranked=account.count("ranked"),
            rejected=account.rejected,
            rejected_max=job.config.output.rejected_max,
            empty=account.count("empty"),
            rejects=tuple(RejectKindCount(*row) for row in ledger.reject_counts()),
            parts=len(parts),
            parts_stale=sum(part.stale for part in parts),
            success=OutputFolder(job.output, state, lambda _: None).has_success(),
            calls=account.calls,
            calls_failed=account.calls_failed,
            calls_last_minute=ledger.calls_since(now - SPEED_S),
            cost_usd=in_usd(account.cost_nano_usd),
            cost_usd_lost=in_usd(perhaps_lost(ledger, running=running)),
            calls_cost_unknown=account.calls_cost_unknown,
            routes=account.routes,
            cost_usd_max=job.config.budget.cost_usd_max,
            ledger_bytes=held_bytes,
            ledger_bytes_per_group=held_bytes / account.done if account.done else 0.0,
            log_bytes=_log_bytes(job),
            runs=runs,
            seen_at=now,
        )


def _log_bytes(job: Job) -> int:
    file = job.state.ledger
    try:
        return file.with_name(f"{file.name}-wal").stat().st_size
    except FileNotFoundError:
        return 0


def _who(found: Holder | None) -> str:
    if found is None:
        return "it is not known by whom"
    try:
        since = _time(datetime.fromisoformat(found.since).timestamp())
    except (TypeError, ValueError):
        since = str(found.since)
    return f"process {found.pid} on {found.host}, since {since}"


def _pace(job: Job, ledger: LedgerReader, account: Account, run: RunRow, now: float) -> Pace | None:
    """
    How a run goes that is under way, from what it found done and what is done now.
    """
    if run.ended_at is not None:
        return None  # the one that is under way has not got so far as to be noted
    meta = ledger.meta()
    total = int(meta["total"])
    done = account.done if run.target >= total else ledger.done(total).count(0, run.target)
    waiting = ledger.rejects_before(run.started_at, total) if meta.get("retries_rejects") else 0
    done_now = max(0, account.done - waiting - run.done_before)
    left = max(0, run.target - done)
    if waiting:
        left += ledger.rejects_before(run.started_at, run.target)
    elapsed_s = max(0.0, now - run.started_at)
    known = bool(done_now and elapsed_s)
    cost = in_usd(account.cost_nano_usd)
    return Pace(
        done_now=done_now,
        left=left,
        elapsed_s=elapsed_s,
        groups_per_s=done_now / elapsed_s if elapsed_s else 0.0,
        limit_per_s=job.limit_per_s,
        left_s=left * elapsed_s / done_now if known else None,
        cost_usd_at_end=cost * (1 + left / account.done) if account.done else None,
    )


# --- words ----------------------------------------------------------------------------------------


def _paced(pace: Pace, now: float) -> list[tuple[str, str]]:
    limit = pace.limit_per_s
    if limit is None:
        allowed = "no limit of requests is told"
    elif limit >= 1:
        allowed = f"the limit is {limit:,.1f} requests/s"
    else:
        allowed = f"the limit is a request every {1 / limit:,.1f} s"
    since = f"{counted(pace.done_now, 'group')} in {duration(pace.elapsed_s)}"
    left = "not known yet"
    if pace.left_s is not None and math.isfinite(pace.left_s):
        left = f"{duration(pace.left_s)}, until {_time(now + pace.left_s)}"
    return [
        ("speed", f"{pace.groups_per_s:,.1f} groups/s in this run ({since}); {allowed}"),
        ("left", f"{counted(pace.left, 'group')}: {left}"),
    ]


def _spoken(reject: RejectKindCount) -> str:
    words = in_words({reject.kind: reject.count}, REJECT_WORDS)
    return f"{words}, such as query {reject.example_query_id}: {reject.example_message}"


def _time(at: float) -> str:
    """
    The one way in which moments are written here.
    """
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return "some day to come"


def _left_off(run: RunRow) -> str:
    """
    How a run left an output that is not finished.
    """
    if run.ended_at is None:
        note = f" (it was waiting: {run.note})" if run.note else ""
        return f"not running; the last run was killed{note}: run it again"
    if run.exit_code == Exit.DONE:
        return "not running; the last run did what --limit asked for, or was `plan --sample`"
    return f"{_ended(run)}: {run.reason}" if run.reason else _ended(run)


def _ended(run: RunRow) -> str:
    try:
        return ENDED[Exit(run.exit_code or 0)]
    except ValueError:
        return f"ended with exit {run.exit_code}"


def _run(run: RunRow, *, running: bool) -> str:
    began = _time(run.started_at)
    if run.ended_at is None:
        state = "is under way" if running else "was killed"
        beat = f"last sign of life {_time(run.beat_at)}" if run.beat_at else "no sign of life yet"
        return f"{began}, {state}; {beat}"
    reason = f" ({run.reason})" if run.reason else ""
    return f"{began}, {duration(run.ended_at - run.started_at)}, exit {run.exit_code}{reason}"
