"""
What a request may hold: how it is weighed, how groups are cut to it, and what refusals teach.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchrank.domain import (
    Document,
    Failure,
    FailureKind,
    Group,
    RerankRequest,
    RichDocument,
    Slice,
)
from batchrank.policy.billing import sizes_of, tokens_most
from batchrank.policy.capacity import (
    BYTES_PER_TOKEN_SURE,
    Bounds,
    Capacity,
    Learned,
    Weigh,
    narrowed,
    pairs_bytes,
    texts_bytes,
)
from batchrank.policy.slicing import TooLargeError, requests, smaller
from batchrank.providers import VENDORS
from batchrank.providers.base import Settings
from batchrank.providers.shape import Phrase
from tests.laws import law


def body_of(name: str) -> Weigh:
    """
    The bytes of the bodies that the vendor *name* is sent.
    """
    vendor = VENDORS[name]
    options = vendor.options.model_validate({"api_version": "1"} if name == "pinecone" else {})
    provider = vendor.make(Settings("m", "https://x.example", None, options))
    return lambda request: len(provider.call(request).body)


WEIGHED: dict[str, Weigh] = {
    "texts": texts_bytes,
    "a rule of its own": pairs_bytes(150),
    # As plain texts, with the query once for every document, as structures, and with images.
    **{name: body_of(name) for name in ("cohere", "deepinfra", "pinecone", "openrouter")},
}

texts = st.text(st.sampled_from('ab "\\\n\x00é漢😀'), min_size=1, max_size=30)
documents = st.lists(st.none() | texts, min_size=1, max_size=30)


def group_of(held: list[str | None], query: str = "what") -> Group:
    """
    A group of these documents.
    """
    return Group(7, "q7", query, tuple(held))


def request_of(count: int, position: int = 0) -> RerankRequest:
    """
    A request about so many documents of ten bytes.
    """
    part = Slice(position, 0, count)
    return RerankRequest(part, "", ("0123456789",) * count, tuple(range(count)))


def frame_of(weigh: Weigh) -> int:
    """
    What a request without any text weighs.
    """
    return weigh(RerankRequest(Slice(0, 0, 0), "", (), ()))


# --- cuts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WEIGHED)
@law(40)
@given(
    held=documents,
    query=texts,
    most=st.tuples(
        st.none() | st.integers(1, 12), st.integers(60, 900), st.none() | st.integers(20, 300)
    ),
    hundreds=st.booleans(),
)
def test_no_request_is_above_any_bound(
    name: str,
    held: list[str | None],
    query: str,
    most: tuple[int | None, int, int | None],
    hundreds: bool,
) -> None:
    """
    Whoever weighs: what is sent is within every bound, to the byte, and everything is sent once. A
    group is refused only for a candidate that is above a bound of bytes or tokens alone.
    """
    weigh = WEIGHED[name]
    bounds = Bounds(*most, hundreds=hundreds, weigh=weigh, frame_bytes=frame_of(weigh))
    group = group_of(held, query)
    sent = [n for n, document in enumerate(held) if document is not None]

    try:
        asked = requests(group, bounds)
    except TooLargeError:
        alone = [weigh(r) for r in requests(group, Bounds(1))]
        assert max(alone) > most[1] or most[2] is not None
        return

    assert sent == [index for request in asked for index in request.indices]
    for request in asked:
        assert weigh(request) <= most[1]
        assert most[0] is None or len(request.documents) <= most[0]
        tokens = tokens_most(sizes_of(request)) / BYTES_PER_TOKEN_SURE
        assert most[2] is None or tokens <= most[2] or len(request.documents) == 1


@pytest.mark.parametrize("name", WEIGHED)
@law(60)
@given(held=documents, query=texts, most=st.integers(60, 4_000))
def test_what_surely_goes_does_go(name: str, held: list[str | None], query: str, most: int) -> None:
    """
    The look at lengths alone, which nearly every group is left with, never says too much.
    """
    weigh = WEIGHED[name]
    bounds = Bounds(None, most, most, weigh=weigh, frame_bytes=frame_of(weigh))
    there: list[Document] = [document for document in held if document is not None]

    if bounds.surely_hold(query, held):
        assert not there or bounds.hold(query, there)


def test_an_image_weighs_what_it_takes_in_the_body() -> None:
    """
    Nobody knows its tokens; its bytes everybody does.
    """
    picture = RichDocument(image="data:image/png;base64," + "A" * 500)
    bounds = Bounds(None, 900, weigh=WEIGHED["openrouter"])

    asked = requests(Group(7, "q7", "what", (picture, picture, picture)), bounds)

    assert [1, 1, 1] == [len(request.documents) for request in asked]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        pytest.param(5, 2, [1, 2, 2], id="nearly alike"),
        pytest.param(70, 32, [23, 23, 24], id="three"),
        pytest.param(64, 32, [32, 32], id="exactly"),
        pytest.param(1_000, 300, [250] * 4, id="not at hundreds"),
    ],
)
def test_cuts_are_even_where_no_hundreds_are_billed(
    count: int, most: int, expected: list[int]
) -> None:
    """
    As few requests as go, and none of them a rest.
    """
    asked = requests(group_of(["d"] * count), Bounds(most))

    assert expected == sorted(len(request.documents) for request in asked)


@pytest.mark.parametrize(("hundreds", "expected"), [(True, [300, 200]), (False, [250, 250])])
def test_cuts_by_weight_fall_on_hundreds_where_these_are_billed(
    hundreds: bool, expected: list[int]
) -> None:
    """
    Else what goes in two requests is halved.
    """
    asked = requests(group_of(["12345"] * 500, "q"), Bounds(None, 1_900, hundreds=hundreds))

    assert expected == [len(request.documents) for request in asked]


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        pytest.param(Bounds(None, 100), "index 1, with the query: more than the 100 bytes", id="b"),
        pytest.param(
            Bounds(None, None, 20), "index 1, with the query: more than the 20 tok", id="t"
        ),
        pytest.param(Bounds(1, splits=False), "its 3 documents: more than the 1 documents", id="d"),
        pytest.param(Bounds(None, 100, splits=False), "its 3 documents: more than", id="whole"),
    ],
)
def test_what_cannot_go_is_told_without_its_text(bounds: Bounds, told: str) -> None:
    """
    Which candidate, and which bound.
    """
    with pytest.raises(TooLargeError, match=told) as refused:
        requests(group_of(["a", "secret " * 30, "c"]), bounds)

    assert "secret" not in str(refused.value)


def test_tokens_that_are_only_estimated_refuse_nothing() -> None:
    """
    A document that has too many if its tokens are short is sent by itself; the vendor knows.
    """
    asked = requests(group_of(["a", "word " * 20, "c"]), Bounds(None, None, 40))

    assert [1, 1, 1] == [len(request.documents) for request in asked]


# --- learning -------------------------------------------------------------------------------------

TOO_LARGE = Failure(FailureKind.BAD_GROUP, "too large", status=413, too_large=True)
TOO_MANY = Failure(FailureKind.BAD_GROUP, "too many", too_large=True, too_many=True)


def stated(most: int) -> Failure:
    """
    A refusal that names the limit.
    """
    return Failure(FailureKind.BAD_GROUP, "", too_large=True, too_many=True, documents_max=most)


def test_a_limit_that_is_named_is_believed_at_once() -> None:
    """
    The least, if several are; it lowers what was told before, and never raises it.
    """
    capacity = Capacity(Bounds(50))

    learned = [capacity.refused(request_of(40), stated(n)) for n in (32, 32, 8, 16)]

    assert [True, False, True, False] == learned
    assert 8 == capacity.bounds.documents_max
    assert "they are kept to 8 documents from here on" in capacity.learned.sentence()


@pytest.mark.parametrize("most", [0, 40, 41, 10**9])
def test_a_limit_that_cannot_be_is_not_believed(most: int) -> None:
    """
    Nothing, or as many as were refused.
    """
    capacity = Capacity(Bounds())

    assert not capacity.refused(request_of(40), stated(most))
    assert Learned() == capacity.learned


@pytest.mark.parametrize("failure", [TOO_LARGE, TOO_MANY])
def test_one_group_teaches_nothing(failure: Failure) -> None:
    """
    However often pieces of it are refused, down to one candidate.
    """
    capacity = Capacity(Bounds())

    assert not any(capacity.refused(request_of(n), failure) for n in (64, 32, 16, 8, 4, 2, 1))


def test_what_is_no_larger_than_what_has_passed_teaches_nothing() -> None:
    """
    It was refused for something else; and what passes refutes what was learned of less.
    """
    capacity = Capacity(Bounds())
    capacity.refused(request_of(64, 0), TOO_MANY)
    capacity.passed(request_of(40))

    assert not capacity.refused(request_of(30, 1), TOO_MANY)
    assert capacity.refused(request_of(60, 2), TOO_MANY)
    capacity.passed(request_of(60))
    assert Bounds() == capacity.bounds


@pytest.mark.parametrize(
    ("failure", "seen"),
    [
        pytest.param(TOO_MANY, lambda learned: learned.documents_max, id="documents"),
        pytest.param(TOO_LARGE, lambda learned: learned.bytes_max, id="bytes"),
    ],
)
@law(100)
@given(
    most=st.integers(1, 500),
    sizes=st.lists(st.integers(1, 2_000), min_size=1, max_size=12),
    hundreds=st.booleans(),
)
def test_what_is_learned_is_at_least_half_of_what_goes(
    failure: Failure,
    seen: Callable[[Learned], int | None],
    most: int,
    sizes: list[int],
    hundreds: bool,
) -> None:
    """
    Whatever comes, and in which order; and everybody is asked about, in requests that go.
    """
    capacity = Capacity(Bounds(hundreds=hundreds))
    for position, size in enumerate(sizes):
        group = Group(position, position, "", ("0123456789",) * size)
        waiting, gone = requests(group, capacity.bounds), 0
        while waiting:
            request = waiting.pop()
            if len(request.documents) <= most:
                capacity.passed(request)
                gone += len(request.documents)
            else:
                capacity.refused(request, failure)
                waiting += smaller(group, request.slice, capacity.bounds)
        assert size == gone

    unit = 1 if failure is TOO_MANY else 10
    learned = seen(capacity.learned)
    assume(learned is not None)
    assert learned is not None
    assert learned >= most * unit / 2


def test_where_nothing_may_be_cut_nothing_is_learned() -> None:
    """
    To be within a bound there is no use there.
    """
    capacity = Capacity(Bounds(splits=False))

    assert not capacity.refused(request_of(40), stated(8))
    assert "" == capacity.learned.sentence()


def test_what_was_learned_never_widens() -> None:
    """
    The job's word, or the vendor's, stands where it is less.
    """
    assert Bounds(10, 900, bytes_cut=500) == narrowed(Bounds(10, 900), Learned(20, 500))
    assert Bounds(10, 900, bytes_cut=900) == narrowed(Bounds(10, 900), Learned(None, 1_000))
    assert Bounds(20) == narrowed(Bounds(), Learned(20))
    assert 500 == narrowed(narrowed(Bounds(), Learned(None, 500)), Learned(20)).bytes_most


def test_what_was_learned_of_bytes_refuses_nobody() -> None:
    """
    It is nearly a guess: a document above it is sent by itself, and may do.
    """
    bounds = narrowed(Bounds(None, 10_000), Learned(None, 20))

    asked = requests(group_of(["a", "b" * 100, "c"], "q"), bounds)

    assert ["a", "b" * 100, "c"] == [request.documents[0] for request in asked]


def test_an_empty_rest_of_a_group_needs_no_room() -> None:
    """
    Where the frame alone is above the bound nothing can be sent, and nothing need be.
    """
    bounds = Bounds(None, 10, splits=False, frame_bytes=100)

    assert [] == requests(group_of([None, None]), bounds)
    assert [] == requests(group_of([None, None]), msgspec.structs.replace(bounds, splits=True))


@pytest.mark.parametrize(
    ("message", "most"),
    [
        ("batch size 33 > maximum allowed batch size 32", 32),
        ("Maximum Allowed Batch Size: 1,000 (you sent 2,000)", 1000),
        ("maximum allowed batch size is a secret", None),
        ("batch size 33 is too large", None),
        ("maximum allowed batch size " + "9" * 400, 999_999_999_999),
        ("", None),
    ],
)
def test_how_many_may_go_is_read_behind_its_words(message: str, most: int | None) -> None:
    """
    In any case, with commas between thousands, or not at all.
    """
    phrase = Phrase(status=422, says="batch size", most_after="maximum allowed batch size")

    assert most == phrase.most_in(message)
    assert Phrase(status=422, says="batch size").most_in(message) is None
