"""
Rows of parts as rankings: a query, and the documents that have a score, from the best.

Owns which candidates a ranking leaves out (those without a score, and an id that has come already,
because every reader of runs either refuses it or counts it twice) and that this is counted. Holds
one group at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.types as kinds

from batchrank.errors import JobError, OutputError, Problem
from batchrank.store.formats.published import Published
from batchrank.store.formats.terms import Tally


@dataclass(frozen=True, slots=True)
class Ranking:
    """
    One query's documents: rank and score by id, from the best.
    """

    query_id: str
    found: dict[str, tuple[int, float]] = field(default_factory=dict)


def rankings(published: Published, doc_id: str, tally: Tally) -> Iterator[Ranking]:
    """
    Every query that has a score, in source order; *doc_id* is the column that names documents.

    Raises:
        JobError: there is no such column, or it holds no ids.
        OutputError: a document has no id.
    """
    _check_column(published, doc_id)
    tally.queries = 0
    held: Ranking | None = None
    for query, document, rank, score in _scored(published, doc_id, tally):
        if rank == 1 or held is None:
            if held is not None:
                yield held
            held = Ranking(query)
            tally.queries += 1
        if document is None:
            raise _without_id(query, doc_id)
        if document in held.found:
            tally.repeated += 1
        else:
            held.found[document] = rank, score
            tally.rows += 1
    if held is not None:
        yield held


def _scored(
    published: Published, doc_id: str, tally: Tally
) -> Iterator[tuple[str, str | None, int, float]]:
    for batch in published.candidates(["query_id", doc_id, "rank", "relevance_score"]):
        scored = batch.filter(batch.column("rank").is_valid())
        tally.unscored += batch.num_rows - scored.num_rows
        ids = (scored.column(name).cast(pa.string()) for name in ("query_id", doc_id))
        values = (*ids, scored.column("rank"), scored.column("relevance_score"))
        yield from zip(*(column.to_pylist() for column in values), strict=True)


def _check_column(published: Published, doc_id: str) -> None:
    columns = published.columns()
    kind = columns.get(doc_id)
    if kind is None:
        wrong = f"the output has no column {doc_id!r}, only {', '.join(columns)}"
    elif not (kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_integer(kind)):
        wrong = f"{doc_id} is {kind}, expected text or whole numbers"
    else:
        return
    problem = Problem(0, "--doc-id", wrong, "name the column with the documents' ids")
    raise JobError("batchrank export", [problem])


def _without_id(query_id: str, doc_id: str) -> OutputError:
    return OutputError(
        f"a document of query {query_id!r} has no {doc_id}, and a run names documents by it",
        "name a column that is carried with --doc-id, or say `--doc-id index` for their places in"
        " the source; csv, jsonl and duckdb need no ids",
    )
