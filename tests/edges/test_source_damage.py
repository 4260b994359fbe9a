"""
Damage is found where it lies: before it everything is read, and it is named by file and row group.
"""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchrank.config.schema import SourceTable
from batchrank.domain import Positions
from batchrank.errors import SourceError
from batchrank.source import open_source
from batchrank.source.reading import opened

COMPRESSIONS = ["none", "snappy", "zstd"]


def write(path: Path, **options: object) -> None:
    """
    Write three row groups of 100 groups.
    """
    documents = [[{"text": f"text {n} {i}" * 9, "n": i} for i in range(3)] for n in range(300)]
    table = pa.table({"query": [f"q{n}" for n in range(300)], "documents": documents})
    pq.write_table(table, path, row_group_size=100, data_page_size=1000, **options)


def damage(path: Path, row_group: int, *, column: int = 1) -> None:
    """
    Overwrite the middle third of a column chunk, headers of pages and all.
    """
    chunk = pq.read_metadata(path).row_group(row_group).column(column)
    length = chunk.total_compressed_size // 3
    start = chunk.data_page_offset + length
    body = bytearray(path.read_bytes())
    body[start : start + length] = b"\xff" * length
    path.write_bytes(body)


def positions_read(base: Path) -> tuple[list[int], SourceError | None]:
    """
    The positions of all groups that arrive, and how it ends.
    """
    source = open_source(SourceTable(path=".", carry=("documents.n",)), base)
    found: list[int] = []
    try:
        for batch in source.batches(Positions(source.total), source.total):
            found += [batch.group(batch.position + n).position for n in range(batch.rows)]
            assert batch.carried
    except SourceError as error:
        return found, error
    return found, None


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("checksums", [True, False], ids=["checksums", "no checksums"])
def test_a_damaged_page_is_named(tmp_path: Path, compression: str, checksums: bool) -> None:
    """
    The row groups before it have arrived; the hint tells how to go on.
    """
    path = tmp_path / "a.parquet"
    write(path, compression=compression, write_page_checksum=checksums, use_dictionary=False)
    damage(path, 1)

    found, error = positions_read(tmp_path)

    assert error is not None
    assert list(range(100)) == found
    assert "a.parquet: row group 1 (counted from 0) cannot be decoded: " in error.message
    assert "mend the file and run again with --accept a.parquet" == error.hint


def test_a_checksum_finds_what_nothing_else_would(tmp_path: Path) -> None:
    """
    One letter of an uncompressed text: without a checksum it is another text, with one damage.
    """
    path = tmp_path / "a.parquet"
    ends = []
    for checksums in (True, False):
        write(path, compression="none", write_page_checksum=checksums, use_dictionary=False)
        body = path.read_bytes()
        assert 9 == body.count(b"text 150 1")
        path.write_bytes(body.replace(b"text 150 1", b"test 150 1"))
        ends.append(positions_read(tmp_path))

    assert [100, 300] == [len(found) for found, _ in ends]
    assert "CRC" in str(ends[0][1])
    assert ends[1][1] is None


def test_damage_in_columns_that_are_not_read_hurts_nobody(tmp_path: Path) -> None:
    """
    Only what is mapped or carried is decoded.
    """
    path = tmp_path / "a.parquet"
    write(path, write_page_checksum=True)
    damage(path, 1, column=2)
    source = open_source(SourceTable(path="a.parquet"), tmp_path)

    assert 3 == len(list(source.batches(Positions(300), 300)))


def test_carried_batches_name_damage_too(tmp_path: Path) -> None:
    """
    In the columns that they read.
    """
    path = tmp_path / "a.parquet"
    write(path, write_page_checksum=True)
    damage(path, 2, column=2)
    source = open_source(SourceTable(path="a.parquet", carry=("documents.n",)), tmp_path)
    blocks = source.carried_batches(300)

    assert [0, 100] == [next(blocks)[0], next(blocks)[0]]
    with pytest.raises(SourceError, match="row group 2"):
        next(blocks)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "its 0 bytes do not end in a footer", id="empty"),
        pytest.param(b"PAR1", "its 4 bytes", id="only the first letters"),
        pytest.param(b"query,documents\n" * 9, "do not end in a footer", id="CSV"),
        pytest.param(
            b"PAR1" + b"\xff" * 20 + b"\x10\0\0\0PAR1",
            "cannot be opened as Parquet: its footer is damaged, or it is no Parquet file\n"
            "  → write the file anew",
            id="nonsense",
        ),
        pytest.param(b"PAR1" + b"\xff" * 20 + b"\xff\xff\0\0PAR1", "footer", id="a length too far"),
    ],
)
def test_what_is_no_parquet_file_is_named(tmp_path: Path, body: bytes, words: str) -> None:
    """
    At once, although the other files are sound.
    """
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(body)

    with pytest.raises(SourceError, match=r"b\.parquet") as raised:
        open_source(SourceTable(path="."), tmp_path)

    assert words in str(raised.value)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path: Path) -> None:
    """
    The disk says why; what stands in it is not known.
    """
    with (
        pytest.raises(SourceError, match=r"^a\.parquet cannot be opened: No such file") as raised,
        opened(tmp_path / "nowhere", "a.parquet"),
    ):
        pass

    assert "look whether it is there" in raised.value.hint


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    """
    Its footer stood at its end.
    """
    write(tmp_path / "a.parquet")
    body = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(body[: len(body) // 2])

    with pytest.raises(SourceError, match=r"a\.parquet is not a Parquet file"):
        open_source(SourceTable(path="."), tmp_path)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("checksums", [True, False], ids=["checksums", "no checksums"])
def test_random_damage_is_damage_or_a_flaw_and_never_a_bug(
    tmp_path: Path, compression: str, checksums: bool
) -> None:
    """
    Whatever bytes change, each group arrives in its place or a SourceError ends the reading.
    """
    path = tmp_path / "a.parquet"
    chance = random.Random(f"{compression} {checksums}")
    write(path, compression=compression, write_page_checksum=checksums)
    sound = path.read_bytes()
    for _ in range(25):
        body = bytearray(sound)
        for _ in range(chance.choice([1, 3, 30])):
            body[chance.randrange(len(body))] = chance.randrange(256)
        path.write_bytes(body)
        try:
            found, _ = positions_read(tmp_path)
        except SourceError:
            continue

        assert list(range(len(found))) == found
