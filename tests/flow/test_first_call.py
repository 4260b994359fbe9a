"""
What comes before the first call, and that this one goes alone: what is wrong with key or model
costs one call, not all slots.
"""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from batchrank.domain import Answer, FailureKind, RerankRequest
from batchrank.engine.waiting import Stop
from batchrank.errors import Exit
from batchrank.testing import ScriptedScorer, failure, groups, reply
from tests.flow.stage import Stage


def refused(_request: RerankRequest, _attempt: int, _now: float) -> Answer:
    """
    A server that knows neither key nor model.
    """
    return failure(FailureKind.FATAL, "no such model", status=404)


def test_a_wrong_model_costs_one_call() -> None:
    """
    Nobody else has left when it is refused; a job that was answered before does not wait.
    """
    stage = Stage(scorer=ScriptedScorer(refused), concurrency=8, proven=False)
    known = Stage(scorer=ScriptedScorer(refused), concurrency=8)
    endings = [stage.run(), known.run()]

    assert [Exit.PERSON] * 2 == [ending.stop.exit_code for ending in endings if ending.stop]
    assert (1, 8) == (len(stage.scorer.sent), len(known.scorer.sent))


def test_once_the_first_reply_is_durable_everybody_leaves() -> None:
    """
    It takes one latency more than it would without, and loses nothing.
    """
    stage = Stage(held=groups(9), concurrency=8, proven=False)
    ending = stage.run()

    first, *others = stage.scorer.sent_at
    assert [first + 0.1] * 8 == pytest.approx(others)
    assert (None, list(range(9))) == (ending.stop, stage.ranked())


@pytest.mark.parametrize("kind", [FailureKind.THROTTLED, FailureKind.UNKNOWN])
def test_until_one_has_scores_they_go_one_by_one(kind: FailureKind) -> None:
    """
    A failure that may pass proves nothing, either way: it is tried again, alone.
    """

    def late(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return reply(request) if now > 3 else failure(kind)

    stage = Stage(scorer=ScriptedScorer(late), concurrency=8, proven=False)
    ending = stage.run()

    sent = stage.scorer.sent_at
    first_good = next(at for at in sent if at > 3)
    early = [at for at in sent if at <= first_good]
    assert (None, list(range(20))) == (ending.stop, stage.ranked())
    assert 8 == stage.scorer.in_flight_max
    assert all(later - at >= 0.1 for at, later in pairwise(early))


def test_a_group_that_is_rejected_proves_nothing() -> None:
    """
    The next one goes alone, too: a wrong model may look like a wrong group.
    """

    def moody(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        bad = request.slice.position < 2
        return failure(FailureKind.BAD_GROUP, status=422) if bad else reply(request)

    stage = Stage(held=groups(10), scorer=ScriptedScorer(moody), concurrency=8, proven=False)
    stage.run()

    assert [0, 1, 2] == [request.slice.position for _, request in stage.scorer.sent[:3]]
    assert sorted(set(stage.scorer.sent_at[:3])) == stage.scorer.sent_at[:3]
    assert (list(range(2, 10)), 7) == (stage.ranked(), stage.scorer.in_flight_max)


async def refusing() -> Stop | None:
    """
    The key is refused.
    """
    return Stop("the key is refused", Exit.PERSON)


async def waiting() -> None:
    """
    There is nothing against it, after a second.
    """
    await anyio.sleep(1.0)


async def hanging() -> Stop | None:
    """
    Nobody ever answers.
    """
    await anyio.sleep_forever()
    raise AssertionError("never comes here")


async def failing() -> Stop | None:
    """
    A bug.
    """
    raise ZeroDivisionError


def test_what_is_refused_beforehand_sends_nothing() -> None:
    """
    It ends as whatever else needs a person, and another run does the job.
    """
    stage = Stage(beforehand=refusing)
    ending = stage.run()
    assert ending.stop is not None
    assert (Exit.PERSON, "the key is refused") == (ending.stop.exit_code, ending.stop.reason)
    assert [] == stage.scorer.sent

    again = Stage(beforehand=waiting, ledger=stage.ledger)
    assert (None, list(range(20))) == (again.run().stop, again.ranked())


def test_what_is_told_beforehand_is_kept_to() -> None:
    """
    Nothing leaves before it is known, and then no request has more documents.
    """
    stage = Stage(held=groups(3))

    async def limiting() -> None:
        await anyio.sleep(1.0)
        stage.capacity.tell(1)

    stage.beforehand = limiting
    stage.run()

    assert [1] * 6 == [len(request.documents) for _, request in stage.scorer.sent]
    assert min(stage.scorer.sent_at) >= 1.0


def test_whoever_wants_to_leave_does_not_wait_for_an_answer() -> None:
    """
    Neither a deadline nor a person's wish is put off.
    """
    late = Stage(beforehand=hanging, deadline_s=40.0).run()
    wished = Stage(beforehand=hanging, interrupted=lambda: True).run()

    assert [Exit.LATER] * 2 == [end.stop.exit_code for end in (late, wished) if end.stop]


def test_a_bug_beforehand_is_told_as_one() -> None:
    """
    And nothing is sent.
    """
    stage = Stage(beforehand=failing)
    ending = stage.run()

    assert ending.stop is not None
    assert (Exit.BUG, []) == (ending.stop.exit_code, stage.scorer.sent)
