"""
Rejects and calls as Parquet files in the state folder, for people and their tools.

Owns their columns. They are derived from the ledger and can be written again at any time; what
varies between two runs of one job (times, attempts, request ids, cost) stands here and not in the
parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from batchrank.errors import StorageError
from batchrank.store.disk import replacing
from batchrank.store.reading import LedgerReader

ROWS = 20_000

_AT = pa.timestamp("us", tz="UTC")

REJECTS = pa.schema(
    [
        ("position", pa.int64()),
        ("query_id", pa.string()),
        ("kind", pa.string()),
        ("status", pa.int32()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("cost_usd", pa.float64()),
        ("rejected_at", _AT),
    ]
)
"""
One row per rejected group. `message` is the provider's, trimmed and redacted; `cost_usd` is what is
booked for all its calls, those of slices included that have their scores.
"""

CALLS = pa.schema(
    [
        ("position", pa.int64()),
        ("start", pa.int32()),
        ("stop", pa.int32()),
        ("attempt", pa.int32()),
        ("probe", pa.bool_()),
        ("sent_at", _AT),
        ("latency_s", pa.float64()),
        ("failure", pa.string()),
        ("status", pa.int32()),
        ("code", pa.string()),
        ("message", pa.string()),
        ("request_id", pa.string()),
        ("model", pa.string()),
        ("provider", pa.string()),
        ("route", pa.string()),
        ("search_units", pa.float64()),
        ("total_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
        ("cost_source", pa.string()),
        ("reply_bytes", pa.int64()),
        ("reply_sha256", pa.string()),
    ]
)
"""
One row per call. `start <= index < stop` are the candidates that it asked about; a cost that nobody
knows is null.
"""

_REJECTS_SQL = """
WITH spent AS (
    SELECT position, sum(cost_nano_usd) AS nano_usd FROM calls
    WHERE EXISTS (SELECT 1 FROM rejects) AND position IN (SELECT position FROM rejects)
    GROUP BY position
)
SELECT position, query_id, kind, status, code, message, attempts, coalesce(nano_usd, 0) / 1e9,
       CAST(rejected_at * 1e6 AS INTEGER)
FROM rejects LEFT JOIN spent USING (position) ORDER BY position
"""

_CALLS_SQL = """
SELECT position, start, stop, attempt, probe, CAST(sent_at * 1e6 AS INTEGER),
       round(latency_s, 6), failure, status, code, message, request_id, model, provider, name,
       search_units, total_tokens, iif(cost_source = 'unknown', NULL, cost_nano_usd / 1e9),
       cost_source, reply_bytes, reply_sha256
FROM calls LEFT JOIN served ON served.id = calls.served JOIN routes ON routes.id = calls.route
ORDER BY calls.rowid
"""


def export_rejects(ledger: LedgerReader, path: Path) -> None:
    """
    Write the rejects, in source order.
    """
    _export(ledger, _REJECTS_SQL, REJECTS, path)


def export_calls(ledger: LedgerReader, path: Path) -> None:
    """
    Write the calls, in the order in which they became durable.
    """
    _export(ledger, _CALLS_SQL, CALLS, path)


def is_exported(path: Path, rows: int) -> bool:
    """
    Tell whether *path* is there with so many rows.
    """
    try:
        return int(pq.read_metadata(path).num_rows) == rows
    except (OSError, pa.ArrowException):
        return False


def _export(ledger: LedgerReader, sql: str, schema: pa.Schema, path: Path) -> None:
    try:
        with (
            replacing(path) as aside,
            pq.ParquetWriter(aside, schema, compression="zstd") as writer,
        ):
            for batch in _batches(ledger, sql, schema):
                writer.write_batch(batch)
    except pa.ArrowException as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def _batches(ledger: LedgerReader, sql: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    rows = ledger.connection.execute(sql)
    while held := rows.fetchmany(ROWS):
        columns = zip(*held, strict=True)
        arrays = [
            pa.array([bool(v) for v in column] if pa.types.is_boolean(field.type) else column)
            for column, field in zip(columns, schema, strict=True)
        ]
        casted = [array.cast(field.type) for array, field in zip(arrays, schema, strict=True)]
        yield pa.RecordBatch.from_arrays(casted, schema=schema)
