"""
From a job file to a `Job`: valid, with its vendor, its key and its folders.

Owns the order: the whole file is right before the key is looked at, and nobody is contacted but who
gives out keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchrank.config import (
    JobConfig,
    asking,
    deadline_at,
    earlier_outputs,
    output_settings,
    parse,
    score_settings,
)
from batchrank.config.lines import Lines
from batchrank.config.wording import dotted
from batchrank.domain import Price
from batchrank.errors import JobError, Problem, SourceError
from batchrank.job.inprocess import InProcess
from batchrank.job.problems import problems_of
from batchrank.job.ways import (
    OPTION_MODELS,
    Way,
    kinds,
    path_of,
    ways_of,
)
from batchrank.places.remote import Place, absolute, placed
from batchrank.places.uri import is_uri
from batchrank.policy.capacity import Bounds
from batchrank.providers import Vendor
from batchrank.providers.base import Settings
from batchrank.source.parquet import ParquetSource
from batchrank.source.staged import open_groups
from batchrank.store.output import StateFolder
from batchrank.store.parts import Layout


@dataclass(frozen=True, slots=True)
class Job:
    """
    A job that could be run, as far as its file and its key tell.

    *base* is the folder that relative paths start from; *ways* are those to a model, the first
    one first, without their keys where none was asked for (`plan` does without). *lines* tells
    where in the file a setting stands. *earlier* is what `output.path` was on the days before, the
    newest first, if the job asks for it.
    """

    config: JobConfig
    file: Path
    base: Path
    ways: tuple[Way, ...]
    now: datetime
    lines: Lines
    earlier: tuple[str, ...] = ()

    # --- provider ---------------------------------------------------------------------------------

    @property
    def first(self) -> Way:
        """
        The way that is taken while nothing is in the way.
        """
        return self.ways[0]

    @property
    def vendor(self) -> Vendor | None:
        """
        Whose way that is; None for a scorer in process.
        """
        return self.first.vendor

    @property
    def asks_somebody(self) -> bool:
        """
        Whether any way leads out of this process: then calls may cost, and caps count.
        """
        return any(way.vendor is not None for way in self.ways)

    @property
    def in_process(self) -> InProcess | None:
        """
        Who scores in this process, if nobody else is asked.
        """
        return self.first.in_process

    @property
    def model(self) -> str:
        """
        The model that is asked for.
        """
        return self.first.model

    @property
    def splits(self) -> bool:
        """
        Whether a group may be asked about in several requests: it is alike on all ways.
        """
        return self.first.splits

    @property
    def bounds(self) -> Bounds:
        """
        What one request may hold: as the job says, else as is known of the vendor.
        """
        return self.first.bounds

    @property
    def at_once(self) -> tuple[Way, ...]:
        """
        The ways that are taken while nothing is in the way.
        """
        return self.ways if self.config.provider.strategy == "spread" else self.ways[:1]

    @property
    def limit_per_s(self) -> float | None:
        """
        The requests a second that are allowed on these; None if that is not told of all of them.
        """
        limits = [limit for way in self.at_once if (limit := way.limits.request_limit)]
        told = len(limits) == len(self.at_once)
        return sum(limit.per_s for limit in limits) if told else None

    @property
    def concurrency_most(self) -> int:
        """
        How many calls are ever under way at once, on all ways together.
        """
        return sum(way.limits.concurrency_most for way in self.ways)

    @property
    def price(self) -> Price | None:
        """
        The price on the first way.
        """
        return self.first.price

    @property
    def sent_top_n(self) -> int | None:
        """
        The `top_n` that is sent, if it is.
        """
        return self.first.top_n

    @contextmanager
    def _placing(self, place: int) -> Iterator[None]:
        """
        Tell problems of the way at *place* with the job's file and their lines.
        """
        try:
            yield
        except JobError as error:
            problems = [*_of_way(error, place, self.lines)]
            raise JobError(str(self.file), problems) from error

    def ready(self) -> None:
        """
        Have scorers in process do at once what may fail or take long.

        Raises:
            JobError: it could not score.
        """
        for place, way in enumerate(self.ways):
            if way.in_process is not None:
                with self._placing(place):
                    way.in_process.ready(way.table, self.base)

    def settings(self) -> Settings:
        """
        What the first way's translation needs to know.
        """
        return self.first.settings()

    # --- what decides scores and parts ------------------------------------------------------------

    def score_settings(self) -> dict[str, Any]:
        """
        Every setting that decides a score.
        """
        others = sorted(set(kinds(self.ways)) - {self.model})
        first = self.first
        settings = score_settings(self.config, first.score_options, first.base_url, others)
        if first.in_process is None:
            return settings
        with self._placing(0):
            return {**settings, **first.in_process.decisive(first.table, self.base)}

    def output_settings(self) -> dict[str, Any]:
        """
        Every setting that shapes parts and no score.
        """
        return output_settings(self.config)

    @property
    def layout(self) -> Layout:
        """
        The shape of the parts.
        """
        output = self.config.output
        who = asking(self.score_settings())
        return Layout(output.layout, output.top_n, output.part_groups, who)

    # --- source -----------------------------------------------------------------------------------

    def open_source(
        self,
        progress: Callable[[int], None] = lambda _: None,
        begun_with: Collection[str] = (),
    ) -> ParquetSource:
        """
        The groups; of nested Parquet nothing but footers is read, all else is staged if it is not
        yet. *progress* hears how many rows that have been. What PostgreSQLs gave serves as long as
        it is kept, if it is what the output was *begun_with* (digests of contents).

        Raises:
            NotReady: upstream has not finished writing.
            SourceError: what is there cannot be read as the job says; told with file and line.
            StorageError: there is no room to stage it.
        """
        try:
            source = open_groups(
                self.config.source,
                self.base,
                self.staging,
                progress,
                self.state.prepare,
                self.config.stores,
                begun_with,
            )
        except SourceError as error:
            if not error.problems:
                raise
            placed = [_placed(problem, self.lines) for problem in error.problems]
            raise SourceError(error.head, error.hint, placed, str(self.file)) from error
        if self.config.output.reuse_pairs:
            source.key_pairs()
        return source

    def dedupes(self, source: ParquetSource) -> bool:
        """
        Whether equal groups of *source* are asked about once: as the job says, else where the
        source is staged and somebody has to be paid.
        """
        wish = self.config.source.dedupe
        return source.staged and self.vendor is not None if wish is None else wish

    # --- folders ----------------------------------------------------------------------------------

    @property
    def output(self) -> Place:
        """
        The folder of the parts, absolute, or their prefix in a store.
        """
        return self._placed(self.config.output.path)

    def _placed(self, path: str) -> Place:
        if is_uri(path):
            return placed(self.base, path, self.config.stores)
        return absolute(self.base, path)

    @property
    def reused(self) -> list[Place]:
        """
        The outputs whose scores may be taken, absolute, never its own: those that are named, or
        every one that is earlier, the newest first.
        """
        named = self.config.output.reuse
        paths = self.earlier if named == "previous" else (named or ())
        folders = dict.fromkeys(map(self._placed, paths))
        return [folder for folder in folders if folder != self.output]

    @property
    def state(self) -> StateFolder:
        """
        This output's own folder among those of the job's other outputs.
        """
        root = absolute(self.base, self.config.output.state or ".batchrank")
        return StateFolder(root / _folder_name(self.output, root.parent))

    @property
    def staging(self) -> Path:
        """
        Where the source is staged, if it is.
        """
        return self.state.path / STAGED

    @property
    def deadline(self) -> datetime | None:
        """
        When the process must have left.
        """
        told = self.config.run.deadline
        return None if told is None else deadline_at(told, self.config.time_zone, self.now)


STAGED = "source"
"""The folder in a state folder that the source is staged in."""


def _folder_name(output: Place, near: Path) -> str:
    """
    A name for one output that a person recognises and no two outputs share.

    It depends on where the output lies from *near*, so that a folder may be moved with its state.
    """
    shown = os.path.relpath(output, near) if isinstance(output, Path) else str(output)
    plain = re.sub(r"[^A-Za-z0-9=]+", "-", shown).strip("-")[-60:].strip("-")
    return f"{plain or 'output'}-{sha256(shown.encode()).hexdigest()[:8]}"


def load(
    file: str | os.PathLike[str],
    overrides: Mapping[str, str | float | date] | None = None,
    *,
    now: datetime | None = None,
    with_key: bool = True,
) -> Job:
    """
    Read the job file *file*; *overrides* set its variables: text, numbers, or days.

    *with_key* False leaves the key alone: whoever calls nobody needs none.

    Raises:
        JobError: with every problem, if there is any.
    """
    path = Path(file)
    now = now or datetime.now(UTC)
    text = _read(path)
    texts = _as_texts(overrides or {}, str(path))
    config = parse(text, where=str(path), now=now, option_models=OPTION_MODELS, overrides=texts)
    ways, lines = ways_of(config), Lines(text)
    base = path.resolve().parent
    if problems := problems_of(config, ways, base, lines):
        raise JobError(str(path), problems)
    if with_key:
        ways = _with_keys(ways, base, lines, str(path))
    previous = config.output.reuse == "previous"
    earlier = earlier_outputs(text, now, texts) if previous else ()
    return Job(config, path, base, ways, now, lines, tuple(earlier))


def _with_keys(ways: Sequence[Way], base: Path, lines: Lines, where: str) -> tuple[Way, ...]:
    """
    The ways with their keys, or every key that is missing at once.
    """
    keyed: list[Way] = []
    problems: list[Problem] = []
    for place, way in enumerate(ways):
        try:
            keyed.append(way.with_key(base))
        except JobError as error:
            problems += _of_way(error, place, lines)
    if problems:
        raise JobError(where, problems)
    return tuple(keyed)


def _of_way(error: JobError, place: int, lines: Lines) -> Iterator[Problem]:
    """
    Problems that are told as if there were one way only; the others' tables have the same keys.
    """
    for problem in error.problems:
        path = (*path_of(place), problem.key.rpartition(".")[2])
        yield replace(problem, key=dotted(path), line=lines.of(path))


def _as_texts(overrides: Mapping[str, object], where: str) -> dict[str, str]:
    """
    Values of variables as `--set` would give them; what no command line can say is refused.
    """
    problems = [
        Problem(0, f"set {name}", f"is a {type(value).__name__}, expected text, a number or a day")
        for name, value in overrides.items()
        if isinstance(value, bool | datetime) or not isinstance(value, str | int | float | date)
    ]
    if problems:
        raise JobError(where, problems)
    return {str(name): str(value) for name, value in overrides.items()}


def _placed(problem: Problem, lines: Lines) -> Problem:
    """
    *problem* with the line of its setting.
    """
    return replace(problem, line=lines.of(tuple(problem.key.split("."))))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        remedy = "`batchrank init` writes one" if isinstance(error, FileNotFoundError) else ""
        raise JobError(str(path), [Problem(0, "", f"cannot be read: {words}", remedy)]) from error
