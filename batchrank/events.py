"""
The moments of a run, as plain values, and the protocol of whoever listens to them.

The flow tells a `Reporter` what happened and never learns what became of it: logs, the live panel,
metrics and tests are listeners. Event names are `noun.verb_past` and are stable. No event carries a
document's text or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from batchrank.domain import Call, FailureKind, Outcome, Rejected


@dataclass(frozen=True, slots=True)
class Event:
    """
    Something that happened.
    """

    name: ClassVar[str] = ""


class Reporter(Protocol):
    """
    Listens. Called from the event loop and from the publishing thread; must return quickly.
    """

    def report(self, event: Event, /) -> None:
        """
        Take notice of *event*. What it raises is told once and never stops the job.
        """


class Silence:
    """
    The reporter that does nothing.
    """

    def report(self, event: Event, /) -> None:
        """
        Ignore *event*.
        """


class Chorus:
    """
    Several reporters as one; one that fails is reported once to the others and then left out.
    """

    def __init__(self, reporters: Sequence[Reporter]) -> None:
        self._reporters = list(reporters)

    def report(self, event: Event, /) -> None:
        """
        Tell every reporter.
        """
        reporters = self._reporters
        for reporter in reporters:
            if self._reporters is not reporters and not self._includes(reporter):
                continue  # it failed over the news that another one had failed
            try:
                reporter.report(event)
            # A listener is not worth a paid result: whatever it raises, the run goes on.
            except Exception as error:  # noqa: BLE001
                self._leave_out(reporter, error)

    def _includes(self, reporter: Reporter) -> bool:
        return any(held is reporter for held in self._reporters)

    def _leave_out(self, reporter: Reporter, error: Exception) -> None:
        if self._includes(reporter):  # another thread may have come first
            self._reporters = [held for held in self._reporters if held is not reporter]
            self.report(ReporterFailed(type(reporter).__name__, repr(error)))


@dataclass(frozen=True, slots=True)
class ReporterFailed(Event):
    """
    A listener raised and will not be asked again.
    """

    name = "reporter.failed"
    reporter: str
    error: str


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """
    Everything has been checked; the first group is about to be read.

    *done* groups have an outcome from earlier runs, which cost *cost_usd*, and *lost_usd* besides
    where they were killed under a cap; nobody knows the cost of *calls_cost_unknown* calls beside.
    *target* is where this run ends (less than *total* with `--limit`). *rate_per_s* is the
    configured limit, *cap_usd* the output's own cap, or None.
    """

    name = "job.started"
    job: str
    model: str
    total: int
    target: int
    done: int
    rejected: int
    concurrency_max: int
    rate_per_s: float | None
    cost_usd: float
    lost_usd: float = 0.0
    cap_usd: float | None = None
    calls_cost_unknown: int = 0


@dataclass(frozen=True, slots=True)
class DayStarted(Event):
    """
    A backfill comes to its next day, which is the *number*-th of *total*.
    """

    name = "day.started"
    day: str
    number: int
    total: int


@dataclass(frozen=True, slots=True)
class DayRefused(Event):
    """
    A day of a backfill could not begin; *why* is for a person. Nobody was called for it.
    """

    name = "day.refused"
    day: str
    why: str


@dataclass(frozen=True, slots=True)
class JobRefused(Event):
    """
    A command could not begin its work, or the disk ended it; *why* is for a person.
    """

    name = "job.refused"
    exit_code: int
    why: str


@dataclass(frozen=True, slots=True)
class SourceStaging(Event):
    """
    The source is being sorted and folded, before anything else: *rows* of it are by now.
    """

    name = "source.staging"
    rows: int


@dataclass(frozen=True, slots=True)
class Noticed(Event):
    """
    Something a person should know and need not act on at once.
    """

    name = "job.noticed"
    message: str


@dataclass(frozen=True, slots=True)
class ReplyRead(Event):
    """
    A scorer has answered and nothing has been decided or stored yet.
    """

    name = "reply.read"
    position: int


@dataclass(frozen=True, slots=True)
class AttemptFailed(Event):
    """
    An attempt failed; its record is on its way to the ledger. *next_step* is for a person.
    """

    name = "attempt.failed"
    call: Call
    next_step: str


@dataclass(frozen=True, slots=True)
class RouteNow:
    """
    A way to a model at one moment: what is under way there, how fast it may be asked (see `Tick`),
    and why it is not taken, "" while it is.
    """

    route: str
    in_flight: int
    pace_per_s: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Tick(Event):
    """
    A second has passed: what is under way, and what waits to be tried again. *routes* are those of
    a job that has several; the numbers beside are of the first.

    *pace_per_s* is the rate at which requests leave now (None: as fast as they can), *mode* what
    the controller does about it: "ramp", "hold" or "blocked". *reserved_usd* is the most that calls
    under way can cost, where there is a cap.
    """

    name = "job.ticked"
    in_flight: int
    waiting: int
    pace_per_s: float | None = None
    mode: str = ""
    routes: tuple[RouteNow, ...] = ()
    reserved_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class CommitStarted(Event):
    """
    Some records are about to be made durable.
    """

    name = "commit.started"
    calls: int
    outcomes: int


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """
    These records are durable; their slots are free.
    """

    name = "commit.ended"
    calls: tuple[Call, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class GroupRejected(Event):
    """
    A group's rejection is durable.
    """

    name = "group.rejected"
    rejected: Rejected


@dataclass(frozen=True, slots=True)
class GateShut(Event):
    """
    Nobody sends until *until_s* from now, when a probe may; *reason* is for a person. *route* is
    the one that nobody takes, "" where there is only one.
    """

    name = "gate.shut"
    reason: str
    kind: FailureKind
    until_s: float
    route: str = ""


@dataclass(frozen=True, slots=True)
class GateOpened(Event):
    """
    A probe came home: everybody may send again, by *route* where there are several.
    """

    name = "gate.opened"
    route: str = ""


@dataclass(frozen=True, slots=True)
class CostStrayed(Event):
    """
    What a group costs, in US dollars, lies a quarter or more beyond the range of the estimate, from
    *low_usd* to *high_usd*: so it was on the average of this run's first *groups*. Told once.
    """

    name = "cost.strayed"
    groups: int
    usd: float
    low_usd: float
    high_usd: float


@dataclass(frozen=True, slots=True)
class PartMoment(Event):
    """
    A named point on a part's way to its final name: `rendered` and `verified`, then in a folder
    `synced`, `renamed` and `folder_synced`, in a store `put` and `aside_removed`.
    """

    name = "part.moved_on"
    part: int
    point: str


@dataclass(frozen=True, slots=True)
class PartPublished(Event):
    """
    A part has its final name, and the ledger says so.
    """

    name = "part.published"
    part: int
    file: str
    rows: int
    again: bool


@dataclass(frozen=True, slots=True)
class ManifestWritten(Event):
    """
    The manifest is durable; `_SUCCESS` is next.
    """

    name = "manifest.written"
    parts: int


@dataclass(frozen=True, slots=True)
class SuccessWritten(Event):
    """
    `_SUCCESS` is durable.
    """

    name = "success.written"


@dataclass(frozen=True, slots=True)
class Stopping(Event):
    """
    Nothing more is sent; what is in flight is coming home. *reason* is for a person.
    """

    name = "job.stopping"
    reason: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """
    The run is over; whatever it told of is durable. *summary* is plain data, for programs.
    """

    name = "job.ended"
    exit_code: int
    summary: Mapping[str, object]
