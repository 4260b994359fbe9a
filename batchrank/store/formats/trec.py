"""
A TREC run: `query_id Q0 doc_id rank score tag`, and beside it the scores as they were.

Owns scores that fall strictly within a query. trec_eval and what is built on it look at neither
rank nor order: they sort by the score, held as float32, and break ties by the document's id. So a
score that is not below the one before it, as float32, is lowered to just below it; every other one
is written as it is. A seventh column would be ignored by trec_eval and refused by ir_measures and
pytrec_eval; therefore the raw scores lie in a file of their own.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

from batchrank.errors import JobError, OutputError, Problem
from batchrank.store.disk import whole
from batchrank.store.formats.once import check_once
from batchrank.store.formats.published import Published
from batchrank.store.formats.rankings import Ranking, rankings
from batchrank.store.formats.terms import How, Tally

BESIDE = ".scores.tsv"
"""What the name of the file beside a run ends with."""

HEADER = "query_id\tdoc_id\trank\tscore\trelevance_score\n"

LARGEST = 1e30
"""Scores beyond it are written as it: below it float32 has room for any number of ties."""

STEP_MIN = 2.0**-100
"""Around zero a score is lowered by this much, and not to numbers that some machines take for 0."""

_FLOAT32_PER_FLOAT64 = 2.0**29
"""A unit in the last place of a float32 is so many of a float64."""


def beside(path: Path) -> Path:
    """
    The file with the raw scores of the run *path*.
    """
    return path.with_name(path.name + BESIDE)


def write_trec(published: Published, path: Path, how: How) -> Tally:
    """
    Write the run *path*, and `beside` it what its scores were; both whole, the run last.

    Raises:
        JobError: the run's name or the column of ids is not usable.
        OutputError: an id cannot stand in a run, or stands for two groups.
        StorageError: the disk.
    """
    if how.run_name.split() != [how.run_name] or "\0" in how.run_name:
        remedy = "name it in one word"
        problem = Problem(0, "--run-name", f"{how.run_name!r} is not one word", remedy)
        raise JobError("batchrank export", [problem])
    check_once(published, how.spill)
    tally = Tally()
    with whole(path) as run, whole(beside(path)) as raw:
        raw.write(HEADER.encode())
        for ranking in rankings(published, how.doc_id, tally):
            _check_ids(ranking)
            lines, raws = _lines(ranking, how.run_name, tally)
            run.write(lines.encode())
            raw.write(raws.encode())
    return tally


def _lines(ranking: Ranking, tag: str, tally: Tally) -> tuple[str, str]:
    query, lines, raws = ranking.query_id, [], []
    written = falling([score for _, score in ranking.found.values()])
    for (doc_id, (rank, score)), falls in zip(ranking.found.items(), written, strict=True):
        lines.append(f"{query} Q0 {doc_id} {rank} {falls!r} {tag}\n")
        raws.append(f"{query}\t{doc_id}\t{rank}\t{falls!r}\t{score!r}\n")
        tally.lowered += falls != score
    return "".join(lines), "".join(raws)


def falling(scores: Sequence[float]) -> list[float]:
    """
    *scores*, which never rise, such that each is below the one before it, also as float32.
    """
    clipped = [min(max(score, -LARGEST), LARGEST) for score in scores]
    written, last = [], math.inf
    for score, single in zip(clipped, array("f", clipped), strict=True):
        if single < last:
            written.append(score)
            last = single
        else:
            last = _below(last)
            written.append(float(f"{last:.9g}"))  # nine digits name every float32
    return written


def _below(single: float) -> float:
    step = max(math.ulp(single) * _FLOAT32_PER_FLOAT64, STEP_MIN)
    return array("f", [single - step])[0]


def _check_ids(ranking: Ranking) -> None:
    query = ranking.query_id
    if _unfit([query]):
        raise _refused(f"query id {query!r}", "is not one word")
    if query.startswith("#"):
        raise _refused(f"query id {query!r}", "begins a comment")
    if _unfit(ranking.found):
        doc_id = next(doc_id for doc_id in ranking.found if _unfit([doc_id]))
        raise _refused(f"document id {doc_id!r} of query {query!r}", "is not one word")


def _unfit(ids: Iterable[str]) -> bool:
    """
    Tell whether some of *ids* is not one word for every reader, be it C or Python.
    """
    joined = " ".join(ids)
    return joined.split() != list(ids) or "\0" in joined


def _refused(what: str, why: str) -> OutputError:
    return OutputError(
        f"{what} cannot stand in a TREC run: it {why}",
        "name another column with --doc-id, or export as beir, csv, jsonl or duckdb, which keep"
        " any id",
    )
