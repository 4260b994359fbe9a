"""
Which ledgers a person means who names job files, patterns of them, and folders of states.

Owns where is looked: beside a job's state for what `--restart` has set aside of it, in a folder for
states and one level deep, so that rehearsals, which lie deeper, are never taken for the real thing.
Each ledger is found once, however often it is named. Opens none.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from batchrank.errors import JobError, OutputError, Problem
from batchrank.job import load
from batchrank.store.output import StateFolder

ASIDE = ".aside-"
"""Stands in the name of a state folder that `--restart` has set aside."""


def ledgers(
    named: Sequence[str], overrides: Mapping[str, str]
) -> tuple[list[StateFolder], list[str]]:
    """
    The states of all that is *named*, in that order, and notes on what has none.

    Raises:
        JobError: a job file cannot be read, or variables are set where there is none.
        OutputError: there is no ledger at all.
    """
    paths = [path for name in named for path in _paths(name)]
    found: dict[Path, StateFolder] = {}
    without: list[str] = []
    for path in paths:
        with _readable():
            states = _of_folder(path) if path.is_dir() else _of_job(path, overrides)
        found |= {state.path.resolve(): state for state in states}
        if not states:
            without.append(_nothing(path))
    if overrides and all(path.is_dir() for path in paths):
        wrong = Problem(0, "--set", "means nothing to folders of states", "name the job file")
        raise JobError("batchrank bill", [wrong])
    if not found:
        raise OutputError("; ".join(without), "run a job, or name a folder of states (.batchrank)")
    return list(found.values()), without


def _paths(name: str) -> list[Path]:
    """
    What a name stands for: itself, or if that is not there and it is a pattern, what matches.
    """
    try:
        path = Path(name).expanduser()
        is_pattern = glob.has_magic(name) and not path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: ~nobody
        raise JobError("batchrank bill", [Problem(0, name, f"names nothing: {error}")]) from error
    return _matching(name, str(path)) if is_pattern else [path]


def _matching(name: str, pattern: str) -> list[Path]:
    found = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes none from /
    matches = [Path(match) for match in sorted(found)]
    fit = [match for match in matches if match.is_dir() or match.suffix == ".toml"]
    if not fit:
        wrong = Problem(0, name, "matches no job file and no folder", "job files end in .toml")
        raise JobError("batchrank bill", [wrong])
    return fit


def _of_job(file: Path, overrides: Mapping[str, str]) -> list[StateFolder]:
    state = load(file, overrides, with_key=False).state
    aside = f"{glob.escape(state.path.name)}{ASIDE}*"
    return _begun([*sorted(state.path.parent.glob(aside)), state.path])


def _of_folder(folder: Path) -> list[StateFolder]:
    return _begun([folder, *sorted(folder.iterdir())])


def _begun(folders: Sequence[Path]) -> list[StateFolder]:
    """
    Those of *folders* with a ledger; one that is empty was made by a run that did not begin.
    """
    states = map(StateFolder, folders)
    return [s for s in states if s.ledger.is_file() and s.ledger.stat().st_size]


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"{error.filename} cannot be looked into: {error.strerror}"
        raise OutputError(why, "let it be read, or name it not") from error


def _nothing(path: Path) -> str:
    return f"{path} holds no ledger" if path.is_dir() else f"{path} was never begun"
