"""
A row that cannot be asked spoils nobody else's: its group has a flaw, the others are fine.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import SourceTable
from batchrank.domain import Group, Positions
from batchrank.source import open_source
from batchrank.source.carried import plainly, sound

BROKEN = b"br\xffken"


def strings(values: Sequence[bytes | str | None]) -> pa.StringArray:
    """
    A string column of any bytes: pyarrow itself would refuse what is not UTF-8.
    """
    raw = [value.encode() if isinstance(value, str) else value or b"" for value in values]
    ends = [0]
    for value in raw:
        ends.append(ends[-1] + len(value))
    offsets = pa.py_buffer(struct.pack(f"<{len(ends)}i", *ends))
    valid = pa.array([value is not None for value in values]).buffers()[1]
    buffers = [valid, offsets, pa.py_buffer(b"".join(raw))]
    return pa.StringArray.from_buffers(len(raw), buffers[1], buffers[2], buffers[0])


def read(base: Path, columns: dict[str, pa.Array], **settings: Any) -> list[Group]:
    """
    Write three groups and read them.
    """
    pq.write_table(pa.table(columns), base / "a.parquet")
    source = open_source(SourceTable(path="a.parquet", **settings), base)
    (batch,) = source.batches(Positions(source.total), source.total)
    found = [batch.group(position) for position in range(3)]
    with pa.ipc.open_stream(batch.carried) as stream:
        stream.read_next_batch().validate(full=True)
    return found


def lists(values: pa.Array, counts: Sequence[int] = (1, 2, 1)) -> pa.ListArray:
    """
    Three lists.
    """
    ends = [sum(counts[:n]) for n in range(4)]
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


QUERIES = strings(["a", "b", "c"])
TEXTS = lists(strings(["1", "2", "3", "4"]))


def structs(**fields: pa.Array) -> pa.ListArray:
    """
    Three lists of structs.
    """
    return lists(pa.StructArray.from_arrays(list(fields.values()), names=list(fields)))


@pytest.mark.parametrize(
    ("columns", "settings", "flaw"),
    [
        pytest.param(
            {"query": strings(["a", BROKEN, "c"]), "documents": TEXTS},
            {},
            "query is not UTF-8",
            id="a query that is not UTF-8",
        ),
        pytest.param(
            {"query": QUERIES, "documents": lists(strings(["1", "2", BROKEN, "4"]))},
            {},
            "documents at index 1 is not UTF-8",
            id="a document that is not UTF-8",
        ),
        pytest.param(
            {"query": QUERIES, "documents": lists(strings(["1", " ", b"\xc0\xa0", "4"]))},
            {},
            "documents at index 1 is not UTF-8",
            id="a space that is written in two bytes",
        ),
        pytest.param(
            {"query": QUERIES, "documents": structs(text=strings(["1", "2", BROKEN, "4"]))},
            {},
            "text at index 1 is not UTF-8",
            id="a field taken as it is that is not UTF-8",
        ),
        pytest.param(
            {"query": QUERIES, "documents": structs(text=strings(["1", "2", BROKEN, "4"]))},
            {"template": "{text}!"},
            "text at index 1 is not UTF-8",
            id="a field that is not UTF-8",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "id": strings(["x", BROKEN, "z"])},
            {"query_id": "id"},
            "id holds text that is not UTF-8",
            id="a query_id that is not UTF-8",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "id": strings(["x", None, "z"])},
            {"query_id": "id"},
            "id is null",
            id="no query_id",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "id": pa.array([1, None, 3], pa.int16())},
            {"query_id": "id"},
            "id is null",
            id="no query_id that is a number",
        ),
        pytest.param(
            {
                "query": QUERIES,
                "documents": structs(
                    text=strings(["1", "2", "3", "4"]), id=strings(["p", BROKEN, "r", "s"])
                ),
            },
            {"doc_id": "id"},
            "id holds text that is not UTF-8",
            id="a doc_id that is not UTF-8",
        ),
        pytest.param(
            {
                "query": QUERIES,
                "documents": structs(
                    text=strings(["1", "2", "3", "4"]), id=pa.array([1, 2, None, 4])
                ),
            },
            {"doc_id": "id"},
            "the document at index 1 has no id",
            id="a document without an id",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "ids": lists(strings("pqrst"), (1, 3, 1))},
            {"doc_id": "ids"},
            "ids has 3 ids for 2 documents",
            id="too many ids",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "ids": lists(strings("pqr"), (1, 1, 1))},
            {"doc_id": "ids"},
            "ids has 1 ids for 2 documents",
            id="too few ids",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "ids": pa.array([["p"], None, ["s"]])},
            {"doc_id": "ids"},
            "ids has 0 ids for 2 documents",
            id="no ids at all",
        ),
        pytest.param(
            {"query": QUERIES, "documents": TEXTS, "market": strings(["x", BROKEN, "z"])},
            {"carry": ("market",)},
            "market holds text that is not UTF-8",
            id="a carried column that is not UTF-8",
        ),
        pytest.param(
            {
                "query": QUERIES,
                "documents": TEXTS,
                "tags": lists(strings(["1", "2", BROKEN, "4"])),
            },
            {"carry": ("tags",)},
            "tags holds text that is not UTF-8",
            id="a carried list that is not UTF-8",
        ),
        pytest.param(
            {
                "query": QUERIES,
                "documents": structs(
                    text=strings(["1", "2", "3", "4"]), brand=strings(["p", "q", BROKEN, "s"])
                ),
            },
            {"carry": ("documents.brand",)},
            "brand holds text that is not UTF-8",
            id="a carried field that is not UTF-8",
        ),
    ],
)
def test_a_flaw_stays_in_its_group(
    tmp_path: Path, columns: dict[str, pa.Array], settings: dict[str, Any], flaw: str
) -> None:
    """
    The second group is flawed and keeps its number of candidates; its neighbours are whole.
    """
    first, second, third = read(tmp_path, columns, **settings)

    assert flaw == second.flaw
    assert (None, None) == second.documents
    assert [None, None] == [first.flaw, third.flaw]
    assert ["a", "c"] == [first.query, third.query]
    assert [("1",), ("4",)] == [
        tuple(str(text).rstrip("!") for text in group.documents) for group in (first, third)
    ]


@pytest.mark.parametrize(
    ("ids", "missing"),
    [
        pytest.param(strings(["x", None, "z"]), "", id="strings"),
        pytest.param(pa.array([1, None, 3], pa.int64()), -1, id="integers"),
    ],
)
def test_a_flawed_group_has_an_id_of_the_same_type(
    tmp_path: Path, ids: pa.Array, missing: str | int
) -> None:
    """
    Rejects are a table, and its columns have one type.
    """
    columns = {"query": QUERIES, "documents": TEXTS, "id": ids}

    groups = read(tmp_path, columns, query_id="id")

    assert missing == groups[1].query_id


@pytest.mark.parametrize("blank", [pytest.param(None, id="null"), pytest.param("", id="empty")])
def test_a_document_that_is_not_sent_needs_no_id(tmp_path: Path, blank: str | None) -> None:
    """
    Nothing will have to be joined to it.
    """
    documents = structs(text=strings(["1", "2", blank, "4"]), id=strings(["p", "q", None, "s"]))

    groups = read(tmp_path, {"query": QUERIES, "documents": documents}, doc_id="id")

    assert (None, ("2", None)) == (groups[1].flaw, groups[1].documents)


def test_null_is_no_flaw_where_nothing_is_lost(tmp_path: Path) -> None:
    """
    A query that is null is empty; a list that is null has no candidates.
    """
    columns = {
        "query": strings([None, "b", "c"]),
        "documents": pa.array([["1"], None, []], pa.list_(pa.string())),
        "ids": pa.array([["p"], None, None], pa.list_(pa.string())),
    }

    groups = read(tmp_path, columns, doc_id="ids")

    assert [None] * 3 == [group.flaw for group in groups]
    assert ["", "b", "c"] == [group.query for group in groups]
    assert [("1",), (), ()] == [group.documents for group in groups]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(pa.string(), id="string"),
        pytest.param(pa.large_string(), id="large string"),
        pytest.param(pa.string_view(), id="string view"),
        pytest.param(pa.dictionary(pa.int8(), pa.string()), id="dictionary"),
    ],
)
def test_only_the_broken_value_is_dropped(kind: pa.DataType) -> None:
    """
    However strings are held, what is sound stays and what is not becomes null.
    """
    array = strings(["a", BROKEN, None, "d"])
    array = array.dictionary_encode() if pa.types.is_dictionary(kind) else array.cast(kind)

    values, bad = sound(plainly(array))

    assert ([1], ["a", None, None, "d"]) == (bad, values.to_pylist())
