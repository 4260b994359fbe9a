"""
What every vendor shares: statuses, binding scores to documents, models, hints to wait.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Document,
    Failure,
    FailureKind,
    RerankRequest,
    RichDocument,
    Served,
    Slice,
    Usage,
)
from batchrank.providers.base import (
    RETRY_AFTER_S_MAX,
    STATUS_KINDS,
    HttpReply,
    Results,
    bad_reply,
    bind,
    kind_of_status,
    positive,
    retry_after_s,
    same_document,
    same_model,
)
from tests.laws import law

K = FailureKind


def asking(count: int) -> RerankRequest:
    """
    A request about so many documents.
    """
    documents = tuple(f"document {n}" for n in range(count))
    return RerankRequest(Slice(0, 0, count), "what", documents, tuple(range(count)))


def lines(*told: tuple[int, float] | tuple[int, float, Document]) -> Results:
    """
    A vendor's results: index, score, and the document that is repeated, if one is.
    """
    whole = [(*line, None)[:3] for line in told]
    return Results([n for n, _, _ in whole], [s for _, s, _ in whole], [d for _, _, d in whole])


# --- statuses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        pytest.param(K.FATAL, (300, 301, 302, 307, 308, 399), id="a redirect"),
        pytest.param(K.FATAL, (401, 402, 403, 404, 407), id="key, credit, model, proxy"),
        pytest.param(K.THROTTLED, (429, 503, 529), id="slow down"),
        pytest.param(K.UNKNOWN, (408, 409, 424, 425, 499), id="who knows"),
        pytest.param(K.UNKNOWN, (500, 502, 504, 520, 522, 524, 599, 999), id="the server's fault"),
        pytest.param(K.BAD_GROUP, (400, 405, 413, 418, 422, 451, 498), id="this group"),
        pytest.param(K.BAD_REPLY, (100, 101, 204, 206, 299), id="no rerank reply"),
    ],
)
def test_a_status_by_itself_has_a_class(kind: FailureKind, statuses: Sequence[int]) -> None:
    """
    Design D7, for failures of which nothing is known but their status.
    """
    assert [kind] * len(statuses) == [kind_of_status(status) for status in statuses]


def test_exceptions_to_the_rule_are_few_and_needed() -> None:
    """
    Each status in the table differs from its hundred.
    """
    hundreds = {3: K.FATAL, 4: K.BAD_GROUP, 5: K.UNKNOWN}

    assert all(kind is not hundreds[status // 100] for status, kind in STATUS_KINDS.items())


# --- binding --------------------------------------------------------------------------------------


@law(80)
@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_scores_are_bound_by_index_whatever_their_order(
    scores: list[float], random: object
) -> None:
    """
    The order of the results means nothing; the index does.
    """
    request = asking(len(scores))
    results = [(n, score, request.documents[n]) for n, score in enumerate(scores)]
    random.shuffle(results)  # type: ignore[attr-defined] # Hypothesis's Random

    assert tuple(scores) == bind(request, lines(*results), None)
    assert tuple(scores) == bind(request, lines(*((n, s) for n, s, _ in results)), None)


@pytest.mark.parametrize(
    ("results", "says"),
    [
        pytest.param([(0, 0.1), (1, 0.2)], "2 results for 3 documents", id="one left out"),
        pytest.param([], "0 results for 3 documents", id="nothing"),
        pytest.param([(0, 0.1), (0, 0.2), (1, 0.3)], "index 0 twice", id="twice"),
        pytest.param([(3, 0.1)], "index 3 of 3 documents", id="beyond the last"),
        pytest.param([(-1, 0.1)], "index -1 of 3 documents", id="negative"),
        pytest.param([(0, math.nan)], "not finite at index 0", id="nan"),
        pytest.param([(1, math.inf)], "not finite at index 1", id="infinite"),
        pytest.param([(2, -math.inf)], "not finite at index 2", id="minus infinite"),
    ],
)
def test_results_that_cannot_be_trusted_say_why(
    results: list[tuple[int, float]], says: str
) -> None:
    """
    Nothing is guessed from results that are out of range, not unique, not complete, not finite.
    """
    bound = bind(asking(3), lines(*results), None)

    assert isinstance(bound, str)
    assert says in bound


@pytest.mark.parametrize(
    ("top_n", "given", "good"),
    [(2, 2, True), (2, 1, False), (2, 3, False), (9, 3, True), (9, 2, False)],
)
def test_with_a_top_n_that_was_sent_just_so_many_come(top_n: int, given: int, good: bool) -> None:
    """
    No more and no fewer; of three documents never more than three.
    """
    bound = bind(asking(3), lines(*((n, 0.5) for n in range(given))), top_n)

    assert good is isinstance(bound, tuple)
    if isinstance(bound, tuple):
        assert given == sum(not math.isnan(score) for score in bound)


@pytest.mark.parametrize(
    ("sent", "echoed", "same"),
    [
        pytest.param("a", "a", True, id="itself"),
        pytest.param("a", "b", False, id="another"),
        pytest.param("a", "a ", False, id="a space more"),
        pytest.param("é", "e\u0301", False, id="another spelling of the same letter"),
        pytest.param("a", RichDocument("a"), True, id="text as a structure"),
        pytest.param(RichDocument("a"), "a", True, id="a structure as text"),
        pytest.param("a", RichDocument("a", "https://x/y"), False, id="an image that was not sent"),
        pytest.param(RichDocument("a", "https://x/y"), "a", False, id="an image left out"),
        pytest.param(RichDocument(None, "u"), RichDocument(None, "u"), True, id="an image alone"),
        pytest.param("", RichDocument(None, "u"), False, id="nothing, and an image"),
    ],
)
def test_an_echo_is_what_was_sent(sent: Document, echoed: Document, same: bool) -> None:
    """
    A score beside another document than the one sent is a score of another document.
    """
    request = RerankRequest(Slice(0, 0, 1), "q", (sent,), (0,))

    assert same is same_document(sent, echoed)
    assert same is isinstance(bind(request, lines((0, 0.5, echoed)), None), tuple)


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        pytest.param("v/m", "v/m", True, id="itself"),
        pytest.param("v/m", "v/m-20260131", True, id="with a date"),
        pytest.param("v/m", "v/m-2026-01-31", True, id="with a dashed date"),
        pytest.param("v/m", "v/m-2026-0131", False, id="half dashed"),
        pytest.param("v/m", "v/m-20261301", False, id="a thirteenth month"),
        pytest.param("v/m", "v/m-20260141", False, id="a forty-first day"),
        pytest.param("v/m", "v/m-19991231", False, id="another century"),
        pytest.param("v/m:nitro", "v/m", True, id="routed"),
        pytest.param("v/m:nitro", "v/m:nitro", True, id="routed, and told"),
        pytest.param("v/m:nitro", "v/m-20260131", True, id="routed, with a date"),
        pytest.param("v/m", "v/m:nitro", False, id="routed without being asked"),
        pytest.param("v/m", "v/mm-20260131", False, id="a longer name"),
        pytest.param("v/m", "v/m-20260131\n", False, id="something behind the date"),
        pytest.param("v/m", "V/M", False, id="capitals"),
        pytest.param("v/m-20260131", "v/m", False, id="the date left out"),
    ],
)
def test_a_model_is_itself_or_that_plus_a_date(asked: str, served: str, same: bool) -> None:
    """
    Scores of another model are not comparable.
    """
    assert same is same_model(asked, served)


# --- replies that are refused ---------------------------------------------------------------------


def test_of_a_refused_reply_digest_length_and_status_are_kept() -> None:
    """
    What else was known of it (its bill, who served it) stays.
    """
    known = Failure(
        K.FATAL, "", usage=Usage(cost_usd=0.5), served=Served("m"), request_id="r", code="c"
    )

    failure = bad_reply(HttpReply(200, {}, b"{}"), "not a reply", known)

    assert (K.BAD_REPLY, "not a reply", 200, 2) == (
        failure.kind,
        failure.message,
        failure.status,
        failure.reply_bytes,
    )
    assert hashlib.sha256(b"{}").hexdigest() == failure.reply_sha256
    assert (known.usage, known.served, "r", "c") == (
        failure.usage,
        failure.served,
        failure.request_id,
        failure.code,
    )


# --- hints ----------------------------------------------------------------------------------------

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
DATE = format_datetime(NOW, usegmt=True)
LATER = format_datetime(NOW + timedelta(seconds=90), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param({"retry-after": "30"}, 30.0, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, 1.5, id="fractions, and white space"),
        pytest.param({"retry-after": "0"}, 0.0, id="zero"),
        pytest.param({"retry-after-ms": "250"}, 0.25, id="milliseconds"),
        pytest.param({"x-ms-retry-after-ms": "250"}, 0.25, id="milliseconds, Microsoft's"),
        pytest.param({"retry-after-ms": "250", "retry-after": "9"}, 0.25, id="milliseconds first"),
        pytest.param({"retry-after-ms": "soon", "retry-after": "9"}, 9.0, id="the one that reads"),
        pytest.param(
            {
                "retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True),
                "date": DATE,
            },
            90.0,
            id="a date, from the reply's own",
        ),
        pytest.param(
            {"retry-after": format_datetime(NOW - timedelta(seconds=9), usegmt=True), "date": DATE},
            0.0,
            id="a date that has passed",
        ),
        pytest.param({"retry-after": DATE}, None, id="a date without the reply's own"),
        pytest.param({"retry-after": DATE, "date": "today"}, None, id="a date beside nonsense"),
        pytest.param({"retry-after": "-5"}, None, id="negative"),
        pytest.param({"retry-after": "nan"}, None, id="nan"),
        pytest.param({"retry-after": "inf"}, None, id="infinite"),
        pytest.param({"retry-after": "1e999"}, None, id="too large for a float"),
        pytest.param({"retry-after": "1e9"}, None, id="thirty years"),
        pytest.param({"retry-after": str(RETRY_AFTER_S_MAX)}, RETRY_AFTER_S_MAX, id="two days"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "later, please"}, None, id="words"),
        pytest.param(
            {"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT", "date": DATE}, None, id="far away"
        ),
    ],
)
def test_a_hint_to_wait_is_read_or_left(headers: dict[str, str], expected: float | None) -> None:
    """
    Seconds, milliseconds, dates; nonsense is no hint.
    """
    assert expected == retry_after_s(headers, None)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"retry-after": LATER}, 90.0, id="our clock where there is no other"),
        pytest.param({"retry-after": LATER, "date": "today"}, 90.0, id="or none that reads"),
        pytest.param(
            {"retry-after": LATER, "date": format_datetime(NOW - timedelta(hours=1), usegmt=True)},
            3690.0,
            id="theirs where there is one",
        ),
        pytest.param({"retry-after": "Fri Nov 20 12:01:30 2026"}, 90.0, id="C's form, in UTC"),
        pytest.param({"retry-after": "Friday, 20-Nov-26 12:01:30 GMT"}, 90.0, id="the old form"),
        pytest.param({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0, id="long past"),
        pytest.param({"retry-after": "30"}, 30.0, id="seconds need no clock"),
    ],
)
def test_a_date_is_measured_from_the_best_clock_there_is(
    headers: dict[str, str], expected: float
) -> None:
    """
    The reply's own, else ours, which says noon.
    """
    assert expected == retry_after_s(headers, NOW.timestamp())


@law(80)
@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "x-ms-retry-after-ms", "date"]),
        st.text(max_size=30) | st.from_regex(r"[0-9eE+.:, a-zA-Z-]{0,30}"),
    ),
    st.none() | st.floats(0, 1e12),
)
def test_no_header_makes_it_raise_or_wait_for_ever(
    headers: dict[str, str], now_epoch_s: float | None
) -> None:
    """
    Whatever a server says, the answer is None or a time of at most two days.
    """
    wait_s = retry_after_s(headers, now_epoch_s)

    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_S_MAX


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (0.5, 0.5),
        ("7", 7.0),
        (0, 0.0),
        (-1, None),
        (True, None),
        (None, None),
        ([1], None),
        ({}, None),
        ("", None),
        ("١٢", 12.0),
        (10**400, None),
        (float("nan"), None),
    ],
    ids=repr,
)
def test_numbers_of_others_are_finite_and_not_negative(
    value: object, expected: float | None
) -> None:
    """
    Anything else was not said.
    """
    assert expected == positive(value)
