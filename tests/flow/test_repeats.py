"""
The engine with documents that a group has twice: paid for once, in as many runs as it takes.
"""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from batchrank.domain import Answer, FailureKind, Group, RerankRequest
from batchrank.policy.slicing import firsts
from batchrank.testing import Script, ScriptedScorer, failure, reply
from tests.flow.stage import Stage
from tests.laws import law

TEXTS = ("a", "é", "e\u0301", "b", "ccc")
HELD = st.lists(st.lists(st.none() | st.sampled_from(TEXTS), max_size=9), min_size=1, max_size=6)


def group_of(position: int, held: list[str | None], cut: int) -> Group:
    """
    A group that sends equal documents once; each of them has been cut.
    """
    return Group(position, position, "what", tuple(held), None, firsts(held), cut)


def stopping_at(*numbers: int) -> Script:
    """
    The script of a server that scores by the text alone, and refuses the key at these calls.
    """
    seen = 0

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        nonlocal seen
        seen += 1
        if seen in numbers:
            return failure(FailureKind.FATAL, status=401)
        scores = tuple(float(TEXTS.index(str(document))) for document in request.documents)
        return replace(reply(request), scores=scores)

    return script


@law(30)
@given(HELD, st.none() | st.integers(1, 3), st.sets(st.integers(1, 12), max_size=3))
def test_each_text_is_paid_for_once_and_scores_all_that_have_it(
    held: list[list[str | None]], documents_max: int | None, stops: set[int]
) -> None:
    """
    In slices, by runs that stop anywhere; what was cut is counted once, with the group's scores.
    """
    groups = [group_of(n, texts, len(texts)) for n, texts in enumerate(held)]
    scorer = ScriptedScorer(stopping_at(*stops))
    stage = Stage(groups, scorer, concurrency=1, documents_max=documents_max)

    for _ in range(len(stops) + 1):
        ending = stage.run()

    assert ending.stop is None
    scored = {row.position: array("d", row.scores) for row in stage.ledger.ranked(0, len(held))}
    assert [n for n, texts in enumerate(held) if texts] == sorted(scored)
    for position, scores in scored.items():
        found = [None if score != score else TEXTS[int(score)] for score in scores]
        assert held[position] == found
    good = [request for n, (_, request) in enumerate(scorer.sent, 1) if n not in stops]
    paid = [(r.slice.position, document) for r in good for document in r.documents]
    assert len(set(paid)) == len(paid)
    assert sum(map(len, held)) == stage.ledger.tally().get("documents_cut", 0)
