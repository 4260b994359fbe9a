"""
Groups arrive as they stand in the files, cut alike in every run, and only where some are missing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.config.schema import SourceTable
from batchrank.domain import Group, Positions, SourceBatch
from batchrank.errors import ChangedError
from batchrank.source import ParquetSource, open_source
from batchrank.source.batch import Batch
from batchrank.source.fitting import fit
from tests import shared
from tests.laws import law

# --- the law: what comes out is what a naive reader finds -----------------------------------------

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["", " ", "\n\t", "ẞ" * 99]
)
IDS = st.text(st.characters(codec="utf-8"), max_size=4)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
STRING_TYPES = (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()))
LISTS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, Any]]:
    """
    A table of groups in any of Arrow's types, and the settings that map it.
    """
    string = st.sampled_from(STRING_TYPES)
    lists = draw(st.sampled_from(LISTS))
    id_type, ids = draw(st.sampled_from([(pa.string(), IDS), (pa.int64(), NUMBERS)]))
    structs = draw(st.booleans())
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        query = draw(st.none() | TEXTS)
        texts = draw(st.none() | st.lists(st.none() | TEXTS, max_size=5))
        row: dict[str, Any] = {"query_id": draw(ids), "query": query}
        held = texts if texts is None else [draw(ids) for _ in texts]
        if structs:
            row["documents"] = texts and [
                {"other": "x", "text": text, "id": doc_id}
                for text, doc_id in zip(texts, held or (), strict=True)
            ]
        else:
            row |= {"documents": texts, "ids": held}
        rows.append(row)
    # No dictionaries in lists: pyarrow 26 loses row groups in which such a list has no element.
    text_type = draw(st.sampled_from(STRING_TYPES[:2]))
    element = text_type
    if structs:
        required = pa.field("id", id_type, nullable=draw(st.booleans()))
        element = pa.struct([("other", pa.string()), ("text", text_type), required])
    fields = [("query_id", id_type), ("query", draw(string)), ("documents", lists(element))]
    if not structs:
        fields.append(("ids", draw(st.sampled_from(LISTS))(id_type)))
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    return table, {"query_id": "query_id", "doc_id": "id" if structs else "ids"}


def expected(table: pa.Table) -> list[Group]:
    """
    What a reader finds that takes its time.
    """
    found = []
    for position, row in enumerate(table.to_pylist()):
        held = [d["text"] if isinstance(d, dict) else d for d in row["documents"] or ()]
        documents = tuple(text if text and text.strip() else None for text in held)
        found.append(Group(position, row["query_id"], row["query"] or "", documents))
    return found


@contextmanager
def written(table: pa.Table, mapping: dict[str, Any], **options: Any) -> Iterator[ParquetSource]:
    """
    The source of one file.
    """
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder, "a.parquet"), **options)
        yield open_source(SourceTable(path="a.parquet", **mapping), Path(folder))


def groups(source: ParquetSource, done: Positions | None = None) -> list[Group]:
    """
    The groups of every batch.
    """
    batches = source.batches(done or Positions(source.total), source.total)
    return [group for batch in batches for group in groups_of(batch)]


def groups_of(batch: SourceBatch) -> list[Group]:
    """
    The groups of one batch.
    """
    return [batch.group(p) for p in range(batch.position, batch.position + batch.rows)]


@law(50)
@given(
    tables(),
    st.integers(1, 12),
    st.sampled_from(["none", "snappy", "zstd"]),
    st.sampled_from(["1.0", "2.0"]),
    st.booleans(),
)
def test_any_table_reads_as_a_naive_reader_reads_it(
    table_and_mapping: tuple[pa.Table, dict[str, Any]],
    row_group_size: int,
    compression: str,
    data_page_version: str,
    use_dictionary: bool,
) -> None:
    """
    Whatever its types, nulls, row groups, pages and encodings are.
    """
    table, mapping = table_and_mapping
    options = {
        "row_group_size": row_group_size,
        "compression": compression,
        "data_page_version": data_page_version,
        "use_dictionary": use_dictionary,
        "data_page_size": 20,
        "write_page_checksum": use_dictionary,
    }
    with written(table, mapping, **options) as source:
        assert table.num_rows == source.total
        assert expected(table) == groups(source)


@law(40)
@given(tables(), st.integers(1, 12), st.integers(0, 4), st.data())
def test_groups_that_are_longer_are_found_without_their_texts(
    table_and_mapping: tuple[pa.Table, dict[str, Any]],
    row_group_size: int,
    count: int,
    data: st.DataObject,
) -> None:
    """
    Those below stop that are not done, whatever the lists are.
    """
    table, mapping = table_and_mapping
    done = data.draw(st.sets(st.integers(0, max(0, table.num_rows - 1))))
    stop = data.draw(st.integers(0, table.num_rows))
    with written(table, mapping, row_group_size=row_group_size) as source:
        held = [len(group.documents) for group in expected(table)]
        skipped = Positions(source.total, done) if source.total else Positions(0)
        longer = list(source.longer(count, skipped, stop))

    assert [n for n, has in enumerate(held[:stop]) if has > count and n not in done] == longer


def test_of_long_texts_nothing_is_decoded_to_count_them(tmp_path: Path) -> None:
    """
    The pages of the texts may be damaged, as long as those of the ids beside them are not.
    """
    texts = [[{"id": f"{n}-{i}", "text": "x" * 2_000} for i in range(n)] for n in range(5)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"query": ["q"] * 5, "documents": texts}), path, compression="none",
        use_dictionary=False,
    )  # fmt: skip
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"x" * 2_000, b"y" * 2_000))  # the checksums are of before
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    assert [3, 4] == list(source.longer(2, Positions(5), 5))


@law(40)
@given(tables(), st.integers(0, 5), st.integers(0, 5))
def test_rows_are_right_wherever_their_arrays_begin(
    table_and_mapping: tuple[pa.Table, dict[str, Any]], start: int, cut: int
) -> None:
    """
    A batch that is a slice of another has offsets that do not begin at zero.
    """
    table, mapping = table_and_mapping
    part = table.combine_chunks().slice(start, max(0, table.num_rows - start - cut))
    batch = part.to_batches()[0] if part.num_rows else None
    columns = fit(table.schema, SourceTable(path="x", **mapping), "x")

    if batch is not None:
        wanted = [group.documents for group in expected(part)]
        assert wanted == [group.documents for group in groups_of(Batch(100, columns, batch))]


def test_lists_of_dictionaries_are_lists_of_strings(tmp_path: Path) -> None:
    """
    As pandas writes categories.
    """
    rows = [["a", "b"], None, ["a", None], []]
    documents = pa.array(rows, pa.list_(pa.dictionary(pa.int32(), pa.string())))
    pq.write_table(pa.table({"query": ["x"] * 4, "documents": documents}), tmp_path / "a.parquet")
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    assert [("a", "b"), (), ("a", None), ()] == [group.documents for group in groups(source)]


def test_fixed_size_lists_are_lists(tmp_path: Path) -> None:
    """
    Each group has as many candidates, or none where the list is null.
    """
    rows = [["a", "b"], None, ["c", None]]
    table = pa.table({"query": ["x"] * 3, "documents": pa.array(rows, pa.list_(pa.string(), 2))})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    assert [("a", "b"), (), ("c", None)] == [group.documents for group in groups(source)]


def test_without_an_id_column_the_position_is_the_id(tmp_path: Path) -> None:
    """
    Over all files of the source.
    """
    for name, texts in (("b", ["2"]), ("a", ["0", "1"]), ("c", []), ("d", ["3"])):
        table = pa.table(
            {"query": texts, "documents": pa.array([[t] for t in texts], pa.list_(pa.string()))},
            schema=pa.schema([("query", pa.string()), ("documents", pa.list_(pa.string()))]),
        )
        pq.write_table(table, tmp_path / f"{name}.parquet")
    source = open_source(SourceTable(path="*.parquet"), tmp_path)

    found = [(g.position, g.query_id, g.query, g.documents) for g in groups(source)]

    assert [(n, n, str(n), (str(n),)) for n in range(4)] == found
    assert [2, 1, 0, 1] == [file.rows for file in source.files]


def test_a_file_without_rows_may_have_any_types(tmp_path: Path) -> None:
    """
    Among others that have them.
    """
    pq.write_table(pa.table({"query": [], "documents": []}), tmp_path / "a.parquet")
    pq.write_table(many(2), tmp_path / "b.parquet")
    source = open_source(SourceTable(path="."), tmp_path)

    assert ["q0", "q1"] == [group.query for group in groups(source)]


# --- where batches are cut ------------------------------------------------------------------------


def many(rows: int, candidates: int = 2) -> pa.Table:
    """
    So many small groups.
    """
    documents = [[f"d{n}.{i}" for i in range(candidates)] for n in range(rows)]
    return pa.table({"query": [f"q{n}" for n in range(rows)], "documents": documents})


@pytest.fixture(scope="module")
def seven_hundred(tmp_path_factory: pytest.TempPathFactory) -> ParquetSource:
    """
    Two files of 350 groups in row groups of 300 and 50.
    """
    folder = tmp_path_factory.mktemp("source")
    for n, name in enumerate("ab"):
        part = many(700).slice(n * 350, 350)
        pq.write_table(part, folder / f"{name}.parquet", row_group_size=300)
    return open_source(SourceTable(path="."), folder)


CUTS = [(0, 256), (256, 44), (300, 50), (350, 256), (606, 44), (650, 50)]


@law(30)
@given(data=st.data())
def test_only_batches_with_something_to_do_are_yielded(
    seven_hundred: ParquetSource, data: st.DataObject
) -> None:
    """
    Whatever is done, the batches are those of the whole source that miss a position below stop.
    """
    done = Positions(700)
    for start, length in data.draw(st.lists(st.tuples(st.integers(0, 699), st.integers(0, 400)))):
        done.add_range(start, min(700, start + length))
    stop = data.draw(st.integers(0, 700))
    missing = set(done.missing(0, stop))

    found = list(seven_hundred.batches(done, stop))

    wanted = [cut for cut in CUTS if missing & set(range(cut[0], sum(cut)))]
    assert wanted == [(batch.position, batch.rows) for batch in found]
    assert all(f"q{p}" == b.group(p).query for b in found for p in (b.position,))


def test_a_batch_knows_only_its_own_groups(seven_hundred: ParquetSource) -> None:
    """
    A position outside is a bug, not a group.
    """
    batch = next(seven_hundred.batches(Positions(700), 700))

    for position in (-1, 256):
        with pytest.raises(IndexError):
            batch.group(position)


@pytest.mark.parametrize(
    ("candidates", "characters", "rows"),
    [
        pytest.param(2, 10, 256, id="small groups"),
        pytest.param(10, 10_000, 32, id="100 kB each"),
        pytest.param(1, 1_500_000, 2, id="1.5 MB each"),
        pytest.param(2, 5_000_000, 1, id="larger than a batch should be"),
    ],
)
@pytest.mark.parametrize("use_dictionary", [True, False], ids=["dictionary", "plain"])
def test_batches_are_smaller_where_groups_are_larger(
    tmp_path: Path, candidates: int, characters: int, rows: int, use_dictionary: bool
) -> None:
    """
    About 4 MiB at most, also where a dictionary holds a text once that all groups share.
    """
    count = 260 if rows == 256 else rows * 2 if rows > 1 else 3
    table = pa.table(
        {"query": ["q"] * count, "documents": [["x" * characters] * candidates] * count}
    )
    size = {"dictionary_pagesize_limit": 2**24, "data_page_size": 2**16}
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=use_dictionary, **size)
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    first = next(source.batches(Positions(count), count))

    assert rows == first.rows


def test_what_is_carried_does_not_move_the_cuts(tmp_path: Path) -> None:
    """
    A changed `carry` packs other columns of the same batches.
    """
    wide = many(300).append_column(
        "page", pa.array([chr(97 + n % 26) * 99_999 for n in range(300)])
    )
    pq.write_table(wide, tmp_path / "a.parquet")

    def cuts(*carry: str) -> list[tuple[int, int]]:
        source = open_source(SourceTable(path="a.parquet", carry=carry), tmp_path)
        return [(batch.position, batch.rows) for batch in source.batches(Positions(300), 300)]

    assert cuts() == cuts("page")


def test_batches_that_pyarrow_cuts_itself_are_joined(tmp_path: Path) -> None:
    """
    A dictionary column comes in chunks of its own; the cuts are still those of the footer.
    """
    names = [f"market {n}" * 20 for n in range(2_000)]
    column = pa.array(names).dictionary_encode()
    table = many(2_000, 1).append_column("market", column)
    options = {"dictionary_pagesize_limit": 1024, "data_page_size": 512}
    pq.write_table(table, tmp_path / "a.parquet", **options)
    source = open_source(SourceTable(path="a.parquet", carry=("market",)), tmp_path)

    found = list(source.batches(Positions(2_000), 2_000))

    assert [256] * 7 + [208] == [batch.rows for batch in found]
    assert [f"q{n}" for n in range(2_000)] == [g.query for b in found for g in groups_of(b)]


# --- what is opened -------------------------------------------------------------------------------


def test_row_groups_that_are_done_are_not_opened(tmp_path: Path) -> None:
    """
    Bytes of a row group in which nothing is missing may be anything.
    """
    path = tmp_path / "a.parquet"
    pq.write_table(many(300), path, row_group_size=100)
    source = open_source(SourceTable(path="a.parquet"), tmp_path)
    second = pq.read_metadata(path).row_group(1).column(0)
    start = second.dictionary_page_offset
    body = bytearray(path.read_bytes())
    body[start : start + 500] = b"\xff" * 500
    path.write_bytes(body)
    done = Positions(300)
    done.add_range(100, 200)

    assert [0, 200] == [batch.position for batch in source.batches(done, 300)]


def test_decoding_stops_behind_the_last_group_that_is_missing(tmp_path: Path) -> None:
    """
    What comes after it in its row group may be anything.
    """
    path = tmp_path / "a.parquet"
    pq.write_table(many(3_000), path, use_dictionary=False, data_page_size=1_000)
    source = open_source(SourceTable(path="a.parquet"), tmp_path)
    first = pq.read_metadata(path).row_group(0).column(0)
    end = first.data_page_offset + first.total_compressed_size
    body = bytearray(path.read_bytes())
    body[end - 3_000 : end] = b"\xff" * 3_000
    path.write_bytes(body)
    done = Positions(3_000)
    done.add_range(700, 3_000)

    assert [0, 256, 512] == [batch.position for batch in source.batches(done, 3_000)]


def test_nothing_is_opened_when_all_is_done(tmp_path: Path) -> None:
    """
    Not even the file needs to be there.
    """
    pq.write_table(many(10), tmp_path / "a.parquet")
    source = open_source(SourceTable(path="a.parquet"), tmp_path)
    (tmp_path / "a.parquet").unlink()
    done = Positions(10)
    done.add_range(0, 10)

    assert [] == list(source.batches(done, 10))
    assert [] == list(source.batches(Positions(10), 0))


def test_a_file_that_changes_while_it_is_read_stops_the_job(tmp_path: Path) -> None:
    """
    Positions were counted by the footer that is gone.
    """
    pq.write_table(many(10), tmp_path / "a.parquet")
    source = open_source(SourceTable(path="a.parquet"), tmp_path)
    pq.write_table(many(11), tmp_path / "a.parquet")

    with pytest.raises(ChangedError, match=r"a\.parquet was changed"):
        next(source.batches(Positions(10), 10))


def test_closing_the_iterator_closes_the_file(tmp_path: Path) -> None:
    """
    A job that stops in the middle leaves no file open.
    """
    pq.write_table(many(600), tmp_path / "a.parquet")
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    def held() -> list[str]:
        return [file.path for file in psutil.Process().open_files() if "a.parquet" in file.path]

    batches = source.batches(Positions(600), 600)
    next(batches)
    while_reading = held()
    batches.close()

    assert 1 == len(while_reading)
    assert [] == held()


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param([], id="no files"),
        pytest.param([many(1).slice(0, 0)], id="a file without rows"),
        pytest.param([pa.table({"query": [], "documents": []})], id="not even types"),
    ],
)
def test_a_source_without_groups_is_a_source(tmp_path: Path, tables: list[pa.Table]) -> None:
    """
    A day without queries: no batches, and nothing wrong.
    """
    (tmp_path / "_SUCCESS").touch()
    for n, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{n}.parquet")
    source = open_source(SourceTable(path=".", require_success=True), tmp_path)

    assert (len(tables), 0) == (len(source.files), source.total)
    assert [] == list(source.batches(Positions(0), 0))
    assert [] == list(source.carried_batches(0))
    assert 0 == source.profile(1.0).groups


def test_identity_is_path_size_and_footer(tmp_path: Path) -> None:
    """
    The same bytes written later are the same file; other bytes are another.
    """
    path = tmp_path / "a.parquet"
    pq.write_table(many(100), path, row_group_size=60)
    (before,) = open_source(SourceTable(path="a.parquet"), tmp_path).files
    os.utime(path, (1, 1))
    (later,) = open_source(SourceTable(path="a.parquet"), tmp_path).files
    pq.write_table(many(100), path, row_group_size=50)
    (other,) = open_source(SourceTable(path="a.parquet"), tmp_path).files

    assert before == later
    assert ("a.parquet", path.stat().st_size, (50, 50)) == (
        other.path,
        other.size_bytes,
        other.row_groups,
    )
    assert (60, 40) == before.row_groups
    assert other.footer_sha256 != before.footer_sha256


# --- real files -----------------------------------------------------------------------------------


def test_scifact_reads_as_a_naive_reader_reads_it() -> None:
    """
    300 queries with 100 candidates each, as they come from a retriever.
    """
    folder = shared.data("scifact")
    mapping = SourceTable(path="groups_test.parquet", query_id="query_id", doc_id="id")
    source = open_source(mapping, folder)

    assert expected(pq.read_table(folder / "groups_test.parquet")) == groups(source)
    assert (100, 100, 100) == source.files[0].row_groups


@pytest.mark.parametrize("writer", ["polars", "duckdb"])
def test_files_of_other_writers_are_read(tmp_path: Path, writer: str) -> None:
    """
    Polars writes large strings and lists, DuckDB no Arrow schema at all.
    """
    rows = [
        {"query": "é", "documents": [{"id": 1, "text": "a"}, {"id": 2, "text": None}]},
        {"query": None, "documents": []},
        {"query": "c", "documents": None},
    ]
    table = pa.Table.from_pylist(rows)
    if writer == "polars":
        polars.DataFrame(rows).write_parquet(tmp_path / "a.parquet")
    else:
        duckdb.from_arrow(table).write_parquet(str(tmp_path / "a.parquet"))
    source = open_source(SourceTable(path="a.parquet", doc_id="id"), tmp_path)

    found = [(group.query, group.documents) for group in groups(source)]

    assert [("é", ("a", None)), ("", ()), ("c", ())] == found


# --- memory ---------------------------------------------------------------------------------------


def arrow_bytes_max(source: ParquetSource) -> int:
    """
    The most that Arrow held while all batches were read.
    """
    before, pool = pa.default_memory_pool(), pa.system_memory_pool()
    pa.set_memory_pool(pool)  # nobody else uses this one, so that its maximum is ours
    try:
        for batch in source.batches(Positions(source.total), source.total):
            groups_of(batch)
            assert batch.carried
    finally:
        pa.set_memory_pool(before)
    return int(pool.max_memory())


@pytest.mark.parametrize(
    ("groups_count", "candidates", "characters", "use_dictionary"),
    [
        pytest.param(12_000, 10, 400, False, id="48 MB of texts in one row group"),
        pytest.param(1_000, 4, 50_000, True, id="200 MB that a dictionary holds in 50 kB"),
    ],
)
def test_memory_is_one_batch_whatever_the_row_groups(
    tmp_path: Path, groups_count: int, candidates: int, characters: int, use_dictionary: bool
) -> None:
    """
    About two batches of 4 MiB and some pages, out of row groups that are many times larger.
    """
    table = pa.table(
        {
            "query": ["q"] * groups_count,
            "documents": [["x" * characters] * candidates] * groups_count,
        }
    )
    options = {"use_dictionary": use_dictionary, "compression": "none"}
    pq.write_table(table, tmp_path / "a.parquet", **options)
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    assert 1 << 20 < arrow_bytes_max(source) < 32 << 20
