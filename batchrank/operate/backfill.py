"""
One job for many days, one after the other, as if they were one run.

Owns which days are run and in which order, what the end of one day means for the others, and the
one exit code for all. The days share pace, gate and the limit of calls; each has its own output,
ledger and budget, so that whatever ends a backfill, another start goes on with the days that have
no `_SUCCESS`. Calls nobody itself: `batchrank.job` runs each day.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any

from batchrank.engine.dispatcher import ALLOWANCE_USED
from batchrank.errors import (
    AlreadyRunning,
    BatchrankError,
    Exit,
    JobError,
    NotReady,
    Problem,
    Signalled,
    SourceError,
    StorageError,
)
from batchrank.events import DayRefused, DayStarted, Reporter
from batchrank.job import Job, Steering, load
from batchrank.job import run as run_job
from batchrank.job.consent import Consent
from batchrank.job.ending import ENDED
from batchrank.job.interpreter import rare_collections
from batchrank.job.late import come_late, paths_of
from batchrank.job.opening import is_begun
from batchrank.job.started import about_reuse
from batchrank.observe.report import RETRY, Summary, as_shown, counted
from batchrank.source.files import find
from batchrank.store.output import OutputFolder, some

DAYS_MAX = 3660
"""Ten years: more is a mistaken year."""


# --- which days -----------------------------------------------------------------------------------


def days(first: date, last: date, *, newest_first: bool = False) -> tuple[date, ...]:
    """
    Every day from *first* to *last*, both included, in the order in which they are run.

    Raises:
        JobError: there is none, or there are more than DAYS_MAX.
    """
    count = (last - first).days + 1
    if count < 1:
        problem = Problem(0, "--to", f"is {last}, before --from {first}", "exchange them")
        raise JobError("batchrank backfill", [problem])
    if count > DAYS_MAX:
        message = f"{first} to {last} are {count:,} days, and at most {DAYS_MAX:,} are taken"
        raise JobError("batchrank backfill", [Problem(0, "--from", message, "name fewer")])
    found = tuple(first + timedelta(days=n) for n in range(count))
    return found[::-1] if newest_first else found


@dataclass(frozen=True, slots=True)
class Dated:
    """
    The job as it is for one day. Other days have the same source at the paths *shared*.
    """

    day: date
    job: Job
    shared: frozenset[str] = frozenset()


def dated(
    file: str | os.PathLike[str],
    those: Iterable[date],
    *,
    variable: str = "date",
    overrides: Mapping[str, str] | None = None,
    with_key: bool = True,
) -> tuple[Dated, ...]:
    """
    Read the job file once for each day, with *variable* set to it; a deadline is one for all.

    Raises:
        JobError: the job file or a variable is wrong, or every day would have one output or source.
    """
    if variable in (overrides or {}):
        problem = Problem(0, f"--set {variable}", "is what the days are for", "leave it out")
        raise JobError(str(file), [problem])
    now = datetime.now(UTC)

    def on(day: date) -> Dated:
        given = {**(overrides or {}), variable: day.isoformat()}
        return Dated(day, load(file, given, now=now, with_key=with_key))

    found = tuple(map(on, those))
    one = found[0].job
    # Also where one day is asked for: who does that every night asks for many, one at a time.
    other = found[1].job if len(found) > 1 else on(_beside(found[0].day)).job
    if problems := _sameness(one, other, variable):
        raise JobError(str(file), problems)
    shared = paths_of(one) & paths_of(other)
    return tuple(replace(each, shared=shared) for each in found)


def _beside(day: date) -> date:
    return day + timedelta(days=1 if day < date.max else -1)


def _sameness(one: Job, other: Job, variable: str) -> list[Problem]:
    """
    Find what has to be another for each day: or one output would be begun again and again, or the
    same groups paid for every day.
    """
    facts = (
        (("output", "path"), one.output == other.output),
        (("source",), one.config.source == other.config.source),
    )
    remedy = f'name the day in it, as in "dt={{{variable}}}"'
    return [
        Problem(one.lines.of(path), ".".join(path), "is the same for every day", remedy)
        for path, same in facts
        if same
    ]


# --- how the days are -----------------------------------------------------------------------------


class State(StrEnum):
    """
    How a day is before anything is done about it.
    """

    DONE = "done"
    BEGUN = "begun"
    TO_DO = "to do"
    NOT_READY = "source not ready"
    MISSING = "source missing"


@dataclass(frozen=True, slots=True)
class Seen:
    """
    A day as it was found; *why* is for a person.
    """

    day: date
    state: State
    output: str
    why: str = ""


def look(each: Dated) -> Seen:
    """
    See how a day is, by names alone: no source is opened, nothing is written, nobody is called.
    """
    job = each.job

    def seen(state: State, why: str = "") -> Seen:
        return Seen(each.day, state, str(job.output), why)

    if is_done(job):
        return seen(State.DONE, late(each))
    source = job.config.source
    try:
        for path in (*source.paths, *filter(None, (source.database, source.sql_file))):
            find(
                path,
                job.base,
                require_success=source.require_success,
                stores=job.config.stores,
            )
        return seen(State.BEGUN if is_begun(job.state.ledger) else State.TO_DO)
    except NotReady as error:
        return seen(State.NOT_READY, error.message)
    except SourceError as error:
        return seen(State.MISSING, _in_a_line(error))
    except StorageError as error:
        return seen(State.BEGUN, error.message)


def is_done(job: Job) -> bool:
    """
    Tell whether its output is whole.
    """
    return OutputFolder(job.output, job.state, lambda _: None).has_success()


def to_do(those: Iterable[Dated]) -> list[Job]:
    """
    The jobs of the days whose output is not whole.
    """
    return [each.job for each in those if not is_done(each.job)]


def late(each: Dated) -> str:
    """
    What has come to the source of a finished day, and how it is taken in; "" if nothing has.
    """
    job = each.job
    try:
        found = come_late(job, each.shared)
    except StorageError as error:
        return error.message
    if not found:
        return ""
    cut = job.config.output.top_n is not None
    how = f"`batchrank run` of this date with --restart takes it in ({about_reuse(job, cut=cut)})"
    return f"since then {some(found)}: {how}"


def listing(those: Sequence[Dated]) -> Listing:
    """
    See how every day is; nobody is called.
    """
    return Listing(those[0].job.config.name, tuple(map(look, those)))


@dataclass(frozen=True, slots=True)
class Listing:
    """
    What a backfill would find, in the order in which it would go.
    """

    job: str
    days: tuple[Seen, ...]

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        shown = [
            {"date": day.day.isoformat(), "state": day.state, "output": day.output, "why": day.why}
            for day in self.days
        ]
        return {"job": self.job, "dates": shown}

    def as_json(self) -> str:
        """
        One line of JSON.
        """
        return json.dumps(self.as_data(), ensure_ascii=False)

    def as_text(self) -> str:
        """
        A line for each day, and one for all.
        """
        lines = [_line(day.day, day.state, day.why) for day in self.days]
        counts = ((sum(day.state is state for day in self.days), state) for state in State)
        said = ", ".join(f"{number} {state}" for number, state in counts if number)
        return "\n".join([*lines, f"{counted(len(self.days), 'date')}: {said}; nobody was called"])


# --- what the end of one day means ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """
    How a day ended. *exit_code* None: it was not begun, because of a day before it. *stops_all*:
    what ended it ends every other day, too. *summary* is there if it was run.
    """

    day: date
    output: str
    ended: str
    exit_code: Exit | None
    why: str = ""
    stops_all: bool = False
    summary: Summary | None = None

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {
            "date": self.day.isoformat(),
            "output": self.output,
            "ended": self.ended,
            "exit_code": None if self.exit_code is None else int(self.exit_code),
            "why": self.why,
            "summary": self.summary.as_data() if self.summary else None,
        }


def stops_all(exit_code: Exit, *, keep_going: bool) -> bool:
    """
    Tell whether what ended a day's run so would end every other day's.

    The data of a day (USAGE, REJECTS) says nothing about the others. A disk does, and so does what
    is told as LATER: a signal, the deadline, an outage. Needing a PERSON may be a matter of the
    key, or of that day's budget: *keep_going* says that it is worth a try.
    """
    if exit_code is Exit.PERSON:
        return not keep_going
    return exit_code in (Exit.STORAGE, Exit.BUG, Exit.LATER)


def keeps_all_from_it(error: BatchrankError) -> bool:
    """
    Tell whether what kept a day from beginning should keep every other day from it.

    A source that is missing or not ready does not. Somebody who runs a day of the same job does:
    two would send at once, each within the limit.
    """
    return isinstance(error, StorageError | AlreadyRunning)


SEVEREST = (Exit.BUG, Exit.STORAGE, Exit.PERSON, Exit.USAGE, Exit.REJECTS, Exit.LATER)
"""A blind retry heals LATER alone: what needs more than that is told before it."""


def exit_code_of(ends: Sequence[End]) -> Exit:
    """
    One exit code for all days: that of the one that stopped them all, else the severest.
    """
    for end in ends:
        if end.stops_all and end.exit_code is not None:
            return end.exit_code
    codes = {end.exit_code for end in ends}
    return next((code for code in SEVEREST if code in codes), Exit.DONE)


@dataclass(frozen=True, slots=True)
class Backfill:
    """
    How the days ended, in the order in which they were run. *bug* is what ended one that no error
    of ours tells, for whoever has told the rest to raise.
    """

    job: str
    ends: tuple[End, ...]
    elapsed_s: float
    bug: Exception | None = None

    @property
    def exit_code(self) -> Exit:
        """
        What to say to whoever started it.
        """
        return exit_code_of(self.ends)

    @property
    def done(self) -> int:
        """
        Days that have their whole output.
        """
        return sum(end.exit_code is Exit.DONE for end in self.ends)

    @property
    def calls_now(self) -> int:
        """
        Calls that were made now, for all days together.
        """
        return sum(end.summary.calls_now for end in self.ends if end.summary)

    @property
    def cost_usd_now(self) -> float:
        """
        What they cost, in US dollars.
        """
        return sum(end.summary.cost_usd_now for end in self.ends if end.summary)

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {
            "job": self.job,
            "exit_code": int(self.exit_code),
            "done": self.done,
            "calls_now": self.calls_now,
            "cost_usd_now": self.cost_usd_now,
            "elapsed_s": round(self.elapsed_s, 3),
            "dates": [end.as_data() for end in self.ends],
        }

    def as_json(self) -> str:
        """
        One line of JSON.
        """
        return json.dumps(self.as_data(), ensure_ascii=False)

    def as_text(self) -> str:
        """
        A line for each day, and one for all.
        """
        made = f"{counted(self.calls_now, 'call')} for ${self.cost_usd_now:,.4f} now"
        all_days = counted(len(self.ends), "date")
        return "\n".join(
            [
                *(_line(end.day, end.ended, end.why) for end in self.ends),
                f"{self.done:,} of {all_days} done; {made}, in {self.elapsed_s:,.1f} s",
            ]
        )


def _line(day: date, how: str, why: str) -> str:
    return as_shown(f"{day}  {how}{f': {why}' if why else ''}")


def _in_a_line(error: BatchrankError) -> str:
    return " ".join(str(error).split())


# --- one after the other --------------------------------------------------------------------------

Listening = Callable[[], AbstractContextManager[Reporter]]
"""Makes a listener: each day has its own, because they count a run from its beginning."""


def backfill(
    those: Sequence[Dated],
    *,
    listening: Listening,
    calls_max: int | None = None,
    keep_going: bool = False,
    consent: Consent | None = None,
) -> Backfill:
    """
    Run every day that is not done, in this order, under one limiter and one limit of calls.

    *calls_max* is for all days together; *keep_going*: also after a day that needs a person;
    *consent* is that of every day. A signal, or a bug, ends all of them, and is told as the end of
    the day that it met.
    """
    began = time.monotonic()
    one = those[0].job
    turn = _Turn(Steering.of(one, one.now, calls_max), listening, len(those), keep_going, consent)
    ends: list[End] = []
    with rare_collections():
        for number, each in enumerate(those, 1):
            ends.append(turn.end_of(each, number, over=any(end.stops_all for end in ends)))
    return Backfill(one.config.name, tuple(ends), time.monotonic() - began, turn.bug)


@dataclass(slots=True)
class _Turn:
    """
    What a day gets when its turn comes; *bug* is what ended one, if that was a bug.
    """

    steering: Steering
    listening: Listening
    days: int
    keep_going: bool
    consent: Consent | None = None
    bug: Exception | None = None

    def end_of(self, each: Dated, number: int, *, over: bool) -> End:
        """
        Run the day with this *number* if it is to be run; *over*: no day is any more.
        """
        exit_code, why = Exit.LATER, ""
        try:
            return self._end_of(each, number, over=over)
        except BaseException as raised:  # a signal is no Exception, and the other days are told
            if isinstance(raised, Exception):
                exit_code, why, self.bug = Exit.BUG, repr(raised), raised
            elif signalled := _signalled(raised):
                why = f"stopped by {signalled}"
            else:
                raise
        return End(each.day, str(each.job.output), ENDED[exit_code], exit_code, why, stops_all=True)

    def _end_of(self, each: Dated, number: int, *, over: bool) -> End:
        output = str(each.job.output)
        # Looked at when its turn comes: somebody else may have done it meanwhile.
        if is_done(each.job):
            return End(each.day, output, "done before", Exit.DONE, late(each))
        if over:
            return End(each.day, output, "not begun", None)
        if self.steering.allowance.calls_left < 1:
            return End(each.day, output, "not begun", Exit.PERSON, ALLOWANCE_USED, stops_all=True)
        with self.listening() as listener:
            listener.report(DayStarted(str(each.day), number, self.days))
            return self._run(each, listener)

    def _run(self, each: Dated, listener: Reporter) -> End:
        output = str(each.job.output)
        try:
            summary = run_job(
                each.job, steering=self.steering, consent=self.consent, listeners=[listener]
            )
        except BatchrankError as error:
            all_of_them, why = keeps_all_from_it(error), _in_a_line(error)
            listener.report(DayRefused(str(each.day), why))
            return End(each.day, output, "refused", error.exit_code, why, all_of_them)
        exit_code = Exit(summary.exit_code)
        why = RETRY if exit_code is Exit.REJECTS else summary.reason
        all_of_them = stops_all(exit_code, keep_going=self.keep_going)
        return End(each.day, output, summary.ended, exit_code, why, all_of_them, summary)


def _signalled(raised: BaseException) -> Signalled | None:
    """
    The signal that was *raised*, or in a group of what was.
    """
    if isinstance(raised, BaseExceptionGroup):
        return next(filter(None, map(_signalled, raised.exceptions)), None)
    return raised if isinstance(raised, Signalled) else None
