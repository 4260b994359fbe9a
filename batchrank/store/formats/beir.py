"""
BEIR's results: one JSON object of `{query_id: {doc_id: score}}`, a query a line.

Owns the form. Scores are those of the provider, ties included, as BEIR's own are; no more than one
query is held at a time.
"""

from __future__ import annotations

import json
from pathlib import Path

from batchrank.store.disk import whole
from batchrank.store.formats.once import check_once
from batchrank.store.formats.published import Published
from batchrank.store.formats.rankings import rankings
from batchrank.store.formats.terms import How, Tally


def write_beir(published: Published, path: Path, how: How) -> Tally:
    """
    Write the results *path*.

    Raises:
        JobError: the column of ids is not usable.
        OutputError: a document has no id, or a query's id stands for two groups.
        StorageError: the disk.
    """
    check_once(published, how.spill)
    tally, before = Tally(), "{\n"
    with whole(path) as file:
        for ranking in rankings(published, how.doc_id, tally):
            scores = {doc_id: score for doc_id, (_, score) in ranking.found.items()}
            query = json.dumps(ranking.query_id, ensure_ascii=False)
            documents = json.dumps(scores, ensure_ascii=False, allow_nan=False)
            file.write(f"{before}{query}: {documents}".encode())
            before = ",\n"
        file.write(b"\n}\n" if tally.queries else b"{}\n")
    return tally
