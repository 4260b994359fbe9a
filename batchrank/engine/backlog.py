"""
What is to be asked: slices that are due now or later, and groups that have slices left.

Owns the heap of things to try again (they wait without a slot), those that are out of tries until
the gate knows whose fault it was, and the assembly of a group from its slices. No clock, no I/O.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping
from itertools import count

import msgspec

from batchrank.domain import Failure, Group, Ranked, RerankRequest, Scored, Slice
from batchrank.policy.amounts import NOTHING, Amount
from batchrank.policy.billing import Sizes, sizes_of
from batchrank.policy.retry import FRESH, History
from batchrank.policy.slicing import assembled


class OpenGroup(msgspec.Struct):
    """
    A group that somebody was asked about. *waiting* counts its slices without scores; *closed*: it
    has an outcome, and whatever still comes for it is only booked.

    *by* is the kind of model that all its slices are asked of, None while that is open; *flying*
    counts those that somebody is asked about now.
    """

    group: Group
    waiting: int
    scored: list[Scored] = msgspec.field(default_factory=list)
    closed: bool = False
    attempts: int = 0
    by: str | None = None
    flying: int = 0

    def sent(self, kind: str) -> None:
        """
        One of its slices leaves, to a model of this *kind*: from now on no other may score it.
        """
        self.by = kind
        self.flying += 1

    def failed(self) -> None:
        """
        One of them came home without scores; while none has any, every model may be asked again.
        """
        self.flying -= 1
        if not self.flying and not self.scored:
            self.by = None

    def take(self, part: Scored) -> Ranked | None:
        """
        Add a slice's scores; returns the outcome if it was the last.
        """
        self.scored.append(part)
        self.waiting -= 1
        if self.waiting:
            return None
        self.closed = True
        return assembled(self.group, self.scored)


class Work(msgspec.Struct, eq=False):
    """
    One slice that is to be asked about.

    *attempt* counts its sendings over all runs; *most* is what was set aside for the one under way,
    on the UTC day *day*, *tokens* what the pacer booked for it; *last* is how the last one failed.
    *blamed* are the routes that it was not heard on: only when each has answered others is it at
    fault itself.
    """

    of: OpenGroup
    request: RerankRequest
    history: History = FRESH
    attempt: int = 0
    most: Amount = NOTHING
    day: str = ""
    tokens: float = 0.0
    suspended_at: float = 0.0
    last: Failure | None = None
    blamed: set[str] = msgspec.field(default_factory=set)
    _sizes: Sizes | None = None

    @property
    def slice(self) -> Slice:
        """
        What it asks about.
        """
        return self.request.slice

    @property
    def sizes(self) -> Sizes:
        """
        How large its texts are; measured when somebody asks, and once.
        """
        if self._sizes is None:
            self._sizes = sizes_of(self.request)
        return self._sizes


class Backlog:
    """
    Everything that waits without a slot.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Work]] = []
        self._order = count()
        self._suspended: list[Work] = []

    def __len__(self) -> int:
        return len(self._heap) + len(self._suspended)

    @property
    def only_suspended(self) -> bool:
        """
        Tell whether all that is left is out of tries.
        """
        return bool(self._suspended) and not self._heap

    def put(self, work: Work, due_at: float) -> None:
        """
        Let *work* wait until *due_at*.
        """
        heapq.heappush(self._heap, (due_at, next(self._order), work))

    def take(self, now: float) -> Work | None:
        """
        The work that has been due longest, if any is.
        """
        while self._heap and self._heap[0][0] <= now:
            work = heapq.heappop(self._heap)[2]
            if not work.of.closed:
                return work
        return None

    def forget_ended(self) -> None:
        """
        Let go of what is left of groups that have an outcome: nobody waits for it.
        """
        self._heap = [one for one in self._heap if not one[2].of.closed]
        heapq.heapify(self._heap)
        self._suspended = [work for work in self._suspended if not work.of.closed]

    def next_due_at(self) -> float:
        """
        When the next work is due; infinity for never.
        """
        return self._heap[0][0] if self._heap else float("inf")

    def suspend(self, work: Work, now: float) -> None:
        """
        Set aside what is out of tries until it is known whose fault that was.
        """
        work.suspended_at = now
        self._suspended.append(work)

    def forgive(
        self, strikes: Mapping[object, int], works: Collection[Work], now: float, route: str
    ) -> None:
        """
        An outage of *route* was to blame: take strikes back from *works* and from all that waits,
        and let what it has brought out of tries begin anew.
        """
        waiting = [work for _, _, work in self._heap]
        for work in {*works, *waiting, *self._suspended}:
            if forgiven := strikes.get(work.slice):
                work.history = work.history.forgiven(forgiven)
        for work in (*works, *waiting):
            work.blamed.discard(route)
        suspended, self._suspended = self._suspended, []
        for work in suspended:
            if work.blamed and route not in work.blamed:
                self._suspended.append(work)
            else:
                self._free(work, now)

    @property
    def blamed(self) -> set[str]:
        """
        The routes that kept from being heard what is out of tries.
        """
        return set().union(*(work.blamed for work in self._suspended))

    def pardon(self, now: float) -> None:
        """
        Nobody is left whose success could convict: let all that is out of tries begin anew.
        """
        suspended, self._suspended = self._suspended, []
        for work in suspended:
            work.history = work.history.forgiven(work.history.unknown)
            self._free(work, now)

    def _free(self, work: Work, now: float) -> None:
        work.blamed.clear()
        self.put(work, now)

    def convicted(self, answered_since: float, route: str) -> list[Work]:
        """
        Take out what is out of tries since before *answered_since*: others are answered on *route*,
        it is not, nor was it on any other.

        Of several slices of one group the first is returned: a group is rejected once.
        """
        if not self._suspended:
            return []
        early = [work for work in self._suspended if work.suspended_at < answered_since]
        for work in early:
            work.blamed.discard(route)
        guilty = [work for work in early if not work.blamed]
        if guilty:
            self._suspended = [work for work in self._suspended if work not in guilty]
        first: dict[int, Work] = {}
        for work in guilty:
            if not work.of.closed:
                first.setdefault(work.slice.position, work)
        return list(first.values())
