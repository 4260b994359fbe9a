"""
Give a finished output to other tools, in a form that they read.

Owns the conditions: only parts that are published, whole and as the ledger knows them are read, all
of them unless the person says otherwise; and nothing is replaced unasked. What a format is made of
is the business of `store.formats`. Calls nobody.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from batchrank.errors import JobError, OutputError, Problem
from batchrank.job import Job
from batchrank.job.account import Account
from batchrank.observe.report import as_shown, counted, size
from batchrank.places.remote import is_within, placed
from batchrank.places.uri import SCHEMES
from batchrank.store.disk import storage_error
from batchrank.store.formats.choice import FORMATS, Format, by_ending
from batchrank.store.formats.published import Published
from batchrank.store.formats.terms import How, Tally
from batchrank.store.formats.writing import check_free, path_of
from batchrank.store.output import OutputFolder, part_file, some
from batchrank.store.reading import LedgerReader, PartRow


@dataclass(frozen=True, slots=True)
class Options:
    """
    What the person may say beside the file, named as in `batchrank export`; None is not said.
    """

    format: str | None = None
    run_name: str | None = None
    doc_id: str | None = None
    table: str | None = None
    spreadsheet: bool = False
    partial: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Exported:
    """
    What was written. *parts* were read, of an output that is *finished* or not; the groups of it
    that were *rejected* have no scores.
    """

    job: str
    format: str
    files: tuple[str, ...]
    file_bytes: int
    tally: Tally
    parts: int
    finished: bool
    rejected: int

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        data = asdict(self)
        tally = data.pop("tally")
        return {**data, **tally}

    def as_text(self) -> str:
        """
        A line for people, and one for each thing to know.
        """
        tally = self.tally
        of = "" if tally.queries is None else f" of {_queries(tally.queries)}"
        what = f"{counted(tally.rows, 'row')}{of} from {counted(self.parts, 'part')}"
        line = f"exported {what} to {self.files[0]} ({self.format}, {size(self.file_bytes)})"
        return "\n".join(as_shown(text) for text in (line, *self._notes()))

    def _notes(self) -> Iterator[str]:
        tally = self.tally
        if not self.finished:
            yield "the output is not finished: only its published parts are in it"
        if self.rejected:
            yield f"{counted(self.rejected, 'rejected group')}: without scores, not in it"
        if tally.unscored:
            yield f"{counted(tally.unscored, 'candidate')} left out: without a score"
        if tally.repeated:
            repeated = counted(tally.repeated, "candidate")
            yield f"{repeated} left out: the same document came with a better rank"
        if tally.lowered:
            yield (
                f"{counted(tally.lowered, 'score')} lowered a little, because they were tied;"
                f" as they were: {self.files[-1]}"
            )
        if tally.formulas:
            texts = counted(tally.formulas, "text")
            yield f"{texts} that a spreadsheet takes for a formula: --spreadsheet prevents that"
        if tally.defused:
            texts = counted(tally.defused, "text")
            yield f"{texts} with an apostrophe put before, or a spreadsheet took it for a formula"


def _queries(count: int) -> str:
    return f"{count:,} quer{'y' if count == 1 else 'ies'}"


def export(job: Job, to: Path, options: Options) -> Exported:
    """
    Write the scores of *job* (loaded without its key) to the file *to*.

    Raises:
        JobError: the format or an option of it is wrong.
        OutputError: the output is not finished or not whole, or *to* is there, or not fit for it,
            or a file of the source.
        StorageError: the disk.
    """
    name = _format_name(to, options)
    form = FORMATS[name]
    _check_options(name, form, options)
    path = _target(job, to, form, options)
    finished, parts, rejected = _published(job, options)
    _check_no_source(job, form.files(path))
    files = [job.output / part.file for part in parts]
    published = Published(files, partial(_check_unchanged, job, parts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="export-", dir=job.state.path) as spill:
            tally = form.write(published, path, _how(job, options, Path(spill)))
        file_bytes = path.stat().st_size
    except OSError as error:
        raise storage_error(f"cannot write {path}", error) from error
    made = tuple(map(str, form.files(path)))
    about = (job.config.name, name, made, file_bytes)
    return Exported(*about, tally, len(parts), finished, rejected)


def _how(job: Job, options: Options, spill: Path) -> How:
    said = {field.name: getattr(options, field.name, None) for field in fields(How)}
    given = {name: value for name, value in said.items() if value is not None}
    return How(**{"run_name": job.config.name, **given, "spill": spill})


# --- what is asked for ----------------------------------------------------------------------------


def _format_name(to: Path, options: Options) -> str:
    name = options.format or by_ending(to)
    if name is not None and name in FORMATS:
        return name
    known = ", ".join(f"{known} ({' '.join(form.endings)})" for known, form in FORMATS.items())
    if name is None:
        key, wrong = "--to", f"the ending of {to} means no format"
    else:
        key, wrong = "--format", f"{name} is none"
    raise JobError("batchrank export", [Problem(0, key, wrong, f"--format is one of {known}")])


def _check_options(name: str, form: Format, options: Options) -> None:
    """
    Refuse what would be said in vain.
    """
    every = frozenset[str]().union(*(other.takes for other in FORMATS.values()))
    problems = []
    for option in sorted(every - form.takes):
        if getattr(options, option):
            takers = " or ".join(n for n, other in FORMATS.items() if option in other.takes)
            flag = f"--{option.replace('_', '-')}"
            problems.append(Problem(0, flag, f"means nothing to {name}", f"it is for {takers}"))
    if options.table == "":
        problems.append(Problem(0, "--table", "is empty", "name the table"))
    if problems:
        raise JobError("batchrank export", problems)


def _target(job: Job, to: Path, form: Format, options: Options) -> Path:
    """
    Where to write, if that is allowed.
    """
    if to.parts and to.parts[0] in (f"{scheme}:" for scheme in SCHEMES):
        raise OutputError(
            f"{to} is no file of this machine", "name a file here, and copy it into the store"
        )
    path = _path_of(to)
    for folder in (job.output, job.state.path):
        if is_within(path, folder):
            raise OutputError(
                f"{to} lies in {folder}, which holds what batchrank itself has written",
                "name a file elsewhere",
            )
    for file in form.files(path):
        check_free(file, replaces=options.force or form.joins)
    return path


def _check_no_source(job: Job, written: Iterable[Path]) -> None:
    """
    Refuse what the groups were read from, also where the person says --force: texts would be lost
    that nobody can ask about again, and a table more makes another source of a DuckDB file.
    """
    with LedgerReader.open(job.state.ledger) as ledger:
        names = [file.path for file in ledger.source_files()]
    read = {placed(job.base, name, job.config.stores).resolve() for name in names}
    for file in written:
        if file in read:
            raise OutputError(f"{file} is a file of the job's source", "name another file")


def _path_of(to: Path) -> Path:
    if str(to) == "-":
        raise OutputError("standard output is no place for a file that is whole", "name a file")
    return path_of(to)


# --- what is there --------------------------------------------------------------------------------


def _published(job: Job, options: Options) -> tuple[bool, list[PartRow], int]:
    """
    Whether the output is finished, its parts, and how many groups were rejected.
    """
    state = job.state
    if not state.ledger.exists():
        raise OutputError(f"{job.output} has no ledger at {state.ledger}", "run the job first")
    with LedgerReader.open(state.ledger) as ledger:
        parts, rejected = ledger.parts(), Account.of(ledger).rejected
    output = OutputFolder(job.output, state, lambda _: None)
    finished = output.has_success()
    if not finished and not options.partial:
        raise OutputError(
            f"{job.output} has no _SUCCESS: it is not finished",
            "run the job to its end, or export what is published with --partial",
        )
    if not parts:
        raise OutputError(f"{job.output} has no part yet", "run the job first")
    _check_whole(output, parts)
    return finished, parts, rejected


def _check_whole(output: OutputFolder, parts: Sequence[PartRow]) -> None:
    damaged = frozenset(output.damaged(parts))
    wrong = [part for part in parts if part.stale or part.number in damaged]
    if wrong:
        raise OutputError(
            f"{some([part_file(part.number) for part in wrong])}: damaged, missing or to be"
            " rendered again",
            "run the job: it renders them without a call",
        )


def _check_unchanged(job: Job, parts: Sequence[PartRow]) -> None:
    """
    Refuse what was read if a run has rendered some of it anew meanwhile.
    """
    with LedgerReader.open(job.state.ledger) as ledger:
        now = frozenset(ledger.parts())
    if not now.issuperset(parts):
        raise OutputError(
            f"{job.output} was changed by a run while it was exported", "export it again"
        )
