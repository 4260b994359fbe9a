"""
Which other outputs a job may take scores from.

Owns what `output.reuse` means: what is named has to be there, finished and readable, or nobody is
called; "previous" takes the newest that is finished, and says so if there is none; what `--restart`
has set aside is looked at as far as it goes. Compares nothing: `reusing` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from batchrank.errors import OutputError, StorageError
from batchrank.job.loading import Job
from batchrank.places.remote import Place, Remote, StoreError
from batchrank.store.finished import Finished, as_it_is, finished, is_finished


@dataclass(frozen=True, slots=True)
class Earlier:
    """
    Outputs in the order in which they are asked, and words about what is not among them. *none*
    says why there is no earlier day's: that matters where there is nothing else either.
    """

    outputs: tuple[Finished, ...] = ()
    unfit: tuple[str, ...] = ()
    none: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """
        What a person should know.
        """
        return (*self.unfit, self.none) if self.none and not self.outputs else self.unfit

    def before(self, other: Earlier) -> Earlier:
        """
        These outputs, and then *other*'s.
        """
        both = self.outputs + other.outputs, self.unfit + other.unfit
        return Earlier(*both, self.none or other.none)


def earlier_of(job: Job) -> Earlier:
    """
    The outputs that the job file speaks of, checked as far as their footers tell.

    Raises:
        NotReady: one that is named is not finished.
        OutputError: one cannot be used.
        StorageError: the store of one does not answer.
    """
    if job.config.output.reuse != "previous":
        return Earlier(tuple(map(_checked, job.reused)))
    newest = next(filter(is_finished, _perhaps_there(job.reused)), None)
    if newest is not None:
        return Earlier((_checked(newest),))
    return Earlier(none=f'output.reuse = "previous": {_none(job)}')


def _perhaps_there(folders: Sequence[Place]) -> Sequence[Place]:
    """
    Those of *folders* that the folder above all of them does not lack.

    Of a year of days most are not there, and in a store each question is a request or two: the
    names of all are one. Who may not list there asks one by one.
    """
    first = next(iter(folders), None)
    if not isinstance(first, Remote):
        return folders
    above = next((p for p in first.parents if all(p in f.parents for f in folders)), None)
    if above is None:  # the day is in the bucket's name
        return folders
    depth = len(above.uri.segments)
    try:
        names = {entry.name for entry in above.iterdir()}
    except FileNotFoundError:
        return ()
    except StoreError:
        return folders
    return [f for f in folders if isinstance(f, Remote) and f.uri.segments[depth] in names]


def _checked(folder: Place) -> Finished:
    try:
        return finished(folder)
    except OSError as error:
        why = f"output.reuse: {folder} cannot be looked into: {error.strerror or error}"
        if isinstance(error, StoreError) and error.outage:
            raise StorageError(why, "run again when the store answers") from error
        raise OutputError(why, "let it be read, or take it out of output.reuse") from error


def _none(job: Job) -> str:
    if not job.earlier:
        return "{date} is not a day, so that none is the one before"
    if not job.reused:
        return "output.path is the same on all days: only --restart leaves something to reuse"
    return f"none of the outputs of the {len(job.earlier)} days before is finished"


def set_aside(job: Job) -> Earlier:
    """
    What `--restart` has set aside of this output, the newest first; what cannot be read is told.

    Found by its name (see `opening`), so that nothing is lost if the run after it is killed.
    """
    if not job.config.output.reuse:
        return Earlier()
    state, output = job.state.path, job.output
    folders = list(state.parent.glob(f"{escape(state.name)}.aside-*/output-*"))
    if isinstance(output, Path):
        folders += output.parent.glob(f".{escape(output.name)}.aside-*")
    newest_first: list[Place] = [*sorted(folders, key=_stamp, reverse=True)]
    return as_they_are(newest_first)


def _stamp(folder: Path) -> str:
    name = next(name for name in (folder.name, folder.parent.name) if ".aside-" in name)
    return name.rpartition(".aside-")[2]


def as_they_are(folders: Sequence[Place]) -> Earlier:
    """
    Outputs that nobody has named: parts of them will do, and none is missed.
    """
    outputs, notes = [], []
    for folder in folders:
        try:
            outputs.append(as_it_is(folder))
        except (OSError, OutputError) as error:
            why = error.message if isinstance(error, OutputError) else str(error)
            notes.append(f"nothing is taken from {folder}: {why}")
    return Earlier(tuple(outputs), tuple(notes))
