"""
One attempt: send, read, judge, hand the record over.

Owns what follows from an answer. From the moment a reply is read until its record is with the
committer nothing waits, so that nothing can come between. Decisions are `policy`'s; this carries
them out. When to send is the dispatcher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

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
from batchrank.engine.routes import Route, Routes
from batchrank.engine.waiting import Brake, Stop
from batchrank.errors import Exit
from batchrank.events import AttemptFailed, GateOpened, GateShut, Noticed, ReplyRead, Reporter
from batchrank.policy.amounts import Amount
from batchrank.policy.billing import NOT_BILLED, Booking, booked
from batchrank.policy.budget import Budget
from batchrank.policy.control import Heard
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
from batchrank.policy.routing import SPENT_PROBE_S, probe_again_s
from batchrank.policy.slicing import scored, smaller


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
        routes: Routes,
        *,
        committer: Committer,
        backlog: Backlog,
        budget: Budget,
        brake: Brake,
        reporter: Reporter,
        clocks: Clocks,
        rules: Rules,
    ) -> None:
        self._routes = routes
        self._committer = committer
        self._backlog = backlog
        self._budget = budget
        self._brake = brake
        self._reporter = reporter
        self._clocks = clocks
        self._rules = rules
        self.in_hand: set[Work] = set()
        self._told_shut: dict[str, tuple[str, float]] = {}
        self._told_capacity: set[str] = set()
        self.notes: list[str] = []

    async def attempt(self, work: Work, route: Route, probe: bool) -> None:
        """
        Ask once. Raises nothing: what happens is a record, and a bug stops the job by value.
        """
        sending = _Sending(route, self._clocks.wall(), self._clocks.now(), probe)
        work.attempt += 1
        work.of.attempts += 1
        try:
            answer = await route.scorer.score(work.request)
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
            answer = self._of_one_model(answer, sending.route)
        if sending.probe:
            self._probed(sending.route, scored=isinstance(answer, RerankReply))
        if isinstance(answer, RerankReply):
            self._scored(work, answer, sending)
        else:
            self._failed(work, answer, sending)

    def _probed(self, route: Route, *, scored: bool) -> None:
        if route.probed(self._clocks.now(), scored=scored):
            self._note(f"{route.name} is back: it scores again")
            self._put_note()

    def _of_one_model(self, reply: RerankReply, route: Route) -> Answer:
        """
        A route's first reply fixes its model; another one afterwards is not mixed in.
        """
        if route.served is None:
            route.served = reply.served.model
            self._committer.put_model(route.served_key, route.served)
        if reply.served.model == route.served:
            return reply
        return Failure(
            FailureKind.FATAL,
            f"this job's scores are {route.served}'s, now {reply.served.model} answers",
            status=200,
            code=MODEL_CHANGED,
            usage=reply.usage,
            served=reply.served,
            request_id=reply.request_id,
        )

    def _scored(self, work: Work, reply: RerankReply, sending: _Sending) -> None:
        route = sending.route
        route.rejected_in_a_row = 0
        route.proven = True
        self._tell_unechoed(reply)
        route.capacity.passed(work.request)
        if route.gate.succeeded(sending.at, sending.probe):
            self.gate_opened(route)
        self._steer(work, reply, sending)
        outcomes: list[Outcome] = []
        # What comes home for a group that was rejected meanwhile is kept: another run may need it.
        part = scored(work.request, reply)
        work.of.flying -= 1
        whole = None if work.of.closed else work.of.take(part)
        if whole is not None:
            outcomes.append(whole)
        outcomes += [
            self._rejection(guilty, RejectKind.UNKNOWN, guilty.last)
            for guilty in self._backlog.convicted(sending.at, route.name)
        ]
        self._book(work, reply, sending, outcomes, None if whole else part)

    def _tell_unechoed(self, reply: RerankReply) -> None:
        """
        Say once if documents do not come back: what is paid for is kept, on one check less.
        """
        if not reply.echoed and NOT_ECHOED not in self.notes:
            self._note(NOT_ECHOED)

    def _failed(self, work: Work, failure: Failure, sending: _Sending) -> None:
        now = self._clocks.now()
        work.of.failed()
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
                pieces = self._split(work, failure, sending.route)
                words = f"again in {pieces} pieces"
                if not pieces:
                    outcomes = self._reject(work, RejectKind.TOO_LARGE, failure, sending.route)
                    words = "rejected: one candidate is too large"
            case Reject(kind):
                outcomes = self._reject(work, kind, failure, sending.route)
                words = "rejected"
            case Halt():
                words = self._go_another_way(work, failure, sending.route, now)
        call = self._book(work, failure, sending, outcomes)
        self._reporter.report(AttemptFailed(call, words))

    def _give_up(self, route: Route, why: str, probe_at: float, code: str | None = None) -> bool:
        """
        A route is of no use, for good or until it is probed; the job is over when all are. Tell
        whether it goes on.
        """
        news = route.close(why, probe_at)
        if all(one.is_closed for one in self._routes):
            self._brake.pull(Stop(why, Exit.PERSON, code=code))
            return False
        if news:
            # Whoever waits for its word need not any more.
            self._backlog.forgive({}, self.in_hand, self._clocks.now(), route.name)
            self._note(f"{route.name} is given up{_until_probed(route)}: {why}")
            self._put_note()
        return True

    def _go_another_way(self, work: Work, failure: Failure, route: Route, now: float) -> str:
        probe_at = now + probe_again_s(failure)
        if not self._give_up(route, _why(failure), probe_at, failure.code):
            return "stops the job"
        self._backlog.put(work, now)
        return "goes another way"

    def _note(self, words: str) -> None:
        self.notes.append(words)
        self._reporter.report(Noticed(words))

    def _split(self, work: Work, failure: Failure, route: Route) -> int:
        """
        Put the parts of a request that is too large into the backlog; tell how many there are, none
        if it cannot be cut or its group has ended.
        """
        if route.capacity.refused(work.request, failure):
            self._tell_capacity(route)
        bounds = route.capacity.bounds
        pieces = [] if work.of.closed else smaller(work.of.group, work.slice, bounds)
        if pieces:
            work.of.waiting += len(pieces) - 1
        for request in pieces:
            self._backlog.put(Work(work.of, request), self._clocks.now())
        return len(pieces)

    def _tell_capacity(self, route: Route) -> None:
        """
        Say once that a limit was met which nobody told; what it comes to is for the summary.
        """
        if route.name not in self._told_capacity:
            self._told_capacity.add(route.name)
            self._reporter.report(Noticed(route.capacity.learned.sentence()))

    def _reject(
        self, work: Work, kind: RejectKind, failure: Failure, route: Route
    ) -> list[Outcome]:
        if work.of.closed:
            return []
        route.rejected_in_a_row += 1
        if route.rejected_in_a_row >= IN_A_ROW_MAX:
            words = f"{IN_A_ROW_MAX} groups in a row were rejected, last: {failure.message}"
            self._give_up(route, words, inf)
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
        route, probe, jitter = sending.route, sending.probe, self._clocks.jitter()
        match failure.kind:
            case FailureKind.THROTTLED:
                if route.gate.throttled(now, failure.retry_after_s, probe, jitter):
                    self._gate_shut(route, now)
            case FailureKind.NEVER_SENT | FailureKind.UNKNOWN:
                strike = None
                if failure.kind is FailureKind.UNKNOWN:
                    strike = work.slice
                    work.blamed.add(route.name)
                amnesty = route.gate.failed(strike, now, failure.message, probe, jitter)
                if amnesty is not None:
                    self._backlog.forgive(amnesty.strikes, self.in_hand, now, route.name)
                    self._gate_shut(route, now)
            case _:
                if route.gate.refused(probe):
                    self.gate_opened(route)

    def _steer(self, work: Work, answer: Answer, sending: _Sending) -> None:
        """
        Let the controller hear, which comes after the gate, and the pacer what it weighed wrongly.
        """
        failure = answer if isinstance(answer, Failure) else None
        now, route = self._clocks.now(), sending.route
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
        if route.controller.heard(heard):
            self._gate_shut(route, now)
        if failure is not None and failure.kind is FailureKind.NEVER_SENT:
            route.pacer.give_back(len(work.request.documents), work.tokens)
        elif route.pacer.weighs_tokens:
            route.pacer.counted(work.sizes, work.tokens, answer.usage.total_tokens)

    def doubt(self) -> None:
        """
        All that is left is out of tries, and nobody else's success can tell whose fault that is.
        """
        now, blamed = self._clocks.now(), self._backlog.blamed
        self._backlog.pardon(now)
        for route in self._routes:
            if route.name in blamed or not blamed:
                route.gate.doubted(now, "no answer", self._clocks.jitter())
                self._gate_shut(route, now)

    def _gate_shut(self, route: Route, now: float) -> None:
        until, kind = route.gate.until(), route.gate.kind
        told = (route.gate.reason or "", until or 0.0)
        if until is not None and kind is not None and told != self._told_shut.get(route.name):
            self._told_shut[route.name] = told
            self._reporter.report(GateShut(told[0], kind, until - now, self._named(route)))
            self._put_note()

    def gate_opened(self, route: Route) -> None:
        """
        Tell that everybody may take *route* again.
        """
        self._reporter.report(GateOpened(self._named(route)))
        self._put_note()

    def _put_note(self) -> None:
        """
        Write down for `status` what is in the way, with the route's name where there are several.
        """
        shut = [route for route in self._routes if route.why]
        several = len(self._routes) > 1
        words = (f"{route.name}: {route.why}" if several else route.why for route in shut)
        self._committer.put_note("; ".join(words))

    def _named(self, route: Route) -> str:
        return route.name if len(self._routes) > 1 else ""

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
        failure = answer if isinstance(answer, Failure) else None
        booking = self._booking(work, answer, sending.route.price)
        counted = _counted(work, booking, failure)
        sending.booked = True
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
            route=sending.route.name,
            search_units=counted.search_units,
            day=work.day,
        )
        self._committer.put_call(call, outcomes, part)
        return call

    def _booking(self, work: Work, answer: Answer, price: Price | None) -> Booking:
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
        return booked(answer.usage, work.request, price)


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
    route: Route
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


def _until_probed(route: Route) -> str:
    again = "" if route.is_gone else f", and asked again every {SPENT_PROBE_S / 60:.0f} minutes"
    return f" for this run{again}"


def _why(failure: Failure) -> str:
    status = f"{failure.status}: " if failure.status else ""
    return f"{status}{failure.message}"
