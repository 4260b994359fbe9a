from __future__ import annotations

import math

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import RerankReply, RerankRequest, RichDocument, Served, Slice, Usage
from batchrank.local.lexical import K1, B, LexicalScorer, scores, words

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)
WORDY = st.lists(st.sampled_from(["river", "bank", "Bank", "boat", "ü", "the"]), max_size=12)
DOCUMENTS = st.lists(st.one_of(TEXTS, WORDY.map(" ".join)), max_size=8)


def request(*documents: str | RichDocument) -> RerankRequest:
    """
    A request for the word river.
    """
    indices = tuple(range(len(documents)))
    return RerankRequest(Slice(0, 0, len(documents)), "river", documents, indices)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param(" .,;!\t\n", [], id="only marks"),
        pytest.param("The River, the BANK!", ["the", "river", "the", "bank"], id="case and marks"),
        pytest.param("snake_case x86-64", ["snake_case", "x86", "64"], id="digits and underscores"),
        pytest.param("Übung übt ΣΟΦΊΑ", ["übung", "übt", "σοφία"], id="other scripts"),
        pytest.param(
            "cafe\u0301 ﬁsh ＡＢ", ["café", "fish", "ab"], id="one letter, one way to write it"
        ),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    """
    Words are runs of letters, digits and underscores, in lower case, however they were encoded.
    """
    assert expected == words(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_takes_a_shorter_way_to_the_same_words(text: str) -> None:
    """
    The fast path for ASCII finds what the general one finds.
    """
    assert words(text + " ü")[:-1] == words(text)


def test_the_formula_by_hand() -> None:
    """
    A score is the documented sum, worked out for one small group.
    """
    documents = ["river bank river", "boat", "bank of the west"]
    mean = (3 + 1 + 4) / 3
    idf_river = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    idf_bank = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    long, longer = K1 * (1 - B + B * 3 / mean), K1 * (1 - B + B * 4 / mean)
    first = idf_river * 2 * (K1 + 1) / (2 + long) + idf_bank * (K1 + 1) / (1 + long)
    third = idf_bank * (K1 + 1) / (1 + longer)

    assert pytest.approx([first, 0.0, third]) == scores("River bank?", documents)


@given(TEXTS, DOCUMENTS)
def test_scores_are_finite_never_negative_and_the_same_again(
    query: str, documents: list[str]
) -> None:
    """
    Whatever the texts, each document gets a number that can be sorted, and always the same one.
    """
    found = scores(query, documents)

    assert len(documents) == len(found)
    assert all(math.isfinite(score) and score >= 0 for score in found)
    assert found == scores(query, documents)


@given(WORDY.map(" ".join), DOCUMENTS)
def test_the_order_of_documents_changes_no_score(query: str, documents: list[str]) -> None:
    """
    A document's score depends on the group, not on its place in it.
    """
    turned = documents[::-1]

    assert scores(query, documents) == scores(query, turned)[::-1]


@given(WORDY.map(" ".join), DOCUMENTS)
def test_a_document_without_a_word_of_the_query_gets_nothing(
    query: str, documents: list[str]
) -> None:
    """
    A score is above 0 exactly where a word of the query stands in the document.
    """
    shared = [bool(set(words(query)) & set(words(document))) for document in documents]

    assert shared == [score > 0 for score in scores(query, documents)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        pytest.param("river river bank", "river boat bank", id="a word more often"),
        pytest.param("river bank", "river boat boat boat", id="more words of the query"),
        pytest.param("river", "river and much else besides", id="the shorter of two"),
    ],
)
def test_what_makes_a_score_higher(better: str, worse: str) -> None:
    """
    More of the query's words, more often, in less text, score higher.
    """
    first, second = scores("river bank", [better, worse])

    assert first > second


def test_the_scorer_answers_like_a_provider_that_costs_nothing() -> None:
    """
    The scorer's answer has the request's order, names who scored, and costs 0.
    """
    asked = request("a boat", "the river", RichDocument("river", "https://example.org/river.png"))

    answer = anyio.run(LexicalScorer().score, asked)

    assert isinstance(answer, RerankReply)
    assert tuple(scores("river", ["a boat", "the river", "river"])) == answer.scores
    assert (Served("lexical-bm25", "batchrank"), Usage(cost_usd=0.0), None) == (
        answer.served,
        answer.usage,
        answer.request_id,
    )


def test_an_image_alone_has_no_words() -> None:
    """
    Only text is looked at: an image's address earns no score.
    """
    answer = anyio.run(LexicalScorer().score, request(RichDocument(image="https://river/river")))

    assert isinstance(answer, RerankReply)
    assert (0.0,) == answer.scores
