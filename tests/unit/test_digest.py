"""
The content key: alike for what is asked alike, and for nothing else.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config import asking
from batchrank.domain import Document, RichDocument
from batchrank.policy.digest import DIGEST_BYTES, content_of, digest_of, pairs_of
from tests.laws import law

TEXTS = st.text(st.sampled_from("ab\0é\U0001f600\ud800"), max_size=3)
RICH = st.builds(RichDocument, st.none() | TEXTS, st.none() | TEXTS)
ASKED = st.tuples(TEXTS, st.lists(TEXTS | st.none() | RICH, max_size=3).map(tuple))

Asked = tuple[str, tuple[Document | None, ...]]


@law(300)
@given(ASKED, ASKED)
def test_two_groups_have_one_key_if_and_only_if_they_ask_the_same(one: Asked, two: Asked) -> None:
    """
    Texts of two or three letters meet often: where one ends and the next begins is in the key.
    """
    assert (one == two) == (content_of(*one) == content_of(*two))


@law(300)
@given(ASKED, ASKED)
def test_two_pairs_have_one_key_if_and_only_if_they_are_the_same(one: Asked, two: Asked) -> None:
    """
    Wherever they stand; what is not sent has none, and no pair has the key of a group.
    """
    keys = [pairs_of(*asked) for asked in (one, two)]
    pairs = [[d and (query, d) if d != "" else (query, d) for d in ds] for query, ds in (one, two)]

    for pair, key in zip(pairs[0], keys[0], strict=True):
        same = [pair == other for other in pairs[1]]
        assert same == [key == other for other in keys[1]]
        assert (pair is None) == (key is None)
    assert not {content_of(query, (d,)) for query, ds in (one, two) for d in ds} & {*keys[0]}


@pytest.mark.parametrize(
    ("query", "documents"),
    [
        pytest.param("q", ["a", "bc"], id="a boundary between documents"),
        pytest.param("qa", ["", "b"], id="a boundary behind the query"),
        pytest.param("q", ["b", "a"], id="the order"),
        pytest.param("q", ["ab"], id="one document less"),
        pytest.param("q", ["ab", None], id="null is not empty"),
        pytest.param("q", ["ab", ""], id="empty is not null"),
        pytest.param("q", ["ab", RichDocument("")], id="a structure is not its text"),
        pytest.param("q", ["ab", RichDocument(None, "")], id="an image is not a text"),
        pytest.param("q ", ["ab", "c"], id="white space"),
        pytest.param("Q", ["ab", "c"], id="case"),
        pytest.param("q", ["ab", "c\u0301"], id="a combining character"),
        pytest.param("q", ["ab", "\ufeffc"], id="a byte order mark"),
    ],
)
def test_what_looks_alike_has_another_key(query: str, documents: list[Document | None]) -> None:
    """
    Nothing is normalised, and no boundary is lost.
    """
    assert content_of("q", ["ab", "c"]) != content_of(query, documents)


def test_the_key_stays_what_it_is() -> None:
    """
    Outputs of years hold it: whoever changes the encoding pays everything again, once.
    """
    rich = RichDocument("t", "https://x/y.png")

    assert (
        "815826dd6b3886d5861666928d46b7eb"
        == content_of("what is it", ["one", None, "zwei ü"]).hex()
    )
    assert "3ccf16d48626f99d8c059f741c0c419d" == content_of("q", [rich, "one"]).hex()
    assert "2836444f3e51da02555a3eef8e220980" == digest_of(b"s" * 32, b"c" * 16).hex()
    assert DIGEST_BYTES == len(digest_of(b"", content_of("", [])))
    assert ["c6f17b2c8d4f33d58a36f99f63613b78", "f09632c24e05d6d03b649902af73d8a8", None] == [
        key and key.hex() for key in pairs_of("q", ["zwei ü", rich, None])
    ]


SETTINGS: dict[str, object] = {
    "provider.name": "openrouter",
    "provider.model": "m",
    "provider.base_url": "https://x",
    "provider.send_top_n": False,
    "source.query": "query",
    "source.template": "{title}",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        pytest.param({"provider.model": "n"}, False, id="the model"),
        pytest.param({"provider.base_url": "https://y"}, False, id="the address"),
        pytest.param({"provider.options.instruct": "i"}, False, id="an option that scores"),
        pytest.param({"source.query": "question"}, True, id="a column's name"),
        pytest.param({"source.template": "{body}"}, True, id="a template, which is in the texts"),
        pytest.param({"source.parameters": {"day": "2026-11-20"}}, True, id="a parameter"),
        pytest.param({"source.dedupe_documents": True}, False, id="equal texts are sent once"),
    ],
)
def test_who_is_asked_is_the_same(change: dict[str, object], same: bool) -> None:
    """
    Where texts come from is no part of it: it differs from night to night.
    """
    assert same == (asking(SETTINGS) == asking({**SETTINGS, **change}))
