"""
Texts are made of fields by three rules; what is blank is not sent.
"""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrank.source.texts import (
    Plain,
    Template,
    TextRule,
    Yaml,
    is_blank,
    shortened,
    template,
)

TITLE_AND_BODY = Template("{title}\n{body}", ("title", "body"))


@pytest.mark.parametrize(
    ("rule", "columns", "texts"),
    [
        pytest.param(
            Plain(("text",)),
            [["a", "", None, " \n\u3000", " b "]],
            ["a", None, None, None, " b "],
            id="a text is sent as it is, and blank ones are not",
        ),
        pytest.param(
            TITLE_AND_BODY,
            [["t", None, "t"], ["b", "b", None]],
            ["t\nb", "\nb", "t\n"],
            id="null is filled in as nothing",
        ),
        pytest.param(
            Template("title: {title}", ("title",)),
            [["", None, "t"]],
            [None, None, "title: t"],
            id="a template around nothing is nothing",
        ),
        pytest.param(
            Template("{{{a}}} {a}", ("a",)), [["x"]], ["{x} x"], id="braces and repeated fields"
        ),
        pytest.param(
            TITLE_AND_BODY,
            [["{body}"], ["{0.__class__}"]],
            ["{body}\n{0.__class__}"],
            id="what is filled in is not a template",
        ),
        pytest.param(
            Yaml(("title", "price", "tags")),
            [["B", "é 😀", None, ""], [1.5, None, None, None], [["x", "y"], None, None, None]],
            ["title: B\nprice: 1.5\ntags:\n- x\n- y\n", "title: é 😀\n", None, None],
            id="YAML keeps the order and leaves null out",
        ),
    ],
)
def test_a_rule_makes_texts_of_fields(
    rule: TextRule, columns: list[list[object]], texts: list[str | None]
) -> None:
    """
    Fields arrive as columns and leave as one text for each document.
    """
    assert texts == rule.texts(columns)


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        pytest.param("{title}\n{body}", ("title", "body"), id="two fields"),
        pytest.param("{a}{b}{a}", ("a", "b"), id="a field twice"),
        pytest.param("{product title}: {füllung}", ("product title", "füllung"), id="any name"),
        pytest.param("{{no}} {yes}", ("yes",), id="braces that are text"),
    ],
)
def test_a_template_names_its_fields(form: str, fields: tuple[str, ...]) -> None:
    """
    Each field is read once, in the order of the template.
    """
    assert fields == template(form).fields


@pytest.mark.parametrize(
    "form",
    [
        pytest.param("no field", id="no field at all"),
        pytest.param("{{title}}", id="only braces that are text"),
        pytest.param("{}", id="a field without a name"),
        pytest.param("{0}", id="a number"),
        pytest.param("{title.upper}", id="an attribute"),
        pytest.param("{title[0]}", id="an index"),
        pytest.param("{title!r}", id="a conversion"),
        pytest.param("{title:>10}", id="a format"),
        pytest.param("{title:{width}}", id="a format made of a field"),
        pytest.param("{title", id="a brace that is not closed"),
        pytest.param("title}", id="a brace that was not opened"),
    ],
)
def test_a_template_takes_plain_fields_only(form: str) -> None:
    """
    Whatever reaches into values or formats them is refused.
    """
    with pytest.raises(ValueError, match=r"field|brace|encountered|expected"):
        template(form)


WORDS = st.text(max_size=12) | st.text("ab \n\x85\u2028\u2029\ufeff", max_size=5)


@settings(max_examples=40)
@given(st.lists(st.tuples(WORDS, st.none() | WORDS, st.none() | st.floats()), max_size=3))
def test_yaml_reads_back_as_what_was_dumped(rows: list[tuple[str, str | None, float]]) -> None:
    """
    Whatever the fields hold, the YAML of a document means the document.
    """
    names = ("title", "body", "price")
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    wanted = [dict(zip(names, row, strict=True)) for row in rows]
    texts = Yaml(names).texts(columns)

    for text, document in zip(texts, wanted, strict=True):
        there = {name: value for name, value in document.items() if value is not None}
        if all(map(is_blank, there.values())):
            assert text is None
        else:
            assert text is not None
            assert repr(there) == repr(yaml.safe_load(text))


@given(st.text())
def test_blank_is_what_strip_leaves_nothing_of(text: str) -> None:
    """
    The rule for documents is the one that policy has for queries.
    """
    assert (not text.strip()) == is_blank(text)


@pytest.mark.parametrize(
    ("texts", "beginnings", "longer"),
    [
        pytest.param(["abc", None, "ab"], ["abc", None, "ab"], 0, id="none is longer"),
        pytest.param(["abcd", "abc"], ["abc", "abc"], 1, id="one is"),
        pytest.param(
            ["\U0001f468\u200d\U0001f469\u200d"], ["\U0001f468\u200d\U0001f469"], 1, id="emoji"
        ),
        pytest.param(["cafe\u0301"[1:]], ["afe"], 1, id="a letter and its accent are parted"),
        pytest.param(["\ufeffabc"], ["\ufeffab"], 1, id="a BOM counts"),
        pytest.param(
            ["   x", "\u200b\u200b\u200bx"], [None, "\u200b" * 3], 2, id="white space is left"
        ),
    ],
)
def test_a_text_is_cut_between_code_points(
    texts: list[str | None], beginnings: list[str | None], longer: int
) -> None:
    """
    As many as Python counts, whatever they look like together.
    """
    assert (beginnings, longer) == shortened(texts, 3)
