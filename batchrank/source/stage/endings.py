"""
Which format a file has: its name's ending says so. Opens nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from batchrank.places.remote import Place

FORMATS: Mapping[str, str] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".trec": "trec",
    ".run": "trec",
}
"""Formats by ending; `.gz` and `.zst` after it are unpacked."""

_PACKED: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}


def format_of(path: Place) -> str | None:
    """
    The format that a file's ending stands for.
    """
    suffixes = [suffix.lower() for suffix in PurePosixPath(path.name).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return FORMATS.get(suffixes[-1]) if suffixes else None


def packing_of(path: Path) -> str | None:
    """
    How a file is packed, as Arrow calls it; None if it is not.
    """
    return _PACKED.get(path.suffix.lower())
