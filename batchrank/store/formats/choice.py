"""
The formats by name: what writes each, which endings mean it, which options it takes.

Owns the list; a new format is a file and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchrank.store.formats.beir import write_beir
from batchrank.store.formats.csv import write_csv
from batchrank.store.formats.database import write_database
from batchrank.store.formats.jsonl import write_jsonl
from batchrank.store.formats.published import Published
from batchrank.store.formats.terms import How, Tally
from batchrank.store.formats.trec import beside, write_trec


@dataclass(frozen=True, slots=True)
class Format:
    """
    One format. *joins*: it adds to a file that is there, and itself refuses to replace what is its
    own; *files* are all that it makes.
    """

    write: Callable[[Published, Path, How], Tally]
    endings: tuple[str, ...]
    takes: frozenset[str] = frozenset()
    joins: bool = False
    files: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)


FORMATS: Mapping[str, Format] = {
    "trec": Format(
        write_trec,
        (".trec", ".run"),
        frozenset(("run_name", "doc_id")),
        files=lambda path: (path, beside(path)),
    ),
    "beir": Format(write_beir, (".json",), frozenset(("doc_id",))),
    "csv": Format(write_csv, (".csv",), frozenset(("spreadsheet",))),
    "duckdb": Format(write_database, (".duckdb", ".db"), frozenset(("table",)), joins=True),
    "jsonl": Format(write_jsonl, (".jsonl", ".ndjson")),
}


def by_ending(path: Path) -> str | None:
    """
    The name of the format that the ending of *path* means; None if it means none.
    """
    ending = path.suffix.lower()
    return next((name for name, form in FORMATS.items() if ending in form.endings), None)
