"""
Nights on which everything meets: several routes that fail in every way, caps, limits, deadlines,
groups in slices, limits that are learned, a slow disk, and kills.

What the other laws here try one by one. Whatever is drawn, the same few sentences hold after every
run, and a night without trouble brings the job to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

import anyio
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Answer, FailureKind, RateLimit, RerankRequest, Served
from batchrank.engine.runner import Ending, Ports
from batchrank.engine.waiting import Lane
from batchrank.errors import Exit
from batchrank.job.account import Account
from batchrank.policy.amounts import NOTHING
from batchrank.policy.budget import Budget, lost
from batchrank.policy.routing import Strategy
from batchrank.store.reading import AUTHORISED, amount_of, named
from batchrank.testing import InlineLane, Script, ScriptedScorer, failure, groups, reply
from batchrank.testing import run_virtually as virtually
from tests.flow.stage import SlowLane, Stage, Way
from tests.flow.test_failover import models_of
from tests.laws import law

K = FailureKind

CALL = 10**6
"""What a call costs at most, in 10^-9 USD, and here always."""

BILLED = frozenset({None, K.UNKNOWN, K.BAD_REPLY})
"""How calls end that the server of this night charges for."""

DISKS: Sequence[Lane] = (InlineLane(), InlineLane(), SlowLane(0.5))
RUNS = 4


@dataclass
class Ill:
    """
    What is wrong with a way: *shares* of its calls fail without a reason, all of them in `down`,
    and for good from *fatal_at* on; it takes *documents_max*, and does not say so.
    """

    shares: dict[FailureKind, float] = field(default_factory=dict)
    down: tuple[float, float] = (0.0, 0.0)
    fatal_at: float = float("inf")
    fatal_status: int = 401
    hint_s: float | None = None
    documents_max: int = 100
    refused: frozenset[int] = frozenset()

    def failure(self, request: RerankRequest, now: float, random: Random) -> Answer | None:
        """
        How this request fails; None if it does not.
        """
        if now >= self.fatal_at:
            return failure(K.FATAL, status=self.fatal_status)
        if self.down[0] <= now < self.down[1]:
            return failure(random.choice([K.UNKNOWN, K.NEVER_SENT]))
        if request.slice.position in self.refused:
            return failure(K.BAD_GROUP)
        if len(request.documents) > self.documents_max:
            told = random.choice([None, self.documents_max])
            return failure(K.BAD_GROUP, too_large=True, too_many=True, documents_max=told)
        for kind, share in self.shares.items():
            if random.random() < share:
                hint_s = self.hint_s if kind is K.THROTTLED else None
                return failure(kind, retry_after_s=hint_s)
        return None


@dataclass
class Job(Stage):
    """
    A job, and what its servers have counted. *random* draws what they do.
    """

    random: Random = field(default_factory=Random)
    ills: Sequence[Ill] = ()
    billed: int = 0
    received: int = 0
    too_late: list[int] = field(default_factory=list)

    def script(self, place: int, served: Served) -> Script:
        """
        What the server of the way at *place* does.
        """

        def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
            if request.slice.position in self.endings():
                self.too_late.append(request.slice.position)
            answer = self.ills[place].failure(request, now, self.random)
            kind = None if answer is None else answer.kind  # type: ignore[union-attr] # no reply
            self.billed += CALL * (kind in BILLED)
            self.received += kind is not K.NEVER_SENT
            return answer or reply(request, served=served)

        return script

    @property
    def scorers(self) -> list[ScriptedScorer]:
        """
        Those of all ways.
        """
        return [self.scorer, *(way.scorer for way in self.fallbacks)]

    @property
    def sent(self) -> int:
        """
        How many calls have left, over all runs.
        """
        return sum(len(scorer.sent) for scorer in self.scorers)

    @property
    def recorded(self) -> int:
        """
        How many are in the ledger.
        """
        ((count,),) = self.ledger.connection.execute("SELECT count(*) FROM calls")
        return int(count)

    def _ports(self) -> Ports:
        ports = super()._ports()
        spent = Account.of(self.ledger).spent
        self.budget: Budget = replace(ports.budget, spent=spent, authorised=spent)
        return replace(ports, budget=self.budget)

    def night(self, killed_at: float | None) -> tuple[Ending | None, float]:
        """
        Run, until somebody kills it; how it ended, if it did, and when.
        """

        async def timed() -> tuple[Ending | None, float]:
            ending = None
            with anyio.move_on_after(killed_at):
                ending = await self.run_here()
            return ending, anyio.current_time()

        ended = virtually(timed)
        account = Account.of(self.ledger)
        if ended[0] is None:  # as the next run does
            new = lost(amount_of(AUTHORISED, self.ledger.meta()), account.spent)
            self.ledger.count_lost(account.lost + new, {})
        else:
            self.ledger.set_meta(named(AUTHORISED, account.spent))
        return ended


def an_ill(random: Random, count: int) -> Ill:
    """
    Something that may be wrong, or nothing.
    """
    kinds = (K.THROTTLED, K.UNKNOWN, K.BAD_REPLY, K.NEVER_SENT)
    began = random.uniform(0, 20)
    return Ill(
        {kind: random.choice([0.0, 0.0, 0.1, 0.5]) for kind in kinds},
        (began, began + random.choice([0, 0, 3, 200])),
        random.choice([random.uniform(0, 60), float("inf")]),
        random.choice([401, 402, 429]),
        random.choice([None, 1.0, 30.0, 1e6, float("inf")]),
        random.choice([1, 2, 4, 100]),
        frozenset(n for n in range(count) if random.random() < random.choice([0.0, 0.2])),
    )


def a_job(random: Random) -> Job:
    """
    Some groups, and one to three ways to one model or two.
    """
    count, ways = random.choice([3, 12, 25]), random.choice([1, 2, 3])
    held = groups(count, candidates=random.choice([1, 3, 9]))
    job = Job(
        held,
        random=random,
        ills=[an_ill(random, count) for _ in range(ways)],
        seed=random.randrange(1000),
        strategy=random.choice([*Strategy]),
        concurrency=random.choice([1, 2, 9]),
        documents_max=random.choice([None, 2, 5]),
        cap=random.choice([None, 5 * CALL, 40 * CALL]),
        requests_max=random.choice([None, None, 10, 40]),
        limit=random.choice([None, RateLimit(2, 1.0), RateLimit(60, 60.0)]),
        documents=random.choice([None, None, RateLimit(5, 1.0)]),
        proven=random.choice([True, False]),
        outage_s_max=random.choice([20.0, 1800.0]),
        throttled_s_max=random.choice([20.0, 21_600.0]),
        drain_s_max=random.choice([0.0, 1.0, 25.0]),
        ledger_lane=random.choice(DISKS),
    )
    kinds = ["model", *random.choice([("model", "model"), ("other", "model"), ("other", "other")])]
    latencies = [0.05, 0.5, 2.0, random.choice([0.1, 40.0])]
    scorers = [
        ScriptedScorer(job.script(n, Served(kind, f"p{n}")), lambda _: random.choice(latencies))
        for n, kind in enumerate(kinds[:ways])
    ]
    job.scorer = scorers[0]
    job.fallbacks = [
        Way(f"way {n}", scorers[n], documents_max=random.choice([None, 1, 4]), kind=kinds[n])
        for n in range(1, ways)
    ]
    return job


def check(job: Job) -> None:
    """
    What holds at any moment, after a kill, too.
    """
    endings = job.endings()
    assert sorted(set(endings)) == endings
    assert [] == job.too_late
    assert all(len(models) == 1 for models in models_of(job))
    assert job.billed <= (job.cap or job.billed)
    assert job.received <= (job.requests_max or job.received)
    bounds = [job.concurrency, *(way.concurrency for way in job.fallbacks)]
    most = [scorer.in_flight_max for scorer in job.scorers]
    assert all(there <= bound for there, bound in zip(most, bounds, strict=True))


def check_ended(job: Job, ending: Ending, ended_at: float) -> None:
    """
    What holds besides where the run has ended in order.
    """
    assert ending.stop is None or ending.stop.exit_code is not Exit.BUG
    assert job.budget.spent == Account.of(job.ledger).spent
    if ending.stop is None:
        assert NOTHING == job.budget.reserved
        assert list(range(len(job.held))) == job.endings()
    if job.deadline_s is not None and isinstance(job.ledger_lane, InlineLane):
        assert ended_at <= max(job.deadline_s, job.drain_s_max) + 1


@law(40)
@given(random=st.randoms(use_true_random=False))
def test_whatever_meets_in_a_night_nothing_is_lost_passed_or_mixed(random: Random) -> None:
    """
    No group ends twice or is asked about after its end, none has scores of two models, no cap is
    passed; every call is in the ledger, nothing stays set aside, and deadlines are kept.
    """
    job = a_job(random)
    for _ in range(RUNS):
        job.deadline_s = random.choice([None, None, 5.0, 30.0])
        sent, recorded = job.sent, job.recorded
        killed_at = random.choice([None, None, random.uniform(0, 30)])

        ending, ended_at = job.night(killed_at)

        check(job)
        if ending is not None:
            assert job.sent - sent == job.recorded - recorded
            check_ended(job, ending, ended_at)

    job.ills = [Ill() for _ in job.ills]
    job.cap = job.requests_max = job.deadline_s = None
    ending, ended_at = job.night(None)
    check(job)
    assert ending is not None
    assert ending.stop is None
    check_ended(job, ending, ended_at)
