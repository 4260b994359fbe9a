"""
CSV: a row per candidate in either layout, texts quoted, nothing between commas for null.

Owns what a spreadsheet would make of it. A text that begins like a formula is one to a spreadsheet,
whoever wrote it. Reports are for people and always defuse it; this is data for programs, in which
an id with an apostrophe before it would be another id and join with nothing. So texts stay as they
are, those that begin like a formula are counted, and whoever wants to open the file in a
spreadsheet asks for the apostrophe (OWASP, CSV injection).
"""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.types as kinds

from batchrank.store.disk import whole
from batchrank.store.formats.jsonl import json_texts
from batchrank.store.formats.published import Published
from batchrank.store.formats.terms import How, Tally

FORMULA = r"^[=+\-@\t\r\n\x00＝＋－＠]"
"""
How a text begins that spreadsheets take for a formula: OWASP's page on CSV injection, and NUL from
its ASVS 5.0 (1.2.10), which asks for the apostrophe and for RFC 4180's quotes.
"""


def write_csv(published: Published, path: Path, how: How) -> Tally:
    """
    Write one row per candidate to *path*. Lists and structs become JSON, bytes Base64.

    Raises:
        StorageError: the disk.
    """
    tally = Tally()
    columns = published.columns()
    names = [defused(name) if how.spreadsheet else name for name in columns]
    schema = pa.schema(
        [(name, _written_as(kind)) for name, kind in zip(names, columns.values(), strict=True)]
    )
    with whole(path) as file, pyarrow.csv.CSVWriter(file, schema) as writer:
        for batch in published.candidates():
            cells = [_cells(column, tally, how.spreadsheet) for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(cells, schema=schema))
            tally.rows += batch.num_rows
    return tally


def _written_as(kind: pa.DataType) -> pa.DataType:
    return pa.string() if kinds.is_nested(kind) or _is_bytes(kind) or _is_text(kind) else kind


def _cells(column: pa.Array, tally: Tally, defuse: bool) -> pa.Array:
    texts = _texts(column)
    if texts is None:
        return column
    formulas = pc.sum(pc.match_substring_regex(texts, FORMULA)).as_py() or 0
    if defuse and formulas:
        tally.defused += formulas
        return pc.replace_substring_regex(texts, f"({FORMULA})", r"'\1")
    tally.formulas += formulas
    return texts


def _texts(column: pa.Array) -> pa.Array | None:
    """
    What has to be text in CSV; None of what CSV itself can say.
    """
    kind = column.type
    if kinds.is_nested(kind):
        return pa.array(json_texts(column), pa.string())
    if _is_bytes(kind):
        values = column.to_pylist()
        texts = [None if value is None else b64encode(value).decode() for value in values]
        return pa.array(texts, pa.string())
    return column.cast(pa.string()) if _is_text(kind) else None


def defused(name: str) -> str:
    """
    *name* with an apostrophe before it, if a spreadsheet took it for a formula.
    """
    return str(pc.replace_substring_regex(pa.scalar(name), f"({FORMULA})", r"'\1"))


def _is_text(kind: pa.DataType) -> bool:
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(
        kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_fixed_size_binary(kind)
    )
