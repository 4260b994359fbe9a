"""
Rows are read quickly or with care, and nobody can tell which from what they ask.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config.schema import SourceTable
from batchrank.policy.digest import content_of
from batchrank.source.carried import Lists, is_sound
from batchrank.source.fitting import fit
from batchrank.source.rows import (
    HELD_BYTES,
    HELD_PIECES,
    Careful,
    Quick,
    cut,
    filled,
    reader,
    without_blanks,
)
from batchrank.source.texts import is_blank, template
from tests.edges.test_source_flaws import strings
from tests.laws import law

SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
"""All there are: see below."""

TEXTS = st.none() | st.text(SPACES, max_size=3) | st.text(st.characters(codec="utf-8"), max_size=9)
BYTES = TEXTS | st.binary(max_size=4) | st.sampled_from([b"\xc0\xa0", b"\xed\xa0\x80", b" \xff"])
COLUMNS = fit(
    pa.schema([("query", pa.string()), ("documents", pa.list_(pa.string()))]),
    SourceTable(path="x"),
    "x",
)


@st.composite
def rows(draw: st.DrawFn) -> tuple[pa.Array, Lists]:
    """
    Queries and documents whose arrays begin anywhere.
    """
    counts = draw(st.lists(st.integers(0, 4) | st.just(40), max_size=8))
    starts = list(accumulate(counts, initial=0))
    before = draw(st.integers(0, 9))
    texts = draw(st.lists(TEXTS, min_size=1, max_size=12))
    held = [texts[n % len(texts)] for n in range(before + starts[-1])]
    queries = [draw(TEXTS) for _ in range(before + len(counts))]
    values = pa.array(held, pa.string()).slice(before)
    return pa.array(queries, pa.string()).slice(before), Lists(starts, values)


@law(80)
@given(rows(), st.integers(1, 400), st.data())
def test_the_quick_way_finds_what_the_careful_way_finds(
    held: tuple[pa.Array, Lists], portion_bytes_max: int, data: st.DataObject
) -> None:
    """
    Whatever is null, empty or white space, however rows are cut, in whatever order they are asked.
    """
    queries, documents = held
    sendable = without_blanks(documents.values)
    quick = Quick(queries, documents.starts, sendable, portion_bytes_max)
    texts = [("documents", documents.values)]
    careful = Careful(COLUMNS, queries, documents.starts, texts, None)

    order = st.permutations(range(len(queries)))
    for row in (*range(len(queries)), *data.draw(order)):
        assert careful.asked(row) == quick.asked(row)


@law(80)
@given(rows(), st.integers(1, 5))
def test_a_text_is_cut_alike_either_way(held: tuple[pa.Array, Lists], most: int) -> None:
    """
    At the same code point, and as many are told to be cut; what is blank then is not sent.
    """
    queries, documents = held
    columns = replace(COLUMNS, table=SourceTable(path="x", max_chars=most))
    quick = reader(columns, queries, documents)
    texts = [("documents", documents.values)]
    careful = Careful(columns, queries, documents.starts, texts, None)

    assert isinstance(quick, Quick)
    keys = list(quick.contents())
    for row, (start, stop) in enumerate(pairwise(documents.starts)):
        whole = documents.values.slice(start, stop - start).to_pylist()
        sent = [None if is_blank(text) or is_blank(text[:most]) else text[:most] for text in whole]
        longer = sum(not is_blank(text) and len(text) > most for text in whole)
        query, found, cut = quick.asked(row)
        assert (tuple(sent), longer) == (found, cut)
        assert (query, found, cut) == careful.asked(row)
        if keys[row] is not None:
            assert keys[row] == content_of(query, found)  # of what is sent, and nothing else


@pytest.mark.parametrize("by", [-1, 0, 1])
@pytest.mark.parametrize("pieces", [1, 2, HELD_PIECES, HELD_PIECES + 1])
def test_what_is_digested_in_pieces_has_the_key_of_the_whole(pieces: int, by: int) -> None:
    """
    Beside every boundary, with texts of another group before and behind.
    """
    texts = ["before", "x" * (HELD_BYTES * pieces + by - 2), "é", "behind"]
    queries = pa.array(["a", "b", "c"])

    keys = list(Quick(queries, [0, 1, 3, 4], pa.array(texts)).contents())
    asked = zip("abc", (texts[:1], texts[1:3], texts[3:]), strict=True)
    assert keys == [content_of(query, documents) for query, documents in asked]


def test_without_anything_too_long_no_text_is_copied() -> None:
    """
    Most batches are such.
    """
    texts = pa.array(["né", None, "b"])

    assert (texts, ()) == cut(texts, [0, 3], 2)
    assert texts is cut(texts, [0, 3], 2)[0]


def test_arrow_and_python_call_the_same_characters_white_space() -> None:
    """
    All of Unicode, each character alone and behind a space.
    """
    scalars = [chr(n) for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000]
    texts = [text for char in scalars for text in (char, f" {char}")]

    found = without_blanks(pa.array(texts)).to_pylist()

    assert [None if is_blank(text) else text for text in texts] == found
    assert list(SPACES) == list(filter(str.isspace, scalars))


@law(80)
@given(
    st.lists(st.sampled_from(["{a}", "{b}", "{{", "}}", " ", "ẞ: ", "\n"]), max_size=5),
    st.lists(st.tuples(TEXTS, TEXTS), max_size=9),
)
def test_arrow_fills_a_template_as_python_does(form: list[str], documents: list[Any]) -> None:
    """
    Fields once, twice or beside each other, any of them blank.
    """
    rule = template("".join(("{b}", *form)))
    columns = {name: [pair["ab".index(name)] for pair in documents] for name in rule.fields}

    found = filled(rule, {name: pa.array(held, pa.string()) for name, held in columns.items()})

    assert found is not None
    assert rule.texts(list(columns.values())) == found.to_pylist()


def test_a_template_that_makes_much_of_little_is_left_to_python() -> None:
    """
    Memory is bounded by the batch, and a form may be longer than all its fields.
    """
    fields = {"a": pa.array(["x"] * 9_000)}

    assert [True, False] == [filled(template("{a}" + "y" * n), fields) is None for n in (1_000, 10)]


def test_without_anything_blank_no_text_is_copied() -> None:
    """
    Most batches are such; null is blank already.
    """
    texts = pa.array(["a", None, " b"])

    assert texts is without_blanks(texts)


@law(80)
@given(st.lists(BYTES, min_size=1, max_size=4))
def test_arrow_and_python_call_the_same_bytes_utf_8(values: list[bytes | str | None]) -> None:
    """
    What is sound to Arrow can be read without care.
    """
    raw = [value for value in values if isinstance(value, bytes)]

    assert all(map(_is_utf_8, raw)) == is_sound(strings(values))


def _is_utf_8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def test_one_broken_text_makes_all_its_batch_read_with_care() -> None:
    """
    A document or a query; nothing else does.
    """
    good, bad = strings(["a", " "]), strings(["a", b"\xc0\xa0"])

    def way(queries: pa.Array, texts: pa.Array) -> type:
        return type(reader(COLUMNS, queries, Lists([0, 1, 2], texts)))

    assert [Quick, Careful, Careful] == [way(good, good), way(bad, good), way(good, bad)]
