"""
A block holds ids and carried columns of a batch, always in one schema.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import SourceTable
from batchrank.domain import Positions
from batchrank.policy.digest import content_of
from batchrank.source import ParquetSource, open_source

DOCUMENT = pa.struct(
    [
        ("id", pa.large_string()),
        ("text", pa.string()),
        ("price", pa.float32()),
        ("brand", pa.dictionary(pa.int8(), pa.string())),
    ]
)
SCHEMA = pa.schema(
    [
        ("query_id", pa.int16()),
        ("query", pa.string()),
        ("documents", pa.large_list(DOCUMENT)),
        ("market", pa.dictionary(pa.int32(), pa.string())),
        ("day", pa.date32()),
        ("tags", pa.list_view(pa.large_string())),
    ]
)
ROWS: list[dict[str, Any]] = [
    {
        "query_id": 7,
        "query": "a",
        "documents": [
            {"id": "x", "text": "1", "price": 1.5, "brand": "b"},
            {"id": "y", "text": None, "price": None, "brand": None},
            None,
        ],
        "market": "de",
        "day": date(2026, 11, 20),
        "tags": ["s", None],
    },
    {"query_id": 8, "query": "b", "documents": None, "market": None, "day": None, "tags": None},
    {"query_id": 9, "query": "c", "documents": [], "market": "fr", "day": None, "tags": []},
]
MAPPING: dict[str, Any] = {"query_id": "query_id", "doc_id": "id"}
CARRY = ("market", "documents.price", "tags", "day", "documents.brand")


def source_of(base: Path, table: pa.Table, **settings: Any) -> ParquetSource:
    """
    The source of one file.
    """
    pq.write_table(table, base / "a.parquet", row_group_size=settings.pop("row_group_size", 1000))
    return open_source(SourceTable(path="a.parquet", **settings), base)


def unpacked(block: bytes) -> pa.RecordBatch:
    """
    The one record batch of a block.
    """
    with pa.ipc.open_stream(block) as stream:
        batch = stream.read_next_batch()
        assert [] == list(stream)
    batch.validate(full=True)
    return batch


def blocks(source: ParquetSource) -> list[tuple[int, int, bytes]]:
    """
    Position, rows and block of each batch.
    """
    batches = source.batches(Positions(source.total), source.total)
    return [(batch.position, batch.rows, batch.carried) for batch in batches]


def test_a_block_holds_ids_and_what_is_carried(tmp_path: Path) -> None:
    """
    Plain types, one list element a candidate, and an empty list where the documents are null.
    """
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    source = source_of(tmp_path, table, carry=CARRY, **MAPPING)

    block = unpacked(blocks(source)[0][2])

    assert {
        "query_id": pa.int64(),
        "documents": pa.int32(),
        "doc_id": pa.list_(pa.string()),
        "g:market": pa.string(),
        "g:tags": pa.list_(pa.string()),
        "g:day": pa.date32(),
        "c:price": pa.list_(pa.float32()),
        "c:brand": pa.list_(pa.string()),
        "content": pa.binary(16),
    } == {field.name: field.type for field in block.schema}
    assert {
        "query_id": [7, 8, 9],
        "documents": [3, 0, 0],
        "doc_id": [["x", "y", None], [], []],
        "g:market": ["de", None, "fr"],
        "g:tags": [["s", None], None, []],
        "g:day": [date(2026, 11, 20), None, None],
        "c:price": [[1.5, None, None], [], []],
        "c:brand": [["b", None, None], [], []],
        "content": [content_of("a", ["1", None, None]), None, None],
    } == block.to_pydict()


def test_without_ids_a_block_holds_positions(tmp_path: Path) -> None:
    """
    And no doc_id at all.
    """
    table = pa.Table.from_pylist(ROWS, schema=SCHEMA)
    source = source_of(tmp_path, table, row_group_size=2)

    found = [unpacked(block).to_pydict() for _, _, block in blocks(source)]

    key = content_of("a", ["1", None, None])
    assert [
        {"query_id": [0, 1], "documents": [3, 0], "content": [key, None]},
        {"query_id": [2], "documents": [0], "content": [None]},
    ] == found


@pytest.mark.parametrize(
    ("ids", "carried"),
    [
        pytest.param([["p", "q", "r"], ["s"]], [["p", "q"], ["s", None]], id="many and few"),
        pytest.param([None, ["s", "t"]], [[None, None], ["s", "t"]], id="null"),
        pytest.param([["p", "q"], ["s", "t"]], [["p", "q"], ["s", "t"]], id="as many"),
    ],
)
def test_lists_of_ids_are_made_to_fit(tmp_path: Path, ids: list[Any], carried: list[Any]) -> None:
    """
    Who joins by place must never be a place off because another group is flawed.
    """
    table = pa.table({"query": ["a", "b"], "documents": [["1", "2"], ["3", "4"]], "ids": ids})
    source = source_of(tmp_path, table, doc_id="ids")

    block = unpacked(blocks(source)[0][2])

    assert carried == block.column("doc_id").to_pylist()
    assert [2, 2] == block.column("documents").to_pylist()


def test_all_blocks_of_a_source_have_one_schema(tmp_path: Path) -> None:
    """
    Also where files hold strings and lists in other ways, and a row group holds only nulls.
    """
    plain = pa.schema(
        [
            ("query_id", pa.int64()),
            ("query", pa.string()),
            (
                "documents",
                pa.list_(
                    pa.struct(
                        [
                            ("id", pa.string()),
                            ("text", pa.string()),
                            pa.field("price", pa.float32()),
                            ("brand", pa.string()),
                        ]
                    )
                ),
            ),
            ("market", pa.string()),
            ("day", pa.date32()),
            ("tags", pa.list_(pa.string())),
        ]
    )
    ints = SCHEMA.set(0, pa.field("query_id", pa.int64()))
    pq.write_table(pa.Table.from_pylist(ROWS, schema=ints), tmp_path / "a.parquet")
    table = pa.Table.from_pylist(ROWS, schema=plain).replace_schema_metadata({"who": "else"})
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=1)
    source = open_source(SourceTable(path=".", carry=CARRY, **MAPPING), tmp_path)

    found = [unpacked(block) for _, _, block in blocks(source)]

    assert 4 == len(found)
    assert 1 == len({block.schema.to_string() for block in found})
    assert found[0].to_pydict() == pa.Table.from_batches(found[1:]).to_pydict()


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(MAPPING | {"carry": CARRY}, id="ids and carried columns"),
        pytest.param({"carry": ("market",)}, id="no field is needed but for counting"),
        pytest.param({}, id="nothing is carried"),
    ],
)
def test_carried_batches_are_the_same_blocks(tmp_path: Path, settings: dict[str, Any]) -> None:
    """
    Byte for byte, cut at the same places, whatever is carried.
    """
    table = pa.concat_tables([pa.Table.from_pylist(ROWS, schema=SCHEMA)] * 200)
    source = source_of(tmp_path, table, row_group_size=400, **settings)

    whole = blocks(source)

    assert [(0, 256), (256, 144), (400, 200)] == [block[:2] for block in whole]
    assert whole == list(source.carried_batches(600))
    assert whole[:2] == list(source.carried_batches(257))


def test_carried_batches_of_strings_are_the_same_blocks(tmp_path: Path) -> None:
    """
    Their ids stand in a list beside them.
    """
    rows = [["1", "2"], None, []] * 100
    ids = [[1, 2], None, [3]] * 100
    table = pa.table({"query": ["q"] * 300, "documents": rows, "ids": ids})
    source = source_of(tmp_path, table, doc_id="ids")

    assert blocks(source) == list(source.carried_batches(300))


def test_the_same_batch_makes_the_same_bytes(tmp_path: Path) -> None:
    """
    A second run stores nothing else than the first.
    """
    source = source_of(tmp_path, pa.Table.from_pylist(ROWS, schema=SCHEMA), carry=CARRY, **MAPPING)

    assert blocks(source) == blocks(source)
