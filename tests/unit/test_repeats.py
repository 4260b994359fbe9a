"""
Documents that a group has twice: sent once where that is asked, and every candidate gets its score.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Document,
    Group,
    Ranked,
    RerankReply,
    RerankRequest,
    RichDocument,
    Scored,
    Served,
    Share,
)
from batchrank.policy.capacity import Bounds
from batchrank.policy.slicing import assembled, firsts, requests, scored, smaller
from tests.laws import law

ONE, OTHER = Served("m", "one"), Served("m", "other")

TEXTS = st.sampled_from(["é", "e\u0301", "\ufeffa", "a", "a\u200b", "b", "B"])
"""To the eye some are equal; to a scorer none is."""

HELD = st.lists(
    st.none()
    | TEXTS
    | st.sampled_from(
        [RichDocument("a"), RichDocument("a", "https://x/y"), RichDocument(None, "z")]
    ),
    max_size=12,
) | st.lists(st.integers(0, 150).map(str), min_size=90, max_size=150)
LIMITS = st.none() | st.integers(1, 6) | st.integers(60, 130)


def group_of(held: Sequence[Document | None]) -> Group:
    """
    A group of these documents which wants equal ones to be sent once.
    """
    return Group(7, "q7", "what", tuple(held), firsts=firsts(held))


def score_of(document: Document) -> float:
    """
    A score that tells which document it is of.
    """
    return float(sum((n + 1) * ord(c) for n, c in enumerate(repr(document))))


def answered(request: RerankRequest, served: Served = ONE) -> Scored:
    """
    The request's scores, from a scorer that sees documents only.
    """
    return scored(request, RerankReply(tuple(map(score_of, request.documents)), served))


def plain(scores: Sequence[float]) -> list[float | None]:
    """
    Scores that can be compared.
    """
    return [None if math.isnan(score) else score for score in scores]


def expected(held: Sequence[Document | None]) -> list[float | None]:
    """
    What asking about each candidate alone would give.
    """
    return [None if document is None else score_of(document) for document in held]


def by_candidate(outcome: Ranked) -> list[Served]:
    """
    Who scored each candidate.
    """
    found: list[Served] = []
    for share in outcome.shares:
        found += [share.served] * (share.stop - len(found))
    return found


# --- which is the first ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "places"),
    [
        pytest.param([], (), id="none"),
        pytest.param(["a", "b", None], (), id="no two are equal"),
        pytest.param([None, None], (), id="what is not sent is nobody's equal"),
        pytest.param(["a", None, "a", "b", "a"], (0, 1, 0, 3, 0), id="one three times"),
        pytest.param(["é", "e\u0301", "\ufeffé"], (), id="alike to the eye alone"),
        pytest.param(["a", RichDocument("a")], (), id="one of them is a structure"),
        pytest.param(
            [RichDocument("a", "x"), RichDocument("a", "y"), RichDocument("a", "x")],
            (0, 1, 0),
            id="text and image",
        ),
    ],
)
def test_documents_are_equal_character_by_character(
    held: list[Document | None], places: tuple[int, ...]
) -> None:
    """
    Nothing is normalised: what a scorer could tell apart is sent apart.
    """
    assert places == firsts(held)


@law(60)
@given(HELD)
def test_the_first_is_where_a_search_finds_it(held: list[Document | None]) -> None:
    """
    For every candidate; where no two are equal nothing is said.
    """
    naive = tuple(
        n if document is None else held.index(document) for n, document in enumerate(held)
    )

    assert firsts(held) == (naive if naive != tuple(range(len(held))) else ())


# --- there and back -------------------------------------------------------------------------------


@law(60)
@given(HELD, LIMITS, st.randoms(use_true_random=False))
def test_every_candidate_gets_the_score_of_its_text(
    held: list[Document | None], most: int | None, random: Random
) -> None:
    """
    However it is sliced, whoever answers, in whatever order; and what one upstream provider scored
    is said to be that one's, wherever it is repeated.
    """
    group = group_of(held)
    who = {r: random.choice((ONE, OTHER)) for r in requests(group, Bounds(most))}
    by = {document: served for request, served in who.items() for document in request.documents}
    parts = [answered(request, served) for request, served in who.items()]
    random.shuffle(parts)

    outcome = assembled(group, parts)

    assert expected(held) == plain(outcome.scores)
    told = by_candidate(outcome)
    assert all(told[n] == by[d] for n, d in enumerate(held) if d is not None)
    assert [share.stop for share in outcome.shares] == sorted({s.stop for s in outcome.shares})


@law(60)
@given(HELD, LIMITS)
def test_every_document_is_in_one_request(held: list[Document | None], most: int | None) -> None:
    """
    Once, in order, bound to the first candidate that has it; repetitions make no request more.
    """
    group = group_of(held)

    asked = requests(group, Bounds(most))

    assert list(dict.fromkeys(filter(None, held))) == [d for r in asked for d in r.documents]
    for request in asked:
        assert [held[n] for n in request.indices] == list(request.documents)
        assert request.slice.start <= request.indices[0]
        assert request.indices[-1] < request.slice.stop
        assert len(request.documents) <= (most or len(held))
    # As many as if nothing were repeated: what is not sent counts as it does without repetitions.
    once = [d for n, d in enumerate(held) if d is None or held.index(d) == n]
    same = requests(Group(7, "q7", "what", tuple(once)), Bounds(most))
    assert [r.documents for r in same] == [r.documents for r in asked]


@law(60)
@given(HELD, st.integers(1, 6), LIMITS, st.randoms(use_true_random=False))
def test_what_has_scores_is_not_asked_again(
    held: list[Document | None], before: int, now: int | None, random: Random
) -> None:
    """
    Slices that an earlier run scored, under the same limit or another one: the rest is asked about,
    and a candidate that repeats one of theirs needs nobody.
    """
    group = group_of(held)
    kept = [
        answered(request) for request in requests(group, Bounds(before)) if random.random() < 0.5
    ]

    asked = requests(group, Bounds(now), [part.slice for part in kept])

    outcome = assembled(group, [*kept, *map(answered, asked)])
    assert expected(held) == plain(outcome.scores)
    covered = {n for part in kept for n in range(part.slice.start, part.slice.stop)}
    new = {document: n for n, document in reversed(list(enumerate(held))) if document is not None}
    wanted = [
        document for document, n in sorted(new.items(), key=lambda i: i[1]) if n not in covered
    ]
    assert wanted == [document for request in asked for document in request.documents]


@law(40)
@given(HELD, st.integers(1, 40))
def test_halving_ends_and_loses_nobody(held: list[Document | None], fits: int) -> None:
    """
    A server that takes only so many at once gets every document once.
    """
    group = group_of(held)
    waiting, fitting = requests(group, Bounds()), list[RerankRequest]()
    while waiting:
        request = waiting.pop()
        if len(request.documents) <= fits:
            fitting.append(request)
            continue
        pieces = smaller(group, request.slice, Bounds(hundreds=True))
        assert all(len(half.documents) < len(request.documents) for half in pieces)
        assert 2 == len(pieces)
        waiting += pieces

    assert expected(held) == plain(assembled(group, map_answers(fitting)).scores)
    assert {1} >= set(Counter(d for r in fitting for d in r.documents).values())


def map_answers(asked: Sequence[RerankRequest]) -> list[Scored]:
    """
    The answers to some requests.
    """
    return [answered(request) for request in asked]


def test_a_slice_of_nothing_but_repetitions_makes_no_request() -> None:
    """
    It gets the scores of those that were sent, and is said to be theirs who scored those.
    """
    group = group_of(["a", "b", "b", "a"])
    first, second = requests(group, Bounds(1))

    outcome = assembled(group, [answered(first, ONE), answered(second, OTHER)])

    assert [(0, 1), (1, 4)] == [(r.slice.start, r.slice.stop) for r in (first, second)]
    assert (Share(1, ONE), Share(3, OTHER), Share(4, ONE)) == outcome.shares
    assert [] == requests(group, Bounds(1), [first.slice, second.slice])


def test_what_a_sent_top_n_cut_off_stays_without_a_score_wherever_it_stands() -> None:
    """
    The reply has scores for the best alone.
    """
    group = group_of(["a", "b", "a", "b"])
    (request,) = requests(group, Bounds())

    outcome = assembled(group, [scored(request, RerankReply((math.nan, 0.5), ONE))])

    assert [None, 0.5, None, 0.5] == plain(outcome.scores)


def test_without_the_wish_repetitions_are_sent() -> None:
    """
    Nobody's bill or score changes unasked.
    """
    (request,) = requests(Group(7, "q7", "what", ("a", "a")), Bounds())

    assert ("a", "a") == request.documents
