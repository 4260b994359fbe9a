"""
The first call of a job goes alone: what is wrong with key or model costs one call, not all slots.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from batchrank.domain import Answer, FailureKind, RerankRequest
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
