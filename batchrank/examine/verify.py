"""
Proof that an output is whole: every group once, every byte as published, every rank in its place.

Owns the list of checks. Each names what it looked at and what it found; one that fails says where.
The parts are read by DuckDB, another reader than the one that wrote them. Mends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from batchrank.errors import OutputError
from batchrank.job import Job
from batchrank.job.ending import Account
from batchrank.store.output import OutputFolder, unfit
from batchrank.store.reading import LedgerReader, PartRow

_CANDIDATES = """
WITH rows AS (
    SELECT file_row_number AS n, index, rank, relevance_score AS score
    FROM read_parquet(?, file_row_number = true)
), steps AS (
    SELECT *, lag(rank) OVER (ORDER BY n) AS before, lag(score) OVER (ORDER BY n) AS higher
    FROM rows
)
SELECT
    count(*) FILTER (WHERE rank IS NOT NULL AND rank <> 1 AND rank IS DISTINCT FROM before + 1),
    count(*) FILTER (WHERE rank > 1 AND score > higher),
    count(*) FILTER (WHERE (rank IS NULL) <> (score IS NULL) OR NOT isfinite(score)),
    count(*) FILTER (WHERE rank = 1)
FROM steps
"""

_GROUPS = """
WITH groups AS (
    SELECT file_row_number AS g, unnest(results) AS r, generate_subscripts(results, 1) AS n
    FROM read_parquet(?, file_row_number = true)
), steps AS (
    SELECT g, r.rank AS rank, r.relevance_score AS score, n,
           lag(r.rank) OVER (PARTITION BY g ORDER BY n) AS before,
           lag(r.relevance_score) OVER (PARTITION BY g ORDER BY n) AS higher
    FROM groups
)
SELECT
    count(*) FILTER (WHERE rank IS NOT NULL AND rank <> coalesce(before, 0) + 1),
    count(*) FILTER (WHERE rank > 1 AND score > higher),
    count(*) FILTER (WHERE (rank IS NULL) <> (score IS NULL) OR NOT isfinite(score)),
    count(*) FILTER (WHERE rank = 1)
FROM steps
"""

_SQL = {"candidates": _CANDIDATES, "groups": _GROUPS}


@dataclass(frozen=True, slots=True)
class Check:
    """
    One thing that was looked at. *found* says what, or what is wrong.
    """

    name: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    All checks of one output.
    """

    output: str
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """
        Tell whether every check holds.
        """
        return all(check.holds for check in self.checks)

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {**asdict(self), "holds": self.holds}

    def as_text(self) -> str:
        """
        A line for each check, and the verdict.
        """
        lines = [f"{'ok ' if c.holds else 'BAD'} {c.name}: {c.found}" for c in self.checks]
        wrong = sum(not check.holds for check in self.checks)
        end = f"{wrong} of {len(lines)} checks fail" if wrong else "all checks hold"
        return "\n".join([*lines, f"{self.output}: {end}"])


def verify(job: Job) -> Verdict:
    """
    Check the output of *job* (loaded without its key).

    Raises:
        OutputError: it was never begun.
        StorageError: its ledger cannot be read.
    """
    state = job.state
    if not state.ledger.exists():
        raise OutputError(f"{job.output} was never begun (no ledger at {state.ledger})", "run it")
    with LedgerReader.open(state.ledger) as ledger:
        return Verdict(str(job.output), tuple(_checks(job, ledger)))


def _checks(job: Job, ledger: LedgerReader) -> Iterator[Check]:
    parts = ledger.parts()
    yield _every_position_once(ledger)
    yield _rejects_are_within(job, ledger)
    yield _files_are_known(job, parts)
    yield _bytes_are_published(job, parts, pruned=bool(ledger.meta().get("pruned")))
    yield _manifest_matches(job, parts)
    yield from _rows_are_right(job, ledger, parts)
    yield _success_is_due(job, ledger, parts)


def _every_position_once(ledger: LedgerReader) -> Check:
    """
    Each position of the source is in the scores, in the rejects or among the empties: once.
    """
    meta, account = ledger.meta(), Account.of(ledger)
    total = int(meta["total"])
    counts = f"{account.count('ranked'):,} ranked, {account.rejected:,} rejected"
    found = f"{account.done:,} of {total:,} positions ({counts}, {account.count('empty'):,} empty)"
    if account.done != total:
        return Check("every position once", False, f"{found}: run it again")
    if meta.get("pruned"):
        return Check("every position once", True, f"{found}; scores were pruned from the ledger")
    twice, rows = ledger.outcomes_twice(), ledger.count_outcomes(0, total)
    holds = not twice and rows == total
    return Check("every position once", holds, found if holds else f"{found}; {twice} twice")


def _rejects_are_within(job: Job, ledger: LedgerReader) -> Check:
    rejected, most = Account.of(ledger).rejected, job.config.output.rejected_max
    return Check("rejects", rejected <= most, f"{rejected:,}, and {most:,} are allowed")


def _files_are_known(job: Job, parts: list[PartRow]) -> Check:
    if not job.output.is_dir():
        return Check("files", False, "the output folder is missing")
    visible = OutputFolder(job.output, job.state, lambda _: None).visible()
    known = {part.file for part in parts}
    strange = [*unfit(visible), *(n for n in visible if n.startswith("part-") and n not in known)]
    found = f"{len(known)} parts" if not strange else f"not ours: {', '.join(strange[:5])}"
    return Check("files", not strange, found)


def _bytes_are_published(job: Job, parts: list[PartRow], *, pruned: bool) -> Check:
    damaged = OutputFolder(job.output, job.state, lambda _: None).damaged(parts)
    stale = [part.number for part in parts if part.stale]
    if damaged or stale:
        names = ", ".join(part.file for part in parts if part.number in {*damaged, *stale})
        remedy = "restore them from a copy (the ledger was pruned)" if pruned else "run it again"
        return Check("checksums", False, f"{names}: damaged, missing or stale; {remedy}")
    return Check("checksums", True, f"SHA-256 of {len(parts)} parts as published")


def _manifest_matches(job: Job, parts: list[PartRow]) -> Check:
    try:
        manifest = json.loads(job.state.manifest.read_bytes())
        listed = {(p["file"], p["rows"], p["sha256"]) for p in manifest["parts"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Check("manifest", False, f"cannot be read: {error}")
    same = listed == {(part.file, part.rows, part.sha256) for part in parts}
    return Check("manifest", same, "lists exactly these parts" if same else "lists other parts")


def _rows_are_right(job: Job, ledger: LedgerReader, parts: list[PartRow]) -> Iterator[Check]:
    """
    In each part: ranks from 1 without gaps, scores finite and falling, as many groups as ranked.
    """
    wrong: dict[str, list[str]] = {"ranks": [], "order": [], "finite scores": [], "groups": []}
    rows = groups = 0
    sql = _SQL[str(ledger.meta()["output_settings"]["output.layout"])]
    for part in parts:
        path = job.output / part.file
        found = _read(sql, path)
        if isinstance(found, str):
            yield Check("rows", False, f"{part.file}: {found}")
            continue
        gaps, disorder, odd, first = found
        rows, groups = rows + part.rows, groups + first
        for name, bad in (("ranks", gaps), ("order", disorder), ("finite scores", odd)):
            if bad:
                wrong[name].append(f"{part.file}: {bad} rows")
        if first > part.groups:
            wrong["groups"].append(f"{part.file}: {first} first ranks for {part.groups} groups")
    for name, where in wrong.items():
        found_words = f"{rows:,} rows, {groups:,} groups with a first rank"
        yield Check(name, not where, "; ".join(where[:5]) or found_words)


def _read(sql: str, path: Path) -> tuple[int, int, int, int] | str:
    try:
        with duckdb.connect() as connection:
            row = connection.execute(sql, [str(path)]).fetchone()
    except duckdb.Error as error:
        return str(error).splitlines()[0]
    return row if row is not None else "no answer"


def _success_is_due(job: Job, ledger: LedgerReader, parts: list[PartRow]) -> Check:
    account = Account.of(ledger)
    whole = account.done == int(ledger.meta()["total"]) and bool(parts)
    due = whole and account.rejected <= job.config.output.rejected_max
    there = OutputFolder(job.output, job.state, lambda _: None).has_success()
    words = "is there" if there else "is not there"
    return Check(
        "_SUCCESS", there is due, words + ("" if there is due else ", and should not be so")
    )
