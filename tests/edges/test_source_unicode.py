"""
Text is kept as it is from the source to the request and back, code point by code point; what is no
text is told, and never sent.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config.schema import SourceTable
from batchrank.domain import Failure, FailureKind, Group, Positions, RerankReply, RerankRequest
from batchrank.errors import SourceError
from batchrank.policy.capacity import Bounds
from batchrank.policy.slicing import requests, without_call
from batchrank.providers.base import HttpReply, Settings
from batchrank.providers.openrouter import OPENROUTER, OpenRouterOptions
from batchrank.rehearsal import asked, replies
from batchrank.rehearsal.bill import Charge
from batchrank.source import open_source
from tests.edges.test_source_flaws import strings
from tests.laws import law

MODEL = "cohere/rerank-v3.5"
PROVIDER = OPENROUTER.make(Settings(MODEL, "https://x/api/v1", None, OpenRouterOptions()))

ODD = [
    "\ufeffbegins with a BOM",
    "zero\u200bwidth \u200d joiner",
    "e\u0301 is not \u00e9",
    "\u212b, \u00c5 and A\u030a",
    "\ufffd stands for itself",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\x00, \x7f, \x85, \u2028 and \u2029",
    "\ufdd0 and \U0010ffff are no characters",
    "\u202eright to left",
    "\r\n and \r",
    '"quoted" \\ud800 \\ is no escape',
]
TEXTS = st.sampled_from(ODD) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=9)

SURROGATES = [b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80"]
"""A high one alone, a low one alone, and a pair of them as CESU-8 writes an emoji."""

BYTES = st.binary(max_size=4) | st.sampled_from(
    [*SURROGATES, b"\xc0\x80", b"a\xff", b"\xf4\x90\x80\x80"]
)

Held = Sequence[bytes | str]


def read(columns: dict[str, pa.Array], **settings: Any) -> tuple[list[Group], pa.RecordBatch]:
    """
    Write rows and read them: the groups, and what is carried over.
    """
    with tempfile.TemporaryDirectory() as base:
        pq.write_table(pa.table(columns), Path(base) / "a.parquet")
        source = open_source(SourceTable(path="a.parquet", **settings), Path(base))
        (batch,) = source.batches(Positions(source.total), source.total)
        with pa.ipc.open_stream(batch.carried) as stream:
            carried = stream.read_next_batch()
        return [batch.group(position) for position in range(source.total)], carried


def column(values: Held, kind: pa.DataType) -> pa.Array:
    """
    A column of texts, or of bytes that are none, as *kind*.
    """
    array = strings(values)
    return array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)


def lists(values: pa.Array, count: int) -> pa.Array:
    """
    One list of so many values in each row.
    """
    return pa.FixedSizeListArray.from_arrays(values, count)


KINDS = [
    pytest.param(pa.string(), id="string"),
    pytest.param(pa.large_string(), id="large string"),
    pytest.param(pa.string_view(), id="string view"),
    pytest.param(pa.dictionary(pa.int32(), pa.string()), id="dictionary"),
]


# --- what is text ---------------------------------------------------------------------------------


def is_sent(text: str) -> bool:
    """
    White space alone is not.
    """
    return bool(text.strip())


@pytest.mark.parametrize("kind", KINDS)
@law(25)
@given(texts=st.lists(TEXTS.filter(is_sent), min_size=4, max_size=4))
def test_every_character_arrives(kind: pa.DataType, texts: list[str]) -> None:
    """
    In the query, in documents, in ids and in what is carried over; whoever reads the request's JSON
    has the same text, and its echo is recognised.
    """
    query, one, two, three = texts
    (group,), carried = read(
        {
            "query": column([query], kind),
            "id": column([one], kind),
            "documents": lists(column([one, two, three], kind), 3),
            "ids": lists(column([three, two, one], kind), 3),
            "market": column([two], kind),
        },
        query_id="id",
        doc_id="ids",
        carry=("market",),
    )
    (request,) = requests(group, Bounds())
    body = PROVIDER.call(request).body

    assert (None, one) == (group.flaw, group.query_id)
    assert (query, [one, two, three]) == (json.loads(body)["query"], json.loads(body)["documents"])
    assert [(one, [three, two, one], two)] == list(
        zip(
            *(carried.column(n).to_pylist() for n in ("query_id", "doc_id", "g:market")),
            strict=True,
        )
    )
    assert isinstance(answer(request, body), RerankReply)


def answer(request: RerankRequest, body: bytes) -> object:
    """
    What becomes of the rehearsal server's reply to a request's body.
    """
    heard = asked.read("application/json", body)
    assert isinstance(heard, asked.Asked)
    scores = [1.0 / (1 + n) for n in range(len(heard.texts))]
    good = replies.reply(heard, scores, "gen-1", Charge(1, 9, 1_000), replies.UsageTold.ALL)
    told = replies.body(good, None, heard, "key")
    return PROVIDER.read(request, HttpReply(200, {}, told))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"text": "body"}, id="taken as it is"),
        pytest.param({"template": "{title}: {body}"}, id="in a template"),
    ],
)
@law(25)
@given(texts=st.lists(TEXTS.filter(is_sent), min_size=2, max_size=2))
def test_every_character_of_a_field_arrives(settings: dict[str, str], texts: list[str]) -> None:
    """
    Whatever a template puts around it.
    """
    title, body = texts
    struct = pa.StructArray.from_arrays([strings([title]), strings([body])], ["title", "body"])

    (group,), _ = read({"query": strings(["q"]), "documents": lists(struct, 1)}, **settings)

    wanted = f"{title}: {body}" if "template" in settings else body
    assert (wanted,) == group.documents


# --- what is none ---------------------------------------------------------------------------------


def is_text(value: bytes) -> bool:
    """
    Tell whether bytes are UTF-8, which has no surrogates.
    """
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


PLACES: dict[str, Callable[[Held, pa.DataType], tuple[dict[str, pa.Array], dict[str, Any]]]] = {
    "query": lambda values, kind: (
        {"query": column(values, kind), "documents": lists(strings("abc"), 1)},
        {},
    ),
    "documents": lambda values, kind: (
        {"query": strings("abc"), "documents": lists(column(values, kind), 1)},
        {},
    ),
    "id": lambda values, kind: (
        {
            "query": strings("abc"),
            "documents": lists(strings("abc"), 1),
            "id": column(values, kind),
        },
        {"query_id": "id"},
    ),
    "ids": lambda values, kind: (
        {
            "query": strings("abc"),
            "documents": lists(strings("abc"), 1),
            "ids": lists(column(values, kind), 1),
        },
        {"doc_id": "ids"},
    ),
    "market": lambda values, kind: (
        {
            "query": strings("abc"),
            "documents": lists(strings("abc"), 1),
            "market": column(values, kind),
        },
        {"carry": ("market",)},
    ),
}
"""Where a text may stand: columns and settings of three groups that have these values there."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
@law(15)
@given(bad=BYTES.filter(lambda value: not is_text(value)))
def test_what_is_not_utf_8_is_a_flaw_of_its_group(
    place: str, kind: pa.DataType, bad: bytes
) -> None:
    """
    Lone surrogates too, which UTF-8 does not have; the flaw names the column, the neighbours are
    whole, and nobody is asked about the group.
    """
    columns, settings = PLACES[place](["x", bad, "z"], kind)

    (first, second, third), _ = read(columns, **settings)

    assert second.flaw is not None
    assert second.flaw.startswith(place)
    assert "not UTF-8" in second.flaw
    assert [None, None] == [first.flaw, third.flaw]
    assert without_call(second) is not None


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no names that are not UTF-8")
def test_a_file_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    """
    Its name could not be written down, and outputs are compared by it.
    """
    table = pa.table({"query": ["q"], "documents": [["a"]]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "a.parquet").rename(tmp_path / os.fsdecode(b"a\xff.parquet"))

    with pytest.raises(SourceError, match=r"a\\udcff\.parquet: its name is not UTF-8") as refused:
        open_source(SourceTable(path="*.parquet"), tmp_path)

    assert "another name" in refused.value.hint


@pytest.mark.parametrize("bad", SURROGATES)
def test_a_reply_with_what_is_no_text_is_a_bad_reply(bad: bytes) -> None:
    """
    As bytes, or as an escape in its JSON: an echo of that was never sent.
    """
    request = RerankRequest(
        requests(Group(0, 0, "q", ("a",)), Bounds())[0].slice, "q", ("a",), (0,)
    )
    good = PROVIDER.call(request).body
    heard = asked.read("application/json", good)
    assert isinstance(heard, asked.Asked)
    scored = replies.reply(heard, [0.5], "gen-1", Charge(1, 9, 1_000), replies.UsageTold.ALL)
    told = replies.body(scored, None, heard, "key")
    assert b'"text":"a"' in told

    for spoilt in (bad, b"\\ud83d", b"\\ude00", b"\\ud83d\\ud83d"):
        body = told.replace(b'"text":"a"', b'"text":"a%s"' % spoilt)
        failure = PROVIDER.read(request, HttpReply(200, {}, body))
        assert isinstance(failure, Failure)
        assert FailureKind.BAD_REPLY is failure.kind
        assert (0.000001, "gen-1") == (failure.usage.cost_usd, failure.request_id)
        assert failure.message.isprintable()


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(b"\\ud83d", id="the first half of an emoji"),
        pytest.param(b"\\ude00", id="the second"),
        pytest.param(b"\\ud83d\\ud83d\\ude00", id="a half and a whole one"),
        pytest.param(b"\xf0\x9f", id="two bytes of four"),
        pytest.param(b"\xed\xa0\xbd", id="a surrogate as bytes"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_an_error_that_quotes_half_a_character_keeps_its_class(status: int, cut: bytes) -> None:
    """
    Servers cut what they quote as JavaScript counts, or by bytes: a quota that is spent is one.
    """
    (request,) = requests(Group(0, 0, "q", ("a",)), Bounds())
    body = (
        b'{"error": {"code": 429, "message": "the input \\\\ud800 %s",'
        b' "metadata": {"error_type": "rate_limit_exceeded"}}}'
    )

    failure = PROVIDER.read(request, HttpReply(status, {}, body % cut))

    assert isinstance(failure, Failure)
    assert (FailureKind.THROTTLED, "rate_limit_exceeded") == (failure.kind, failure.code)
    assert failure.message.startswith("the input \\ud800 ")
    assert failure.message.encode()  # what is left is text
