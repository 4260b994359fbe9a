"""
The ledger's tables: their columns, what each is for, and how values are packed into them.

Owns the schema and its version. A ledger of another version is refused, never guessed at.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from struct import Struct

SCHEMA_VERSION = 5

SCORE_BYTES = 8
"""The length of a packed score."""

SCHEMA = """
-- What the output began with: fingerprint, settings, pyarrow's version, ... as JSON.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- The source's files in the order of their positions.
CREATE TABLE source_files (
    number INTEGER PRIMARY KEY, path TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    footer_sha256 TEXT NOT NULL, row_groups TEXT NOT NULL
);

-- Every run: when, by whom, how it ended (NULL: it is under way, or was killed).
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, started_at REAL NOT NULL, pid INTEGER NOT NULL, host TEXT NOT NULL,
    done_before INTEGER NOT NULL, target INTEGER NOT NULL, beat_at REAL, note TEXT,
    ended_at REAL, exit_code INTEGER, reason TEXT
);

-- Models and upstream providers that have scored.
CREATE TABLE served (id INTEGER PRIMARY KEY, model TEXT NOT NULL, provider TEXT);

-- Ways that calls have taken, as the job calls them.
CREATE TABLE routes (id INTEGER PRIMARY KEY, name TEXT NOT NULL);

-- Each position ends in exactly one of the next three.
-- scores: little-endian float64 in source order, NaN for a document that has none.
-- served: who scored all of it; NULL where nobody was asked, or where shares tells.
CREATE TABLE ranked (
    position INTEGER PRIMARY KEY, served INTEGER, scores BLOB NOT NULL, shares BLOB
);
CREATE TABLE rejects (
    position INTEGER PRIMARY KEY, query_id TEXT NOT NULL, kind TEXT NOT NULL, status INTEGER,
    code TEXT, message TEXT NOT NULL, attempts INTEGER NOT NULL, rejected_at REAL NOT NULL
);
CREATE TABLE empties (position INTEGER PRIMARY KEY);

-- Scored slices of groups that have other slices still to come.
CREATE TABLE slices (
    position INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    served INTEGER NOT NULL, scores BLOB NOT NULL, PRIMARY KEY (position, start)
) WITHOUT ROWID;

-- Scores that earlier outputs have of some pairs of a group; these documents are not sent again.
-- As in ranked, NaN for the others; documents: how many are known.
CREATE TABLE known (
    position INTEGER PRIMARY KEY, served INTEGER, scores BLOB NOT NULL, shares BLOB,
    documents INTEGER NOT NULL
);

-- Groups that ask the same as another, and take its outcome when it has one.
-- cut: how many of their own documents were longer in the source than they may be.
CREATE TABLE equals (
    position INTEGER PRIMARY KEY, leader INTEGER NOT NULL, cut INTEGER NOT NULL
);
CREATE INDEX followers ON equals (leader);

-- Ids and carried columns of some consecutive groups: an Arrow stream, as the source packed it.
CREATE TABLE carried (position INTEGER PRIMARY KEY, rows INTEGER NOT NULL, body BLOB NOT NULL);

-- One row per attempt. failure is NULL for a success; cost in 10^-9 US dollars.
CREATE TABLE calls (
    position INTEGER NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL,
    attempt INTEGER NOT NULL, probe INTEGER NOT NULL, sent_at REAL NOT NULL,
    latency_s REAL NOT NULL, failure TEXT, status INTEGER, code TEXT, message TEXT,
    request_id TEXT, served INTEGER, search_units REAL, total_tokens INTEGER,
    cost_nano_usd INTEGER NOT NULL, cost_source TEXT NOT NULL, route INTEGER NOT NULL,
    reply_bytes INTEGER, reply_sha256 TEXT
);
CREATE INDEX failed_calls ON calls (position) WHERE failure IS NOT NULL;

-- Parts that have their final name. through: up to which position it was complete when rendered.
CREATE TABLE parts (
    number INTEGER PRIMARY KEY, file TEXT NOT NULL, through INTEGER NOT NULL, rows INTEGER NOT NULL,
    groups INTEGER NOT NULL, sha256 TEXT NOT NULL, stale INTEGER NOT NULL DEFAULT 0
);

-- Running totals, so that nobody has to read all rows to know them.
CREATE TABLE tally (name TEXT PRIMARY KEY, value NUMERIC NOT NULL) WITHOUT ROWID;
"""


@lru_cache(maxsize=1024)
def _packing(count: int) -> Callable[..., bytes]:
    return Struct(f"<{count}d").pack


def pack_scores(scores: Sequence[float]) -> bytearray:
    """
    Scores as little-endian float64; not as `bytes`, which sqlite3 takes five times as long to bind.
    """
    return bytearray(_packing(len(scores))(*scores))


def unpack_scores(packed: bytes | bytearray) -> array[float]:
    """
    The inverse of `pack_scores`.
    """
    scores = array("d")
    scores.frombytes(packed)
    if sys.byteorder == "big":
        scores.byteswap()
    return scores


def pack_shares(shares: Iterable[tuple[int, int]]) -> bytes:
    """
    Pairs of (stop, served id) as little-endian int64.
    """
    packed = array("q", (number for share in shares for number in share))
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_shares(packed: bytes) -> list[tuple[int, int]]:
    """
    The inverse of `pack_shares`.
    """
    numbers = array("q")
    numbers.frombytes(packed)
    if sys.byteorder == "big":
        numbers.byteswap()
    return list(zip(numbers[0::2], numbers[1::2], strict=True))
