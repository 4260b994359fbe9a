"""
Proof that an output is whole: every group once, every byte as published, every rank in its place.

Owns the list of checks. Each names what it looked at and what it found; one that fails says where
and how to mend it, and one that had nothing to look at does not say that all is well. The parts are
read by DuckDB, another reader than the one that wrote them. Mends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from batchrank.engine.publisher import Ranges
from batchrank.errors import OutputError
from batchrank.job import Job
from batchrank.job.account import Account
from batchrank.observe.report import as_shown, counted
from batchrank.places.remote import Place
from batchrank.store.disk import holder, is_held
from batchrank.store.output import PART_NAME, OutputFolder, part_file, some, unfit
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
    count(*) FILTER (WHERE rank = 1),
    count(rank),
    count(score),
    count(*)
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
    count(*) FILTER (WHERE rank = 1),
    count(rank),
    count(score),
    count(*)
FROM steps
"""

_SQL = {"candidates": _CANDIDATES, "groups": _GROUPS}


@dataclass(frozen=True, slots=True)
class Check:
    """
    One thing that was looked at. *found* says what, or what is wrong; *holds* is None where there
    was nothing to look at.
    """

    name: str
    holds: bool | None
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
        Tell whether no check fails.
        """
        return all(check.holds is not False for check in self.checks)

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return {**asdict(self), "holds": self.holds}

    def as_text(self) -> str:
        """
        A line for each check, and the verdict.
        """
        lines = [f"{_MARKS[c.holds]} {c.name}: {as_shown(c.found)}" for c in self.checks]
        wrong = sum(check.holds is False for check in self.checks)
        fail = "fails" if wrong == 1 else "fail"
        end = f"{wrong} of {len(lines)} checks {fail}" if wrong else "all checks hold"
        return "\n".join([*lines, f"{self.output}: {end}"])


_MARKS = {True: "ok ", False: "BAD", None: "-- "}


@dataclass(frozen=True, slots=True)
class _Looked:
    """
    What all checks are about. *runner* says who writes the output now, "" if nobody does; *again*
    is what mends what the ledger can mend.
    """

    job: Job
    ledger: LedgerReader
    folder: OutputFolder
    parts: list[PartRow]
    account: Account
    total: int
    pruned: bool
    runner: str

    @property
    def whole(self) -> bool:
        return self.account.done == self.total

    @property
    def again(self) -> str:
        return f"a run is under way ({self.runner})" if self.runner else "run it again"

    @property
    def mended(self) -> str:
        restore = "restore it from a copy (the ledger was pruned)"
        return restore if self.pruned else self.again


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
    runner = ""
    if is_held(state.lock):
        found = holder(state.lock)
        runner = f"process {found.pid} on {found.host}" if found else "by whom is not known"
    with LedgerReader.open(state.ledger) as ledger:
        looked = _Looked(
            job=job,
            ledger=ledger,
            folder=OutputFolder(job.output, state, lambda _: None),
            parts=ledger.parts(),
            account=Account.of(ledger),
            total=int(ledger.meta()["total"]),
            pruned=bool(ledger.meta().get("pruned")),
            runner=runner,
        )
        return Verdict(str(job.output), tuple(_checks(looked)))


def _checks(it: _Looked) -> Iterator[Check]:
    there = [part for part in it.parts if (it.job.output / part.file).is_file()]
    damaged = frozenset(it.folder.damaged(there))
    yield _every_position_once(it)
    yield _rejects_are_within(it)
    yield _files_are_known(it, there)
    yield _bytes_are_published(it, there, damaged)
    yield _manifest_matches(it)
    yield from _rows_are_right(it, [part for part in there if part.number not in damaged])
    yield _success_is_due(it)


def _every_position_once(it: _Looked) -> Check:
    """
    Each position of the source is in the scores, in the rejects or among the empties: once.
    """
    name, account = "every position once", it.account
    counts = f"{account.count('ranked'):,} ranked, {account.rejected:,} rejected"
    ends = f"{counts}, {account.count('empty'):,} empty"
    found = f"{account.done:,} of {counted(it.total, 'position')} ({ends})"
    if not it.whole:
        return Check(name, False, f"{found}: not finished yet, {it.again}")
    if it.pruned:
        return Check(name, True, f"{found}; scores were pruned from the ledger")
    twice, rows = it.ledger.outcomes_twice(), it.ledger.count_outcomes(0, it.total)
    holds = not twice and rows == it.total
    return Check(name, holds, found if holds else f"{found}; {rows:,} in the ledger, {twice} twice")


def _rejects_are_within(it: _Looked) -> Check:
    rejected, most = it.account.rejected, it.job.config.output.rejected_max
    holds = rejected <= most
    remedy = "" if holds else ": `batchrank run --retry-rejects` asks about them again"
    return Check("rejects", holds, f"{rejected:,}, and {most:,} are allowed{remedy}")


def _files_are_known(it: _Looked, there: list[PartRow]) -> Check:
    """
    The folder holds the parts that are published, and nothing that readers would take for one.
    """
    if isinstance(it.job.output, Path) and not it.job.output.is_dir():
        return Check("files", False, f"the output folder is missing: {it.mended}")
    ranges = Ranges(it.total, it.ledger.part_groups())
    ours = {part_file(number) for number in range(ranges.count)}
    visible, known = it.folder.visible(), {part.file for part in it.parts}
    unknown = [n for n in visible if PART_NAME.fullmatch(n) and n not in known]
    strange = [*unfit(visible), *(n for n in unknown if n not in ours)]
    early = [n for n in unknown if n in ours]
    missing = [part.file for part in it.parts if part not in there]
    wrong = [f"not ours: {', '.join(strange[:5])}"] if strange else []
    # Of a layout that is not the job's any more, or of a run that was killed just there.
    wrong += [f"not published: {some(early)} ({it.again})"] if early else []
    wrong += [f"missing: {some(missing)} ({it.mended})"] if missing else []
    if wrong:
        return Check("files", False, "; ".join(wrong))
    return Check(
        "files", True if there else None, f"{counted(len(there), 'part')}, nothing foreign"
    )


def _bytes_are_published(it: _Looked, there: list[PartRow], damaged: frozenset[int]) -> Check:
    wrong = [part.file for part in there if part.number in damaged]
    if wrong:
        return Check("checksums", False, f"{some(wrong)}: damaged; {it.mended}")
    if stale := [part.file for part in there if part.stale]:
        return Check("checksums", False, f"{some(stale)}: to be rendered again; {it.mended}")
    if not there:
        return Check("checksums", None, "no part to look at")
    return Check("checksums", True, f"SHA-256 of {counted(len(there), 'part')} as published")


def _manifest_matches(it: _Looked) -> Check:
    file = it.job.state.manifest
    try:
        manifest = json.loads(file.read_bytes())
        listed = {(p["file"], p["rows"], p["sha256"]) for p in manifest["parts"]}
    except FileNotFoundError:
        what = "is missing" if it.whole and not it.runner else "not finished yet"
        return Check("manifest", False, f"{what}: {it.again}")
    except OSError as error:
        return Check("manifest", False, f"{file} cannot be read: {error.strerror or error}")
    except (ValueError, KeyError, TypeError):
        return Check("manifest", False, f"{file} is damaged: delete it, then run it again")
    if listed == {(part.file, part.rows, part.sha256) for part in it.parts}:
        return Check("manifest", True, f"lists exactly {counted(len(listed), 'part')} as published")
    remedy = it.again if it.runner or not it.whole else "delete it, then run it again"
    return Check("manifest", False, f"{file} lists other parts: {remedy}")


# --- rows -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Rows:
    """
    What was counted in the rows of all parts, and where something is wrong, by check.
    """

    firsts: int = 0
    groups: int = 0
    ranks: int = 0
    scores: int = 0
    rows: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def add(self, part: PartRow, found: tuple[int, ...]) -> None:
        gaps, disorder, odd, firsts, ranks, scores, rows = found
        self.firsts, self.groups = self.firsts + firsts, self.groups + part.groups
        self.ranks, self.scores = self.ranks + ranks, self.scores + scores
        self.rows += rows
        bad = {"ranks": gaps, "order": disorder, "finite scores": odd}
        for name, count in bad.items():
            if count:
                self.wrong.setdefault(name, []).append(f"{part.file}: {counted(count, 'row')}")
        if firsts > part.groups:
            words = f"{part.file}: {counted(firsts, 'first rank')} for {part.groups:,} ranked"
            self.wrong.setdefault("groups", []).append(words)

    def checks(self) -> Iterator[Check]:
        nulls = self.rows - self.scores
        for name, looked_at, found in (
            ("ranks", self.ranks, f"{counted(self.ranks, 'rank')}, from 1 and without a gap"),
            (
                "order",
                self.ranks - self.firsts,
                f"{counted(self.ranks - self.firsts, 'score')} not above the one before",
            ),
            (
                "finite scores",
                self.rows,
                f"{counted(self.scores, 'number')} beside ranks, {nulls:,} null beside none",
            ),
            (
                "groups",
                self.groups,
                f"{self.firsts:,} begin with a first rank, of {self.groups:,} ranked",
            ),
        ):
            if wrong := self.wrong.get(name):
                yield Check(name, False, "; ".join(wrong[:5]))
            else:
                yield Check(name, True if looked_at else None, found if looked_at else "none")


def _rows_are_right(it: _Looked, parts: list[PartRow]) -> Iterator[Check]:
    """
    In each part that is as published: ranks from 1 without gaps, scores finite and falling, no more
    groups than are ranked.
    """
    sql = _SQL[str(it.ledger.meta()["output_settings"]["output.layout"])]
    counts = _Rows()
    with duckdb.connect() as connection:  # one for all: to open it takes longer than most parts
        for part in parts:
            with _near(it.job.output / part.file, it.job.state.path) as path:
                found = _read(connection, sql, path)
            if isinstance(found, str):
                yield Check("rows", False, f"{part.file}: DuckDB cannot read it: {found}")
            else:
                counts.add(part, found)
    yield from counts.checks()


@contextmanager
def _near(place: Place, state: Path) -> Iterator[Path]:
    """
    The file at *place*, or a copy of it for as long as it is read.
    """
    if isinstance(place, Path):
        yield place
        return
    with TemporaryDirectory(prefix="verify-", dir=state) as folder:
        copy = Path(folder) / place.name
        place.fetch(copy)
        yield copy


def _read(connection: duckdb.DuckDBPyConnection, sql: str, path: Path) -> tuple[int, ...] | str:
    try:
        row = connection.execute(sql, [str(path)]).fetchone()
    except duckdb.Error as error:
        return str(error).splitlines()[0]
    return row if row is not None else "no answer"


def _success_is_due(it: _Looked) -> Check:
    few = it.account.rejected <= it.job.config.output.rejected_max
    due = it.whole and bool(it.parts) and few
    there = it.folder.has_success()
    why = "too many groups are rejected" if it.whole and not few else "the output is not finished"
    words = {
        (True, True): "is there",
        (True, False): f"is missing: {it.again}",
        (False, True): f"is there although {why}: {it.again}",
        (False, False): f"is not there: {why}",
    }
    return Check("_SUCCESS", there is due, words[due, there])
