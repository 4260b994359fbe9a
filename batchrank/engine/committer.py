"""
What happened becomes durable: whatever is ready, in one transaction, then its slots are free.

Owns the only way into the ledger. `put_*` never waits, so nothing can come between a reply and the
record of it. Renders no part and decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from batchrank.domain import Call, Outcome, Ranked, Rejected, Scored
from batchrank.engine.waiting import Bell, Brake, Lane, Slots, Stop
from batchrank.errors import Exit, StorageError
from batchrank.events import CommitStarted, Committed, GroupRejected, Reporter
from batchrank.policy.amounts import Amount
from batchrank.store.disk import Reserve
from batchrank.store.ledger import Ledger, Records
from batchrank.store.reading import PartRow

UNCALLED_MAX = 5_000
"""So many outcomes without a call may wait for a commit; then the feed waits."""

COMPANY_S = 0.02
"""
A record that nobody waits for waits so long for others, in seconds: a commit, with its hand-overs
between threads, costs as much CPU as ten calls.
"""


class Committer:
    """
    The one writer. `run` ends after `close`, when nothing is left to write.

    *durable* hears of outcomes once they are on the disk.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lane: Lane,
        slots: Slots,
        brake: Brake,
        reporter: Reporter,
        clock: Callable[[], float],
        reserve: Reserve | None = None,
        durable: Callable[[Sequence[Outcome]], None],
    ) -> None:
        self._ledger = ledger
        self._lane = lane
        self._slots = slots
        self._brake = brake
        self._reporter = reporter
        self._clock = clock
        self._reserve = reserve
        self._tell_durable = durable
        self._records = Records()
        self._bell = Bell()
        self._wanted = Bell()
        self._closing = False
        self._durable = anyio.Event()
        self.failed = False

    # --- from anywhere, without waiting -----------------------------------------------------------

    def put_call(
        self, call: Call, outcomes: Sequence[Outcome] = (), scored: Scored | None = None
    ) -> None:
        """
        Take an attempt's record and what follows from it; its slot is free once that is durable.
        """
        self._records.calls.append(call)
        self._records.outcomes.extend(outcomes)
        if scored is not None:
            self._records.slices.append(scored)
        self._bell.ring()

    def put_outcome(self, outcome: Outcome) -> None:
        """
        Take an outcome that no attempt of now decided.
        """
        self._records.outcomes.append(outcome)
        self._bell.ring()

    def put_copy(self, outcome: Outcome) -> None:
        """
        Take an outcome that was an equal group's first.
        """
        self._records.equal += isinstance(outcome, Ranked)
        self.put_outcome(outcome)

    def put_carried(self, position: int, rows: int, body: bytes) -> None:
        """
        Take a batch's packed columns; they are durable before any outcome that comes later.
        """
        self._records.carried.append((position, rows, body))

    def put_part(self, part: PartRow) -> None:
        """
        Take the news that a part has its final name.
        """
        self._records.parts.append(part)
        self._bell.ring()

    def put_note(self, note: str) -> None:
        """
        Take a word for `status`: why nobody sends; "" takes it back.
        """
        self._records.note = note
        self._bell.ring()

    def put_model(self, key: str, model: str) -> None:
        """
        Take the model that a route's first reply named, to be kept under *key*: from now on no
        other may score there.
        """
        self._records.models[key] = model

    # --- with waiting -----------------------------------------------------------------------------

    async def authorise(self, total: Amount) -> None:
        """
        Return when the ledger durably says that so much may be spent.
        """
        self._records.authorised = total
        await self.settled()

    async def settled(self) -> None:
        """
        Return when all that was put before is durable, or never will be (see `failed`).
        """
        if not self.failed:
            durable = self._durable
            self._bell.ring()
            self.hurry()
            await durable.wait()

    async def room(self) -> None:
        """
        Return when there are not too many outcomes waiting that no slot accounts for.
        """
        if len(self._records.outcomes) > UNCALLED_MAX:
            await self.settled()

    def hurry(self) -> None:
        """
        Somebody waits for what the next commit brings, a slot for instance: do it at once.
        """
        self._wanted.ring()

    def close(self) -> None:
        """
        Let `run` end when everything is written.
        """
        self._closing = True
        self._bell.ring()
        self.hurry()

    async def run(self) -> None:
        """
        Commit whatever is ready, until closed: at once if somebody waits for it, else in company.
        """
        while not (self._closing and not self._records):
            await self._bell.wait()
            await self._wanted.wait(anyio.current_time() + COMPANY_S)
            await self._commit_once()
        self._durable.set()

    async def _commit_once(self) -> None:
        records, self._records = self._records, Records()
        durable, self._durable = self._durable, anyio.Event()
        if records and not self.failed:
            records.at = self._clock()
            self._reporter.report(CommitStarted(len(records.calls), len(records.outcomes)))
            await self._commit(records)
        self._slots.free(records.calls)
        durable.set()

    async def _commit(self, records: Records) -> None:
        try:
            await self._write(records)
        except StorageError as error:
            self._give_up(Stop(error.message, Exit.STORAGE, error=error))
        # Whatever it is, raising it here would cancel the paid calls that are under way.
        except Exception as bug:  # noqa: BLE001
            self._give_up(Stop(f"a bug: {bug!r}", Exit.BUG, error=bug))
        else:
            self._tell(records)

    def _give_up(self, stop: Stop) -> None:
        """
        Nothing can be stored any more: nobody sends, and what still comes home will be asked again.
        """
        self.failed = True
        self._brake.pull(stop)

    async def _write(self, records: Records) -> None:
        try:
            await self._lane.run(self._ledger.commit, records)
        except StorageError as error:
            if not error.out_of_space or self._reserve is None:
                raise
            # The disk is full: stop sending, and make room for what is paid for.
            self._brake.pull(Stop(error.message, Exit.STORAGE, error=error))
            self._reserve.give_back()
            await self._lane.run(self._ledger.commit, records)

    def _tell(self, records: Records) -> None:
        self._tell_durable(records.outcomes)
        self._reporter.report(Committed(tuple(records.calls), tuple(records.outcomes)))
        for outcome in records.outcomes:
            if isinstance(outcome, Rejected):
                self._reporter.report(GroupRejected(outcome))
