"""
What benchmarks work on: generated sources, job files, request bodies.

A source is a function of its shape alone. Texts are put together by Arrow from a pool of pieces, so
that a million groups take half a minute; every text begins with its own number, so that no two are
alike.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MODEL = "cohere/rerank-v3.5"
KEY = {"BENCH_KEY": "bench-key-0123456789"}
"""The environment that the job files name."""

WORDS = [f"{random.Random(n).getrandbits(40):x}"[:8] for n in range(5_000)]

POOL_BITS = 14
"""2^14 pieces of a text: more than a compressor sees at once, and so of no use to it."""

PIECES = 3
"""A text is so many pieces, behind its number."""

NUMBER_DIGITS = 10
FILE_GROUPS = 100_000
"""Groups of one file, and of its one row group, where a source has several."""

SCHEMA = pa.schema(
    [("query_id", pa.string()), ("query", pa.string()), ("documents", pa.list_(pa.string()))]
)


@dataclass(frozen=True, slots=True)
class Shape:
    """
    So many groups, candidates a group, characters a document.
    """

    groups: int
    candidates: int
    characters: int

    @property
    def name(self) -> str:
        """
        As tables say it.
        """
        return f"{self.groups:,} x {self.candidates} x {self.characters}"

    @property
    def of_group(self) -> str:
        """
        What one group is like.
        """
        return f"{self.candidates} x {self.characters}"


# --- sources --------------------------------------------------------------------------------------


def write_source(folder: Path, shape: Shape, row_group: int = FILE_GROUPS) -> None:
    """
    Write the files of a source of that shape, `FILE_GROUPS` each.
    """
    folder.mkdir(parents=True)
    for start in range(0, shape.groups, FILE_GROUPS):
        stop = min(start + FILE_GROUPS, shape.groups)
        path = folder / f"{start // FILE_GROUPS:03}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=False) as writer:
            for first in range(start, stop, row_group):
                rows = _rows(shape, first, min(first + row_group, stop))
                writer.write_table(rows, row_group_size=row_group)


def _rows(shape: Shape, start: int, stop: int) -> pa.Table:
    """
    The groups `start <= position < stop`.
    """
    each = shape.candidates
    texts = _texts(start * each, stop * each, shape.characters)
    starts = pa.array(range(0, len(texts) + 1, each), pa.int32())
    ids = [f"q{position:08}" for position in range(start, stop)]
    queries = _texts(start, stop, 60)
    documents = pa.ListArray.from_arrays(starts, texts)
    return pa.table([pa.array(ids), queries, documents], schema=SCHEMA)


def _texts(start: int, stop: int, characters: int) -> pa.Array:
    """
    The texts of the numbers `start <= n < stop`, each of so many characters.
    """
    numbers = pa.array(range(start, stop), pa.int64())
    digits = pc.utf8_lpad(pc.cast(numbers, pa.string()), NUMBER_DIGITS, "0")
    pool = _pool(characters // PIECES)
    parts = [pool.take(_chosen(numbers, salt)) for salt in range(PIECES)]
    joined = pc.binary_join_element_wise(digits, *parts, " ")
    return pc.utf8_slice_codeunits(joined, 0, characters)


def _chosen(numbers: pa.Array, salt: int) -> pa.Array:
    """
    A place in the pool for each number: multiplicative hashing, Knuth, TAOCP 3, 6.4.
    """
    mixed = pc.multiply(pc.add(pc.multiply(numbers, PIECES), salt), 2_654_435_769)
    return pc.shift_right(pc.bit_wise_and(mixed, 2**32 - 1), 32 - POOL_BITS)


@lru_cache(maxsize=4)
def _pool(characters: int) -> pa.Array:
    chance = random.Random(characters)
    words = characters // 9 + 1
    pieces = [" ".join(chance.choices(WORDS, k=words))[:characters] for _ in range(1 << POOL_BITS)]
    return pa.array(pieces, pa.string())


# --- what is asked --------------------------------------------------------------------------------


def groups(source: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """
    Query and documents of the first *count* groups.
    """
    left = count
    for path in sorted(source.glob("*.parquet")):
        batches = pq.ParquetFile(path).iter_batches(256, columns=["query", "documents"])
        for batch in batches:
            for row in batch.slice(0, left).to_pylist():
                yield row["query"], row["documents"]
            left -= min(left, batch.num_rows)
            if not left:
                return


def bodies(source: Path, count: int) -> list[bytes]:
    """
    The first *count* groups as request bodies, to the byte as the job sends them.
    """
    return [
        msgspec.json.encode({"model": MODEL, "query": query, "documents": documents})
        for query, documents in groups(source, count)
    ]


# --- job files ------------------------------------------------------------------------------------

Tables = Mapping[str, Mapping[str, object]]
"""Settings of a job file, by table."""


def limits(in_flight: int) -> Mapping[str, object]:
    """
    The table that lets a job have so many calls under way, and no other limit.
    """
    return {"concurrency": in_flight, "unlimited": True}


def write_job(folder: Path, source: Path, base_url: str, tables: Tables) -> Path:
    """
    Write a job file into *folder*: this source, this server, and what *tables* say besides.
    """
    whole: dict[str, dict[str, object]] = {
        "source": {"path": str(source), "query_id": "query_id"},
        "provider": {
            "name": "openrouter",
            "model": MODEL,
            "key_env": next(iter(KEY)),
            "base_url": base_url,
            # Nobody pays, so nobody is asked first, and no two seconds are spent on foreseeing it.
            "price.usd_per_search_unit": 0.0,
            "price.as_of": date(2026, 11, 20),
        },
        "output": {"path": "out"},
    }
    for name, table in tables.items():
        whole[name] = {**whole.get(name, {}), **table}
    job = folder / "job.toml"
    job.write_text("\n".join(_table(name, table) for name, table in whole.items()), "utf-8")
    return job


def _table(name: str, table: Mapping[str, object]) -> str:
    # A string, a number or a bool is the same in JSON and TOML; a date is one without quotes.
    texts = ((key, str(v) if isinstance(v, date) else json.dumps(v)) for key, v in table.items())
    lines = [f"{key} = {text}\n" for key, text in texts]
    return f"[{name}]\n{''.join(lines)}"


def main() -> None:
    """
    Write a source: `python -m tests.bench.material FOLDER GROUPS CANDIDATES CHARACTERS [ROW_GROUP]`
    """
    folder, *numbers = sys.argv[1:]
    groups, candidates, characters, *row_group = map(int, numbers)
    write_source(Path(folder), Shape(groups, candidates, characters), *row_group)


if __name__ == "__main__":
    main()
