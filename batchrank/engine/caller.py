"""
One attempt: send, read, judge, hand the record over.

Owns what follows from an answer. From the moment a reply is read until its record is with the
committer nothing waits, so that nothing can come between. Decisions are `policy`'s; this carries
them out. When to send is the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import msgspec

from batchrank.domain import (
    PERHAPS_BILLED,
    Answer,
    Call,
    Failure,
    FailureKind,
    Outcome,
    Price,
    Rejected,
    RejectKind,
    RerankReply,
    Scored,
    Usage,
)
from batchrank.engine.backlog import Backlog, Work
from batchrank.engine.committer import Committer
from batchrank.engine.scorer import Scorer
from batchrank.engine.waiting import Brake, Pacer, Stop
from batchrank.errors import Exit
from batchrank.events import AttemptFailed, GateOpened, GateShut, Noticed, ReplyRead, Reporter
from batchrank.policy.amounts import Amount
from batchrank.policy.billing import NOT_BILLED, Booking, booked
from batchrank.policy.budget import Budget
from batchrank.policy.control import Controller, Heard
from batchrank.policy.retry import (
    IN_A_ROW_MAX,
    Again,
    Halt,
    Reject,
    Rules,
    Split,
    Suspend,
    verdict,
)
from batchrank.policy.slicing import halves, scored


@dataclass(slots=True)
class Clocks:
    """
    Time and chance, as arguments. *wall* is seconds since the epoch, *jitter* draws from 0 to 1.

    *now* is the event loop's own clock, in seconds: the only one that decides anything. It is asked
    some ten times for a group, and asking it through anyio takes as long as reading a reply.
    """

    wall: Callable[[], float]
    jitter: Callable[[], float]
    now: Callable[[], float]


class Caller:
    """
    Makes attempts and judges their answers.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        committer: Committer,
        backlog: Backlog,
        budget: Budget,
        controller: Controller,
        pacer: Pacer,
        brake: Brake,
        reporter: Reporter,
        clocks: Clocks,
        rules: Rules,
        price: Price | None,
        model: str | None,
    ) -> None:
        self._scorer = scorer
        self._committer = committer
        self._backlog = backlog
        self._gate = controller.gate
        self._budget = budget
        self._controller = controller
        self._pacer = pacer
        self._brake = brake
        self._reporter = reporter
        self._clocks = clocks
        self._rules = rules
        self._price = price
        self._model = model
        self._rejected_in_a_row = 0
        self.in_hand: set[Work] = set()
        self._told_shut = ("", 0.0)
        self.notes: list[str] = []

    async def attempt(self, work: Work, probe: bool) -> None:
        """
        Ask once. Raises nothing: what happens is a record, and a bug stops the job by value.
        """
        sending = _Sending(self._clocks.wall(), self._clocks.now(), probe)
        work.attempt += 1
        work.of.attempts += 1
        try:
            answer = await self._scorer.score(work.request)
            self._reporter.report(ReplyRead(work.slice.position))
            self._settle(work, answer, sending)
        except anyio.get_cancelled_exc_class():
            # The time to drain is over and the process is about to end.
            self._book(work, LEFT_BEHIND, sending, ())
            raise
        # A bug costs one group; raising it here would cancel every paid call beside it.
        except Exception as bug:  # noqa: BLE001
            self._brake.pull(Stop(f"a bug: {bug!r}", Exit.BUG, error=bug))
            if not sending.booked:
                self._book(work, BUG, sending, ())
        finally:
            self.in_hand.discard(work)

    # --- judging ----------------------------------------------------------------------------------

    def _settle(self, work: Work, answer: Answer, sending: _Sending) -> None:
        if isinstance(answer, RerankReply):
            answer = self._of_one_model(answer)
        if isinstance(answer, RerankReply):
            self._scored(work, answer, sending)
        else:
            self._failed(work, answer, sending)

    def _of_one_model(self, reply: RerankReply) -> Answer:
        """
        The job's first reply fixes the model; another one afterwards is not mixed in.
        """
        if self._model is None:
            self._model = reply.served.model
            self._committer.put_model(self._model)
        if reply.served.model == self._model:
            return reply
        return Failure(
            FailureKind.FATAL,
            f"this job's scores are {self._model}'s, now {reply.served.model} answers",
            status=200,
            code=MODEL_CHANGED,
            usage=reply.usage,
            served=reply.served,
            request_id=reply.request_id,
        )

    def _scored(self, work: Work, reply: RerankReply, sending: _Sending) -> None:
        self._rejected_in_a_row = 0
        self._compared(reply)
        if self._gate.succeeded(sending.at, sending.probe):
            self.gate_opened()
        self._steer(work, reply, sending)
        outcomes: list[Outcome] = []
        # What comes home for a group that was rejected meanwhile is kept: another run may need it.
        part = scored(work.request, reply)
        whole = None if work.of.closed else work.of.take(part)
        if whole is not None:
            outcomes.append(whole)
        outcomes += [
            self._rejection(guilty, RejectKind.UNKNOWN, guilty.last)
            for guilty in self._backlog.convicted(sending.at)
        ]
        self._book(work, reply, sending, outcomes, None if whole else part)

    def _compared(self, reply: RerankReply) -> None:
        """
        Say once if documents do not come back: what is paid for is kept, on one check less.
        """
        if not reply.echoed and not self.notes:
            self.notes.append(NOT_ECHOED)
            self._reporter.report(Noticed(NOT_ECHOED))

    def _failed(self, work: Work, failure: Failure, sending: _Sending) -> None:
        now = self._clocks.now()
        work.last = failure
        work.history = work.history.after(failure, now)
        self._tell_gate(work, failure, sending, now)
        self._steer(work, failure, sending)
        step = verdict(failure, work.history, self._rules, now, self._clocks.jitter())
        outcomes: list[Outcome] = []
        match step:
            case Again(wait_s):
                self._backlog.put(work, now + wait_s)
                words = f"again in {wait_s:.1f} s"
            case Suspend():
                self._backlog.suspend(work, now)
                words = "waits until others are answered"
            case Split():
                words = self._split(work, failure, now, outcomes)
            case Reject(kind):
                outcomes += self._reject(work, kind, failure)
                words = "rejected"
            case Halt():
                words = "stops the job"
                self._brake.pull(Stop(_why(failure), Exit.PERSON, code=failure.code))
        call = self._book(work, failure, sending, outcomes)
        self._reporter.report(AttemptFailed(call, words))

    def _split(self, work: Work, failure: Failure, now: float, outcomes: list[Outcome]) -> str:
        smaller = [] if work.of.closed else halves(work.of.group, work.slice)
        if not smaller:
            outcomes += self._reject(work, RejectKind.BAD_GROUP, failure)
            return "rejected: one candidate is too large"
        work.of.waiting += len(smaller) - 1
        for request in smaller:
            self._backlog.put(Work(work.of, request), now)
        return "again in two halves"

    def _reject(self, work: Work, kind: RejectKind, failure: Failure) -> list[Outcome]:
        if work.of.closed:
            return []
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row >= IN_A_ROW_MAX:
            reason = f"{IN_A_ROW_MAX} groups in a row were rejected, last: {failure.message}"
            self._brake.pull(Stop(reason, Exit.PERSON))
        return [self._rejection(work, kind, failure)]

    def _rejection(self, work: Work, kind: RejectKind, failure: Failure | None) -> Rejected:
        work.of.closed = True
        group = work.of.group
        return Rejected(
            group.position,
            group.query_id,
            kind,
            failure.message if failure else "",
            failure.status if failure else None,
            failure.code if failure else None,
            work.of.attempts,
        )

    # --- the gate ---------------------------------------------------------------------------------

    def _tell_gate(self, work: Work, failure: Failure, sending: _Sending, now: float) -> None:
        probe, jitter = sending.probe, self._clocks.jitter()
        match failure.kind:
            case FailureKind.THROTTLED:
                if self._gate.throttled(now, failure.retry_after_s, probe, jitter):
                    self._gate_shut(now)
            case FailureKind.NEVER_SENT | FailureKind.UNKNOWN:
                strike = work.slice if failure.kind is FailureKind.UNKNOWN else None
                amnesty = self._gate.failed(strike, now, failure.message, probe, jitter)
                if amnesty is not None:
                    self._backlog.forgive(amnesty.strikes, self.in_hand, now)
                    self._gate_shut(now)
            case _:
                if self._gate.refused(probe):
                    self.gate_opened()

    def _steer(self, work: Work, answer: Answer, sending: _Sending) -> None:
        """
        Let the controller hear, which comes after the gate, and the pacer what it weighed wrongly.
        """
        failure = answer if isinstance(answer, Failure) else None
        now = self._clocks.now()
        heard = Heard(
            failure.kind if failure else None,
            failure.status if failure else 200,
            failure.retry_after_s if failure else None,
            answer.advertised,
            sending.at,
            now,
            sending.probe,
            self._clocks.jitter(),
        )
        if self._controller.heard(heard):
            self._gate_shut(now)
        if failure is not None and failure.kind is FailureKind.NEVER_SENT:
            self._pacer.give_back(len(work.request.documents), work.tokens)
        elif self._pacer.weighs_tokens:
            self._pacer.counted(work.sizes, work.tokens, answer.usage.total_tokens)

    def doubt(self) -> None:
        """
        All that is left is out of tries, and nobody else's success can tell whose fault that is.
        """
        now = self._clocks.now()
        self._gate.doubted(now, "no answer", self._clocks.jitter())
        self._backlog.pardon(now)
        self._gate_shut(now)

    def _gate_shut(self, now: float) -> None:
        until, kind = self._gate.until(), self._gate.kind
        reason = self._gate.reason or ""
        if until is not None and kind is not None and (reason, until) != self._told_shut:
            self._told_shut = (reason, until)
            self._reporter.report(GateShut(reason, kind, until - now))
            self._committer.put_note(reason)

    def gate_opened(self) -> None:
        """
        Tell that everybody may send again.
        """
        self._reporter.report(GateOpened())
        self._committer.put_note("")

    # --- booking ----------------------------------------------------------------------------------

    def _book(
        self,
        work: Work,
        answer: Answer,
        sending: _Sending,
        outcomes: Sequence[Outcome],
        part: Scored | None = None,
    ) -> Call:
        """
        Hand the record over; from here on it is the committer's.
        """
        sending.booked = True
        failure = answer if isinstance(answer, Failure) else None
        booking = self._booking(work, answer)
        counted = _counted(work, booking, failure)
        self._budget.settle(work.most, counted, work.day)
        call = Call(
            slice=work.slice,
            attempt=work.attempt,
            sent_at=sending.wall,
            latency_s=self._clocks.now() - sending.at,
            failure=failure,
            served=answer.served,
            usage=answer.usage,
            request_id=answer.request_id,
            cost_nano_usd=booking.nano_usd,
            cost_source=booking.source,
            probe=sending.probe,
            search_units=counted.search_units,
            day=work.day,
        )
        self._committer.put_call(call, outcomes, part)
        return call

    def _booking(self, work: Work, answer: Answer) -> Booking:
        """
        What the attempt is booked at: nothing, if it was surely not billed.
        """
        if (
            isinstance(answer, Failure)
            and answer.kind not in PERHAPS_BILLED
            and answer.served is None  # who scored has worked, whatever is wrong with the scores
            and answer.usage == Usage()
        ):
            return NOT_BILLED
        return booked(answer.usage, work.request, self._price)


def _counted(work: Work, booking: Booking, failure: Failure | None) -> Amount:
    """
    What the attempt counts as. One that never left is no request; units that nobody reported count
    as the most that was set aside.
    """
    requests = int(failure is None or failure.kind is not FailureKind.NEVER_SENT)
    billed = booking is not NOT_BILLED
    units = booking.search_units or (work.most.search_units if billed else 0)
    return Amount(booking.nano_usd, requests, units)


class _Sending(msgspec.Struct, gc=False):
    wall: float
    at: float
    probe: bool
    booked: bool = False


MODEL_CHANGED = "model_changed"
"""The code of a reply by the model that was asked for, but of another day than this job's."""

NOT_ECHOED = (
    "some replies do not repeat the documents: their scores are bound by index alone, and an index"
    " that is exchanged with another would not be seen"
)
LEFT_BEHIND = Failure(
    FailureKind.UNKNOWN, "still under way when the process had to leave", code="left_behind"
)
BUG = Failure(FailureKind.UNKNOWN, "a bug of ours; see the run's end", code="bug")


def _why(failure: Failure) -> str:
    status = f"{failure.status}: " if failure.status else ""
    return f"{status}{failure.message}"
