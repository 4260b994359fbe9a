"""
What is asked about a group, and how scores come back to their candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    UNSCORED,
    Document,
    Empty,
    Group,
    Ranked,
    Rejected,
    RejectKind,
    RerankReply,
    RerankRequest,
    RichDocument,
    Scored,
    Served,
    Share,
    Slice,
)
from batchrank.policy.capacity import Bounds
from batchrank.policy.slicing import (
    assembled,
    firsts,
    knowing,
    request_for,
    requests,
    requests_needed,
    scored,
    smaller,
    without_call,
)
from tests.laws import law

ONE, OTHER = Served("m", "one"), Served("m", "other")

kinds = st.one_of(st.none(), st.just("text"), st.just(RichDocument(image="https://x/y.png")))
lengths = st.integers(1, 3) | st.integers(1, 230)
documents = st.lists(st.tuples(kinds, lengths), max_size=8).map(
    lambda runs: [document for document, length in runs for _ in range(length)]
)
limits = st.none() | st.integers(1, 450)


def group_of(held: Sequence[Document | None], query: str = "what") -> Group:
    """
    A group of these documents, anywhere in the source.
    """
    return Group(7, "q7", query, tuple(held))


def score_of(index: int) -> float:
    """
    A score that tells which candidate it is.
    """
    return -index / 8


def answered(request: RerankRequest, served: Served = ONE) -> Scored:
    """
    The request's scores, as a provider that sees documents only would give them.
    """
    return scored(request, RerankReply(tuple(score_of(i) for i in request.indices), served))


def indices(asked: Sequence[RerankRequest]) -> list[int]:
    """
    Every candidate that is asked about, in order.
    """
    return [index for request in asked for index in request.indices]


def slices(asked: Sequence[RerankRequest]) -> list[tuple[int, int]]:
    """
    Where the requests begin and end.
    """
    return [(request.slice.start, request.slice.stop) for request in asked]


# --- without a call -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "outcome"),
    [
        pytest.param(group_of(["a"]), None, id="something to ask"),
        pytest.param(group_of([]), Empty(7), id="no candidates"),
        pytest.param(group_of([], query=""), Empty(7), id="neither query nor candidates"),
        pytest.param(
            group_of(["a"], query=" \t\n\u3000"),
            Rejected(7, "q7", RejectKind.EMPTY_QUERY, "the query is empty or only white space"),
            id="a query of white space",
        ),
        pytest.param(
            Group(7, 7, "what", ("a",), flaw="ids do not match"),
            Rejected(7, 7, RejectKind.FLAWED, "ids do not match"),
            id="a flaw",
        ),
        pytest.param(
            Group(7, 7, "", (), flaw="not UTF-8"),
            Rejected(7, 7, RejectKind.FLAWED, "not UTF-8"),
            id="a flaw and nothing else",
        ),
        pytest.param(
            group_of([None, "a", None]), None, id="one candidate that can be sent among three"
        ),
    ],
)
def test_some_groups_need_no_call(group: Group, outcome: object) -> None:
    """
    A flaw comes first, then emptiness: a group without candidates is no reject.
    """
    assert outcome == without_call(group)


def test_a_group_of_nothing_but_empty_documents_is_ranked_without_scores() -> None:
    """
    Nobody is asked, every candidate is kept, and nobody is said to have scored it.
    """
    outcome = without_call(group_of([None, None]))

    assert isinstance(outcome, Ranked)
    assert [True, True] == [math.isnan(score) for score in outcome.scores]
    assert () == outcome.shares


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        pytest.param(3, None, [(0, 3)], id="no limit"),
        pytest.param(1000, None, [(0, 1000)], id="no limit, many"),
        pytest.param(100, 100, [(0, 100)], id="exactly the limit"),
        pytest.param(101, 100, [(0, 100), (100, 101)], id="one more than the limit"),
        pytest.param(5, 2, [(0, 2), (2, 4), (4, 5)], id="a small limit"),
        pytest.param(290, 150, [(0, 100), (100, 200), (200, 290)], id="cut at hundreds"),
        pytest.param(140, 150, [(0, 140)], id="no cut where none is needed"),
        pytest.param(500, 250, [(0, 200), (200, 400), (400, 500)], id="cut at two hundreds"),
        pytest.param(3, 1, [(0, 1), (1, 2), (2, 3)], id="one by one"),
    ],
)
def test_cuts_fall_on_hundreds(count: int, most: int | None, expected: list[object]) -> None:
    """
    Search units are billed by the hundred documents.
    """
    assert expected == slices(requests(group_of(["d"] * count), Bounds(most, hundreds=True)))
    assert len(expected) == requests_needed(count, Bounds(most, hundreds=True))


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        pytest.param([], [(0, 10)], id="nothing is done"),
        pytest.param([(0, 4)], [(4, 10)], id="the beginning"),
        pytest.param([(4, 10)], [(0, 4)], id="the end"),
        pytest.param([(6, 8), (2, 4)], [(0, 2), (4, 6), (8, 10)], id="holes, in any order"),
        pytest.param([(0, 6), (4, 8)], [(8, 10)], id="overlapping"),
        pytest.param([(0, 10)], [], id="everything"),
    ],
)
def test_what_has_scores_is_not_asked_again(
    done: list[tuple[int, int]], expected: list[object]
) -> None:
    """
    Only the gaps are asked about.
    """
    group = group_of([str(n) for n in range(10)])

    assert expected == slices(requests(group, Bounds(), [Slice(7, *bounds) for bounds in done]))


@law(80)
@given(
    documents,
    limits,
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 430), st.integers(0, 430)), max_size=4),
)
def test_requests_cover_exactly_what_is_still_to_be_asked(
    held: list[Document | None], most: int | None, hundreds: bool, done: list[tuple[int, int]]
) -> None:
    """
    Whatever has been scored, every other candidate that can be sent is in one request, once, in
    order; no request has more documents than the limit, none is empty, and all are of nearly one
    length, or of whole hundreds where these are billed.
    """
    group = group_of(held)
    covered = [Slice(7, min(a, b), min(max(a, b), len(held))) for a, b in done]
    covered = [part for part in covered if part.start < part.stop]

    asked = requests(group, Bounds(most, hundreds=hundreds), covered)

    kept = {index for part in covered for index in range(part.start, part.stop)}
    wanted = [i for i, document in enumerate(held) if document is not None and i not in kept]
    assert wanted == indices(asked)
    for request in asked:
        assert 1 <= len(request.documents) <= (most or len(held))
        assert [held[i] for i in request.indices] == list(request.documents)
        assert request.slice.start <= min(request.indices) <= max(request.indices)
        assert max(request.indices) < request.slice.stop
        assert group.query == request.query
    for first, second in pairwise(asked):
        if first.slice.stop == second.slice.start:  # cut there, and not by what has scores
            many, few = len(first.documents), len(second.documents)
            whole_hundreds = hundreds and most is not None and most > 100
            assert many % 100 == 0 if whole_hundreds else hundreds or abs(many - few) <= 1


# --- the way back ---------------------------------------------------------------------------------


@law(70)
@given(documents, limits, st.randoms(use_true_random=False))
def test_every_score_comes_back_to_its_candidate(
    held: list[Document | None], most: int | None, random: object
) -> None:
    """
    Slicing, asking and assembling is the identity on candidates, in whatever order slices come.
    """
    group = group_of(held)
    parts = [answered(request) for request in requests(group, Bounds(most))]
    random.shuffle(parts)  # type: ignore[attr-defined] # Hypothesis's Random

    outcome = assembled(group, parts)

    expected = [None if document is None else score_of(i) for i, document in enumerate(held)]
    assert expected == [None if math.isnan(s) else s for s in outcome.scores]
    sent = any(document is not None for document in held)
    assert ((Share(len(held), ONE),) if sent else ()) == outcome.shares


def test_what_a_sent_top_n_cut_off_stays_without_a_score() -> None:
    """
    UNSCORED in a reply is UNSCORED in the group.
    """
    group = group_of(["a", None, "c"])
    request = requests(group, Bounds())[0]

    part = scored(request, RerankReply((UNSCORED, 0.5), ONE))

    assert [None, None, 0.5] == [None if math.isnan(s) else s for s in part.scores]


def test_a_reply_with_too_few_scores_is_a_bug() -> None:
    """
    Providers bind scores to documents before; nothing is shifted silently here.
    """
    request = requests(group_of(["a", "b"]), Bounds())[0]

    with pytest.raises(ValueError, match="shorter"):
        scored(request, RerankReply((0.5,), ONE))


def test_a_slice_of_another_group_is_a_bug() -> None:
    """
    Scores are never joined to a group that they are not of.
    """
    with pytest.raises(AssertionError, match="group 8 in 7"):
        assembled(group_of(["a"]), [Scored(Slice(8, 0, 1), (0.5,), ONE)])


@pytest.mark.parametrize(
    ("who", "shares"),
    [
        pytest.param([ONE, ONE, ONE], [(9, ONE)], id="one"),
        pytest.param([ONE, OTHER, ONE], [(3, ONE), (6, OTHER), (9, ONE)], id="in turns"),
        pytest.param([ONE, ONE, OTHER], [(6, ONE), (9, OTHER)], id="another at the end"),
    ],
)
def test_shares_tell_who_scored_which_candidates(
    who: list[Served], shares: list[tuple[int, Served]]
) -> None:
    """
    Neighbours that were served alike are one share.
    """
    group = group_of([str(n) for n in range(9)])
    parts = [answered(r, served) for r, served in zip(requests(group, Bounds(3)), who, strict=True)]

    assert tuple(Share(*share) for share in shares) == assembled(group, parts).shares


def test_the_last_share_reaches_to_the_end() -> None:
    """
    Candidates at the end that nobody could be asked about belong to the last share.
    """
    group = group_of(["a", "b", None, None])
    parts = [answered(request) for request in requests(group, Bounds(2))]

    assert (Share(4, ONE),) == assembled(group, parts).shares


# --- halves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(1, [], id="one candidate"),
        pytest.param(2, [(0, 1), (1, 2)], id="two"),
        pytest.param(100, [(0, 50), (50, 100)], id="a hundred"),
        pytest.param(101, [(0, 100), (100, 101)], id="a hundred and one"),
        pytest.param(150, [(0, 100), (100, 150)], id="cut at the hundred"),
        pytest.param(1000, [(0, 500), (500, 1000)], id="a thousand"),
        pytest.param(900, [(0, 400), (400, 900)], id="nine hundred"),
    ],
)
def test_what_was_too_large_is_cut_in_two(count: int, expected: list[object]) -> None:
    """
    Near the middle, at a hundred if there is one.
    """
    asked = smaller(group_of(["d"] * count), Slice(7, 0, count), Bounds(hundreds=True))

    assert expected == slices(asked)


def test_halves_never_ask_the_same_again() -> None:
    """
    If all that can be sent lies in one half, that half is cut; a single candidate cannot be.
    """
    few = group_of(["a", "b", *[None] * 98])
    one = group_of([*[None] * 99, "z"])

    assert [(0, 1), (1, 100)] == slices(smaller(few, Slice(7, 0, 100), Bounds()))
    assert [] == smaller(one, Slice(7, 0, 100), Bounds())


@law(50)
@given(documents, st.integers(1, 40))
def test_halving_ends_and_loses_nobody(held: list[Document | None], fits: int) -> None:
    """
    A server that takes only so many at once gets every candidate once; what it never takes is a
    single candidate. Every step is smaller than the one before.
    """
    group = group_of(held)
    waiting, fitting = requests(group, Bounds()), list[RerankRequest]()
    while waiting:
        request = waiting.pop()
        if len(request.documents) <= fits:
            fitting.append(request)
            continue
        pieces = smaller(group, request.slice, Bounds())
        assert 2 == len(pieces)
        assert sorted(request.indices) == sorted(indices(pieces))
        assert all(len(half.documents) < len(request.documents) for half in pieces)
        waiting += pieces

    outcome = assembled(group, [answered(request) for request in fitting])

    expected = [None if document is None else score_of(i) for i, document in enumerate(held)]
    assert expected == [None if math.isnan(s) else s for s in outcome.scores]


def test_nothing_to_send_is_no_request() -> None:
    """
    A slice of empty documents is never asked about.
    """
    assert request_for(group_of(["a", None, None]), Slice(7, 1, 3)) is None


# --- what is known --------------------------------------------------------------------------------

THIRD = Served("m", "third")


@law(200)
@given(st.data())
def test_with_what_is_known_the_outcome_is_that_of_asking_about_everything(
    data: st.DataObject,
) -> None:
    """
    Exactly the rest is asked about, in whatever slices, and each score is told of whoever gave it.
    """
    held = data.draw(st.lists(st.none() | st.sampled_from("abcde"), min_size=1, max_size=9))
    place = dict(zip(held[::-1], range(len(held), 0, -1), strict=True))  # by document
    values = {d: score_of(place[d]) for d in held if d is not None}
    before = data.draw(st.sets(st.sampled_from(sorted(values)), min_size=1)) if values else set()
    if not before:
        return
    by = [OTHER if d in before and d < "c" else THIRD for d in held]
    known = Ranked(
        7,
        tuple(values[d] if d is not None and d in before else UNSCORED for d in held),
        tuple(Share(n + 1, one) for n, one in enumerate(by)),
        2,
    )
    once = data.draw(st.booleans())
    whole = Group(7, "q7", "what", tuple(held), firsts=firsts(held) if once else (), cut=3)
    group = knowing(whole, known)
    asked = requests(group, Bounds(data.draw(limits)))

    outcome = without_call(group)
    if outcome is None:
        answers = [
            scored(r, RerankReply(tuple(values[str(d)] for d in r.documents), ONE)) for r in asked
        ]
        outcome = assembled(group, answers)

    sent = [d for request in asked for d in request.documents]
    rest = [d for d in held if d is not None and d not in before]
    assert (list(dict.fromkeys(rest)) if once else rest) == sent
    assert isinstance(outcome, Ranked)
    expected = [values.get(str(d), UNSCORED) for d in held]
    assert repr(expected) == repr(list(outcome.scores))
    assert 3 == outcome.cut
    stops = [share.stop for share in outcome.shares]
    assert sorted({*stops}) == stops
    assert len(held) == stops[-1]
    for index, document in enumerate(held):
        if document is not None:
            told = next(s.served for s in outcome.shares if index < s.stop)
            assert (by[index] if document in before else ONE) == told


def test_what_is_known_of_another_group_is_a_bug() -> None:
    """
    Nobody mixes scores up unnoticed.
    """
    for position, scores in ((8, (0.5,)), (7, (0.5, 0.5))):
        with pytest.raises(AssertionError):
            knowing(group_of(["a"]), Ranked(position, scores, (Share(1, ONE),)))
