"""
What need not be paid for: scores that earlier outputs have, groups that ask the same as another.

Owns the pass over the source that this takes before the first call, what becomes durable in which
order (what parts need besides scores, then scores, each commit whole), and when the look-up need
not be repeated. A kill in between loses nothing and copies nothing twice: what is copied is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from batchrank.config.schema import size_bytes
from batchrank.domain import Positions, Ranked
from batchrank.errors import OutputError
from batchrank.events import Noticed, Reporter
from batchrank.job.earlier import Earlier, earlier_of, set_aside
from batchrank.job.loading import Job
from batchrank.job.ways import asked_of_one_model, served_by
from batchrank.job.world import World
from batchrank.observe.report import counted
from batchrank.places.remote import Place
from batchrank.policy.digest import digest_of
from batchrank.providers.base import same_model
from batchrank.source.parquet import ParquetSource
from batchrank.store import blocks
from batchrank.store.finished import Finished
from batchrank.store.ledger import Ledger, Records
from batchrank.store.reading import LedgerReader
from batchrank.store.reuse import WANTED_TOGETHER, Comparison, Wanted, comparing

OUTCOMES_TOGETHER = 5_000
CARRIED_BYTES_TOGETHER = 8 * 2**20
"""What one commit holds at most, more or less."""

BLOCKS_TOGETHER = 64
"""So many blocks of packed columns are read at once."""


@dataclass(slots=True)
class Found:
    """
    What a comparison came to: groups that were *found*, those of which some scores are missing
    (*partly*), and by output how many groups it has scores of by the right *model*, as it is called
    where it *served*; *equal* groups ask the same as another one, whose outcome they take.
    *complete* groups stand in no output and have the scores of all their pairs there, others those
    of so many *pairs*; *without_pairs* are outputs that do not tell pairs apart.
    """

    found: int = 0
    partly: int = 0
    had: dict[Place, int] = field(default_factory=dict)
    model: str = ""
    served: Mapping[str, str] = field(default_factory=dict)
    equal: int = 0
    complete: int = 0
    pairs: int = 0
    without_pairs: tuple[Place, ...] = ()

    @property
    def summary(self) -> Iterator[str]:
        """
        What was found, and where.
        """
        where = ", ".join(str(folder) for folder in self.had)
        if self.had and not self.found:
            yield f"no group has its scores in {where}"
        elif self.had:
            has, it = ("has its", "it") if self.found == 1 else ("have their", "them")
            yield f"{counted(self.found, 'group')} {has} scores from {where}: no call for {it}"
        if self.equal:
            asks = "asks" if self.equal == 1 else "ask"
            it = "it" if self.equal == 1 else "them"
            yield f"{counted(self.equal, 'group')} {asks} the same as another: no call for {it}"
        if self.complete:
            has, it = ("has", "it") if self.complete == 1 else ("have", "them")
            more = f"{counted(self.complete, 'group')} more {has} the scores of all documents there"
            yield f"{more}: no call for {it}"
        if self.pairs:
            is_not, has = ("is not", "has") if self.pairs == 1 else ("are not", "have")
            of_groups = f"{counted(self.pairs, 'document')} of groups that have changed"
            yield f"{of_groups} {is_not} sent: each {has} its score there"

    def warnings(self) -> Iterator[str]:
        """
        What a person may have expected otherwise.
        """
        if self.partly:
            are, they = ("is", "it is") if self.partly == 1 else ("are", "they are")
            some = f"{counted(self.partly, 'group')} {are} in earlier outputs with some scores only"
            yield f"{some}, as output.top_n cut them there: {they} called"
        for folder, groups in self.had.items():
            if not groups:
                yield f"{folder} holds no scores of {self.model}: nothing is taken from it"
        for folder in self.without_pairs:
            yield f"{folder} was written without output.reuse_pairs: it gives whole groups only"


class _OneModel:
    """
    Accepts the model that has served this job, or the first one that is as it was asked for; by
    each route to it, since vendors call one model by several names. *asked* and *served* are names
    by what the ledger keeps the served one under.
    """

    def __init__(self, asked: Mapping[str, str], served: Mapping[str, str]) -> None:
        self._asked = asked
        self.served = {key: model for key, model in served.items() if key in asked}

    def __call__(self, model: str) -> bool:
        for key, asked in self._asked.items():
            if key not in self.served and same_model(asked, model):
                self.served[key] = model
        return model in self.served.values()


Keep = Callable[[int, int, bytes], None]

Ended = Iterable[tuple[int, bytes, bool]]
"""Groups that have an outcome: position, digest, whether that is scores."""


@contextmanager
def compared(
    job: Job,
    source: ParquetSource,
    outputs: Sequence[Finished],
    done: Positions,
    stop: int,
    folder: Path,
    served: Mapping[str, str] | None = None,
    keep: Keep = lambda *_: None,
    ended: Ended | None = None,
) -> Iterator[tuple[Found, Comparison]]:
    """
    Look up in *outputs* all groups below *stop* that are not in *done* and need a call. *keep* is
    given position, rows and carried block of every batch; *served* are the models that have served
    so far. With *ended*, which are groups in *done*, they are compared with these and with each
    other.

    Raises:
        SourceError, ChangedError: the source cannot be read.
        OutputError: one of the outputs cannot.
        StorageError: there is no room in *folder*.
    """
    accepts = _OneModel(asked_of_one_model(job.ways), served or {})
    with comparing(folder, size_bytes(job.config.source.memory)) as comparison:
        pairs = job.config.output.reuse_pairs
        _want(comparison, source, done, stop, job.layout.asking, keep)
        had = {one.folder: comparison.have(one, accepts, pairs=pairs) for one in outputs}
        found = Found(*comparison.match(), had, job.model, accepts.served)
        if ended is not None:
            comparison.ended(ended)
            found.equal = comparison.match_equal()
        if pairs:
            found.without_pairs = tuple(one.folder for one in outputs if not one.has_pairs)
            comparison.match_pairs()
            for _, count, whole in comparison.known_counts():
                found.complete += whole
                found.pairs += 0 if whole else count
            if not found.without_pairs:
                found.partly = 0  # what they have is taken
        yield found, comparison


def _want(
    comparison: Comparison,
    source: ParquetSource,
    done: Positions,
    stop: int,
    asking: bytes,
    keep: Keep,
) -> None:
    held = Wanted()
    for batch in source.batches(done, stop):
        first, block = batch.position, batch.carried
        keep(first, batch.rows, block)
        contents, pairs = blocks.contents(block), blocks.pairs(block)
        for position in done.missing(first, min(first + batch.rows, stop)):
            content, group = contents[position - first], batch.group(position)
            if content is not None and group.flaw is None:
                count = len(group.documents)
                sent = count - group.documents.count(None)
                keys = _digests(asking, pairs[position - first]) if pairs else None
                held.add(position, digest_of(asking, content), count, sent, group.cut, keys)
        if len(held) >= WANTED_TOGETHER:
            comparison.want(held)
            held = Wanted()
    comparison.want(held)


def _digests(asking: bytes, keys: Sequence[bytes | None]) -> list[bytes | None]:
    return [key and digest_of(asking, key) for key in keys]


def ended_in(ledger: LedgerReader, done: Positions, asking: bytes) -> Ended:
    """
    The groups of *done* as they were when they were asked about, whatever the source holds now.

    One that was rejected for a flaw of its own was not asked about: an equal of it may be sound.
    """
    rejected, last = set(ledger.rejected_positions()), -1
    flawed = set(ledger.flawed_positions())
    while done and (kept := ledger.carried_after(last, BLOCKS_TOGETHER)):
        for first, rows, block in kept:
            last, missing = first, set(done.missing(first, first + rows))
            for position, content in enumerate(blocks.contents(block), first):
                if content is not None and position not in missing and position not in flawed:
                    yield position, digest_of(asking, content), position not in rejected


# --- copying --------------------------------------------------------------------------------------


def reuse(
    world: World, reporter: Reporter, done: Positions, together: int = OUTCOMES_TOGETHER
) -> None:
    """
    Copy what earlier outputs have into the ledger, so many groups *together*; the positions are in
    *done* afterwards. Note there which of the others take whose outcome (see `following`).

    Raises:
        SourceError, ChangedError, OutputError, StorageError: as `compared`; nobody was called.
    """
    missing = world.target - done.count(0, world.target)
    if not missing:
        return
    earlier = set_aside(world.job).before(earlier_of(world.job))
    outputs = earlier.outputs
    for note in earlier.notes:
        world.notice(note, reporter)
    look_up = _look_up(world, outputs)
    if not (outputs or world.dedupes) or _is_known(world, look_up):
        return
    where = f"looked up in {counted(len(outputs), 'earlier output')}"
    how = where if outputs else "compared with each other"
    reporter.report(Noticed(f"{counted(missing, 'group')} are {how}"))
    keeping, served = _Keeping(world.ledger), served_by(world.ledger.meta())
    folder = world.state.path / "reuse"
    ended = ended_in(world.ledger, done, world.job.layout.asking) if world.dedupes else None
    with compared(
        world.job, world.source, outputs, done, world.target, folder, served, keeping.keep, ended
    ) as (found, comparison):
        keeping.flush()
        for outcomes in comparison.ranked(together):
            _copy(world.ledger, outcomes, found.served, done)
        known = comparison.known() if found.pairs or found.complete else iter(())
        while some := list(islice(known, together)):
            _copy_pairs(world.ledger, some, found.served, done)
        equals = comparison.equals() if found.equal else ()
        world.ledger.put_equals(equals, {"looked_up": look_up})
    for note in (*found.summary, *found.warnings()):
        world.notice(note, reporter)


def _is_known(world: World, look_up: list[Any]) -> bool:
    """
    Tell whether another look would find nothing new. What a mended file holds is looked up by every
    run: what the ledger carries of it is read anew, too (see `started`).
    """
    meta = world.ledger.meta()
    mended = world.dedupes and meta.get("accepted")
    return not mended and meta.get("looked_up") == look_up


def _copy(
    ledger: Ledger, outcomes: Sequence[Ranked], served: Mapping[str, str], done: Positions
) -> None:
    count, models = len(outcomes), dict(served)
    ledger.commit(Records(at=time.time(), outcomes=[*outcomes], models=models, reused=count))
    for outcome in outcomes:
        done.add(outcome.position)


def _copy_pairs(
    ledger: Ledger,
    found: Sequence[tuple[Ranked, bool]],
    served: Mapping[str, str],
    done: Positions,
) -> None:
    """
    Copy what is whole, and keep of the others what need not be sent.
    """
    known = [ranked for ranked, whole in found if not whole]
    ledger.commit(Records(at=time.time(), known=known, models=dict(served)))
    _copy(ledger, [ranked for ranked, whole in found if whole], served, done)


def _look_up(world: World, outputs: Sequence[Finished]) -> list[Any]:
    """
    What is the same when another look would find nothing new.
    """
    accepted = world.ledger.meta().get("accepted", [])
    pairs = world.job.config.output.reuse_pairs
    try:
        return [world.target, accepted, [o.identity for o in outputs], world.dedupes, pairs]
    except OSError as error:
        why = f"output.reuse: a part vanished: {error}"
        raise OutputError(why, "run again when nobody writes there") from error


class _Keeping:
    """
    Makes durable what parts need besides scores, before any score is: some batches at a time.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._records = Records()
        self._bytes = 0

    def keep(self, position: int, rows: int, body: bytes) -> None:
        """
        Take a batch's packed columns.
        """
        self._records.carried.append((position, rows, body))
        self._bytes += len(body)
        if self._bytes >= CARRIED_BYTES_TOGETHER:
            self.flush()

    def flush(self) -> None:
        """
        Commit what was taken.
        """
        self._records.at = time.time()
        self._ledger.commit(self._records)
        self._records, self._bytes = Records(), 0


def would_reuse(
    job: Job,
    source: ParquetSource,
    earlier: Earlier,
    done: Positions,
    folder: Path,
    ledger: LedgerReader | None,
) -> tuple[Found, Positions, Positions]:
    """
    What would be copied: from earlier outputs, whole or pair by pair, and from equal groups.
    Nothing is written but *folder*, which is removed; *ledger* is that of what is done, if anything
    is.

    Raises:
        SourceError, ChangedError, OutputError, StorageError: as `compared`.
    """
    found, equal = Positions(source.total), Positions(source.total)
    ended: Ended | None = None
    if job.dedupes(source):
        ended = ended_in(ledger, done, job.layout.asking) if ledger else ()
    with compared(job, source, earlier.outputs, done, source.total, folder, ended=ended) as (
        came_to,
        comparison,
    ):
        for position in comparison.positions():
            found.add(position)
        for position, _, _ in comparison.equals() if came_to.equal else ():
            equal.add(position)
        for position, _, whole in comparison.known_counts() if came_to.complete else ():
            if whole:
                found.add(position)
    return came_to, found, equal
