"""
What benchmarks work on: generated sources, job files, request bodies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MODEL = "cohere/rerank-v3.5"
WORDS = [f"{random.Random(n).getrandbits(40):x}"[:8] for n in range(5_000)]


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


def write_source(path: Path, shape: Shape, row_group: int | None = None) -> None:
    """
    Write a source of that shape; one row group unless told.
    """
    chance = random.Random(0)

    def text(length: int) -> str:
        return " ".join(chance.choices(WORDS, k=length // 9 + 1))[:length]

    schema = pa.schema(
        [("query_id", pa.string()), ("query", pa.string()), ("documents", pa.list_(pa.string()))]
    )
    size = row_group or shape.groups
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, shape.groups, size):
            numbers = range(start, min(start + size, shape.groups))
            documents = [[text(shape.characters) for _ in range(shape.candidates)] for _ in numbers]
            columns = [[f"q{n:08}" for n in numbers], [text(60) for _ in numbers], documents]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema), row_group_size=size)


Tables = Mapping[str, Mapping[str, object]]
"""Settings of a job file, by table."""


def write_job(
    folder: Path, source: Path, base_url: str, concurrency: int, tables: Tables | None = None
) -> Path:
    """
    Write a job file, without a limit of requests unless *tables* say one.
    """
    job = folder / "job.toml"
    more = {
        name: "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in (tables or {}).items()
    }
    job.write_text(
        f"""
[source]
path = {json.dumps(str(source))}
query_id = "query_id"
{more.get("source", "")}
[provider]
name = "openrouter"
model = "{MODEL}"
key_env = "BENCH_KEY"
base_url = "{base_url}"
[limits]
concurrency_max = {concurrency}
{more.get("limits", "")}
[output]
path = "out"
""",
        encoding="utf-8",
    )
    return job


def bodies(source: Path, count: int) -> list[bytes]:
    """
    The first *count* groups as request bodies, ready to send.
    """
    table = pq.ParquetFile(source).iter_batches(count, columns=["query", "documents"])
    return [
        json.dumps({"model": MODEL, "query": row["query"], "documents": row["documents"]}).encode()
        for row in next(table).to_pylist()
    ]
