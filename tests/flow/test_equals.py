"""
The engine with groups that ask the same: one call for all of them, whatever happens.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as remade

from batchrank.domain import Answer, FailureKind, Group, Positions, RerankRequest
from batchrank.engine.dispatcher import AHEAD
from batchrank.engine.following import Equals
from batchrank.engine.runner import Plan, Ports
from batchrank.errors import Exit
from batchrank.job.equals import equals_of
from batchrank.store.ledger import Records
from batchrank.testing import ScriptedScorer, failure, reply
from tests.edges.ledgers import Held
from tests.flow.stage import SlowLane, Stage
from tests.laws import law

K = FailureKind


@dataclass
class EqualStage(Stage):
    """
    A stage that has looked for equal groups, as a job does before the first call.
    """

    retry_rejects: bool = False
    _equals: Equals | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        first: dict[object, int] = {}
        led = [(g.position, first.setdefault((g.query, g.documents), g.position))
               for g in self.held if g.documents]  # fmt: skip
        self.ledger.put_equals((p, leader, 0) for p, leader in led if p != leader)
        ids = Held([1] * len(self.held)).packed(0, len(self.held))
        self.ledger.commit(Records(carried=[ids]))

    def _done(self, total: int) -> Positions:
        done = super()._done(total)
        for position in self.ledger.rejected_positions() if self.retry_rejects else ():
            done.discard(position)
        self._equals = equals_of(self.ledger, done, total if self.target is None else self.target)
        return done

    def _plan(self, total: int, ports: Ports) -> Plan:
        self._done(total)
        return replace(super()._plan(total, ports), equals=self._equals)

    @property
    def asked(self) -> Counter[Any]:
        """
        How often each question was sent, slices apart.
        """
        return Counter((r.query, r.slice.start, r.slice.stop) for _, r in self.scorer.sent)


def asking(*questions: int, documents: int = 2) -> list[Group]:
    """
    Groups that ask these questions, each under an id of its own.
    """
    return [
        Group(n, f"id {n}", f"question {q}", tuple(f"{q}.{i}" for i in range(documents)))
        for n, q in enumerate(questions)
    ]


def own(request: RerankRequest, _attempt: int, _now: float) -> Answer:
    """
    The script of a server whose scores are a function of the texts.
    """
    scores = tuple(float(str(document)) for document in request.documents)
    return remade(reply(request), scores=scores)


def scores_of(stage: Stage) -> dict[int, list[float]]:
    """
    All scores, by position.
    """
    rows = stage.ledger.ranked(0, len(stage.held))
    return {row.position: list(array("d", row.scores)) for row in rows}


@law(40)
@given(
    questions=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    refused=st.sets(st.integers(0, 9), max_size=3),
    stops=st.sets(st.integers(1, 25), max_size=3),
    concurrency=st.integers(1, 9),
    documents_max=st.none() | st.integers(1, 3),
)
def test_each_question_is_asked_once_and_everybody_has_its_answer(
    questions: list[int],
    refused: set[int],
    stops: set[int],
    concurrency: int,
    documents_max: int | None,
) -> None:
    """
    Whatever runs are stopped: calls are distinct questions, and each group has the scores, or the
    refusal, that its own call would have got.
    """
    seen = 0

    def script(request: RerankRequest, attempt: int, now: float) -> Answer:
        nonlocal seen
        seen += 1
        if seen in stops:
            return failure(K.FATAL, status=401)
        if int(str(request.documents[0]).partition(".")[0]) in refused:
            return failure(K.BAD_GROUP, "no", status=400)
        return own(request, attempt, now)

    held = asking(*questions, documents=3)
    stage = EqualStage(
        held, ScriptedScorer(script), concurrency=concurrency, documents_max=documents_max
    )
    for _ in range(len(stops) + 1):
        ending = stage.run()

    assert ending.stop is None
    assert list(range(len(held))) == stage.endings()
    good = {g.position: [float(str(d)) for d in g.documents]
            for g, q in zip(held, questions, strict=True) if q not in refused}  # fmt: skip
    assert good == scores_of(stage)
    tally = stage.ledger.tally()
    slices = 1 if documents_max is None else -(-3 // documents_max)
    assert slices * len(set(questions) - refused) == tally.get("calls.ok", 0)
    assert all(stage.asked[key] <= 1 + len(stops) for key in stage.asked)
    assert len(good) - len(set(questions) - refused) == tally.get("equal", 0)


def test_those_that_follow_fill_no_window() -> None:
    """
    One answer is slow, and a hundred groups wait for it: all others go on beside.
    """
    held = asking(*[0] * 100, *range(1, 41))
    slow = 60.0
    scorer = ScriptedScorer(own, lambda r: slow if r.query == "question 0" else 0.1)
    stage = EqualStage(held, scorer, concurrency=2)

    ending = stage.run()

    assert ending.stop is None
    assert len(held) > AHEAD * stage.concurrency
    assert 41 == len(scorer.sent)
    assert max(scorer.sent_at) < slow
    assert list(range(140)) == stage.ranked()


def test_a_range_of_nothing_but_followers_is_published_without_being_read() -> None:
    """
    As soon as the group that they follow has an outcome.
    """
    held = asking(*range(8), *[3] * 16, *range(8, 16))
    stage = EqualStage(held, ScriptedScorer(own))

    assert stage.run().stop is None

    assert [(0, 8), (1, 16), (2, 24), (3, 32)] == sorted(stage.parts.published)
    assert 16 == len(stage.scorer.sent)


def test_a_rejection_is_everybodys_and_each_new_try_is_one_call() -> None:
    """
    The same bytes would be refused again; whoever asks for another try pays for one.
    """
    answers = [failure(K.BAD_GROUP, "no", status=400), failure(K.BAD_GROUP, "no", status=400)]

    def script(request: RerankRequest, attempt: int, now: float) -> Answer:
        again = request.query == "question 1" and answers
        return answers.pop() if again else own(request, attempt, now)

    stage = EqualStage(asking(0, 1, 1, 1), ScriptedScorer(script), retry_rejects=True)
    found = []
    for _ in range(3):
        stage.run()
        found.append((len(stage.scorer.sent), stage.ledger.rejected_positions()))

    assert [(2, [1, 2, 3]), (3, [1, 2, 3]), (4, [])] == found
    assert {0: [0.0, 0.1], 1: [1.0, 1.1], 2: [1.0, 1.1], 3: [1.0, 1.1]} == scores_of(stage)
    assert (2, 4) == (stage.ledger.tally()["equal"], stage.ledger.tally()["ranked"])


def test_a_limit_holds_for_those_that_follow() -> None:
    """
    Groups beyond it are left alone, and take their outcomes in the next run without a call.
    """
    stage = EqualStage(asking(0, 1, 0, 0, 1, 2), ScriptedScorer(own), target=3)
    stage.run()
    few = stage.ranked()
    stage.target = None
    stage.run()

    assert [0, 1, 2] == few
    assert list(range(6)) == stage.ranked()
    assert 3 == len(stage.scorer.sent)


def test_whoever_is_in_a_hurry_leaves_them_to_the_next_run() -> None:
    """
    The answer is paid for and kept; what costs no call can wait.
    """
    stage = EqualStage(
        asking(*[0] * 30), ScriptedScorer(own), deadline_s=25.05, ledger_lane=SlowLane(0.5)
    )

    stopped = stage.run()
    kept = stage.ranked()
    stage.deadline_s = None
    stage.run()

    assert stopped.stop is not None
    assert [0] == kept
    assert list(range(30)) == stage.ranked()
    assert 1 == len(stage.scorer.sent)


def test_a_ledger_that_cannot_be_read_ends_the_run_in_good_order() -> None:
    """
    What is under way comes home and is kept; whoever follows is not asked instead.
    """

    def script(request: RerankRequest, attempt: int, now: float) -> Answer:
        if request.query == "question 3":
            stage.ledger.connection.execute("ALTER TABLE equals RENAME TO lost")
        return own(request, attempt, now)

    stage = EqualStage(asking(*range(4), 0, 1), ScriptedScorer(script), concurrency=4)

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.STORAGE is ending.stop.exit_code
    assert [0, 1, 2, 3] == stage.ranked()
    stage.ledger.connection.execute("ALTER TABLE lost RENAME TO equals")
    assert stage.run().stop is None
    assert (list(range(6)), 4) == (stage.ranked(), len(stage.scorer.sent))
