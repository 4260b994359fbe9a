"""
Every way batchrank refuses or gives up: whose fault it is, what to do next, its exit code.

    BatchrankError                 each has .hint (the next thing to do) and .exit_code
    ├─ JobError                2   the job file or the command; lists every problem at once
    ├─ SourceError             2   the data: a column, a footer, a page
    ├─ NotReady               75   the data is not there yet; a later retry finds it
    ├─ OutputError             2   the output folder is not this job's, or cannot be written
    ├─ ChangedError            2   the source or a score setting is not what the output began with
    ├─ AlreadyRunning         75   another process has this output
    ├─ Unconfirmed             3   it may cost more than may be spent unasked, and nobody agreed
    ├─ StorageError            4   the disk, the ledger or an object store failed us
    ├─ RehearsalError          2   the embedded server is gone, or refuses what it is told
    └─ PortInUse               2   the embedded server cannot listen there

What a provider does wrong is not an exception: it is a `Failure`, a value, because paid calls of
others are under way while it happens. An exception that is not in this tree is a bug (exit 70).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Exit(IntEnum):
    """
    What the process says to cron, Airflow or a shell when it leaves.
    """

    DONE = 0
    REJECTS = 1  # finished, but more groups were rejected than the job allows
    USAGE = 2  # the job file, the source or the command
    PERSON = 3  # stopped; key, credit, model or budget need a person
    STORAGE = 4
    BUG = 70
    LATER = 75  # stopped early; a blind retry heals it


class Signalled(BaseException):
    """
    A signal, by its name, came while no engine was there to hear it: before a run's first call, or
    after its last part.

    Not a KeyboardInterrupt: after one of those Python may leave with a status of its own.
    """


class BatchrankError(Exception):
    """
    The root of the tree; never raised itself.
    """

    exit_code: ClassVar[Exit] = Exit.BUG

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One mistake in a job file: where, what, and how to mend it. *line* counts from 1, 0 is unknown.
    """

    line: int
    key: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        key = f"{self.key}: " if self.key else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{key}{self.message}{remedy}"


class JobError(BatchrankError):
    """
    The job file or the command is wrong; *problems* holds every mistake that was found.
    """

    exit_code = Exit.USAGE

    def __init__(self, where: str, problems: Sequence[Problem], hint: str = "") -> None:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        super().__init__("\n".join([f"{where}: {count}", *(f"  {p}" for p in problems)]), hint)
        self.problems = tuple(problems)


class SourceError(BatchrankError):
    """
    The source cannot be read as the job says; *problems* are the settings that are at fault.

    *message* introduces them, if they need that; *where* is the job file, once its lines are known.
    """

    exit_code = Exit.USAGE

    def __init__(
        self, message: str, hint: str = "", problems: Sequence[Problem] = (), where: str = ""
    ) -> None:
        indent = "  " if message else ""
        told = "\n".join([*filter(None, [message]), *(f"{indent}{p}" for p in problems)])
        super().__init__(f"{where}: {told}" if where else told, hint)
        self.head = message
        self.problems = tuple(problems)


class RehearsalError(BatchrankError):
    """
    The embedded server did not start as it was told, or is gone.
    """

    exit_code = Exit.USAGE


class NotReady(BatchrankError):
    """
    Upstream has not finished writing the source.
    """

    exit_code = Exit.LATER


class OutputError(BatchrankError):
    """
    The output or state folder cannot be used.
    """

    exit_code = Exit.USAGE


class ChangedError(BatchrankError):
    """
    Scores of two different questions would be mixed in one output.
    """

    exit_code = Exit.USAGE


class AlreadyRunning(BatchrankError):
    """
    Another runner holds this output.
    """

    exit_code = Exit.LATER


class Unconfirmed(BatchrankError):
    """
    A run may cost more than may be spent without a person's word, and nobody gave it.
    """

    exit_code = Exit.PERSON


class StorageError(BatchrankError):
    """
    Something durable failed: a full disk, a failed fsync, a damaged ledger.

    *out_of_space* tells the one case in which trying again after making room is safe.
    """

    exit_code = Exit.STORAGE

    def __init__(self, message: str, hint: str = "", *, out_of_space: bool = False) -> None:
        super().__init__(message, hint)
        self.out_of_space = out_of_space


class PortInUse(BatchrankError):
    """
    The embedded server's port is taken.
    """

    exit_code = Exit.USAGE
