"""
The world that a job names, checked and held: source, folders, lock, ledger.

Owns the order of the checks: all of them come before anything is paid, and what is refused is left
as it was. Owns where an old output goes that is set aside. What may change on one that is carried
on is told in `started`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from batchrank.errors import OutputError, StorageError
from batchrank.events import Noticed, Reporter, SourceStaging
from batchrank.job.earlier import earlier_of
from batchrank.job.loading import STAGED, Job
from batchrank.job.money import settle_after_kill
from batchrank.job.started import carry_on, meta_of, refusal
from batchrank.job.world import Wishes, World
from batchrank.places.remote import Place, is_within, placed
from batchrank.policy.billing import about_age
from batchrank.source.files import look
from batchrank.source.parquet import ParquetSource
from batchrank.store.disk import Lock, make_folder
from batchrank.store.ledger import Ledger
from batchrank.store.output import OutputFolder, some, unfit
from batchrank.store.reading import LedgerReader
from batchrank.store.shelf import shelf_of

STAGING_TOLD_S = 5.0
"""Between two words about staging, in seconds."""


@contextmanager
def opened(job: Job, wishes: Wishes, reporter: Reporter) -> Iterator[World]:
    """
    Check everything, and hold the output until the context ends.

    Raises:
        NotReady, SourceError: the source.
        OutputError, ChangedError, AlreadyRunning, StorageError: the output and its state.
    """
    source = job.open_source(_telling(reporter), () if wishes.restart else begun_with(job))
    check_apart(job, source)
    if wishes.restart or not is_begun(job.state.ledger) or is_old_sample(job, source):
        earlier_of(job)  # so that nothing is set aside or made for a run that cannot begin
    state = job.state
    state.prepare()
    shelf_of(job.output).prepare()
    since = job.now.isoformat(timespec="seconds")
    notes: list[str] = []
    if wishes.restart or is_old_sample(job, source):
        with Lock(state.lock, job.output, since):
            # Whoever held it until now may have begun what is there.
            if wishes.restart or is_old_sample(job, source):
                notes += _set_aside(job)
        state.prepare()
        shelf_of(job.output).prepare()
    with Lock(state.lock, job.output, since):
        yield from _world(job, wishes, source, reporter, notes)


def _world(
    job: Job, wishes: Wishes, source: ParquetSource, reporter: Reporter, notes: list[str]
) -> Iterator[World]:
    state = job.state
    output = OutputFolder(job.output, state, reporter.report)
    begun = is_begun(state.ledger)
    output.prepare(begun=begun)
    ledger = Ledger.create_or_open(state.ledger)
    try:
        notes += source.notes
        world = World(job, wishes, source, state, output, ledger, notes)
        if begun:
            carry_on(world)
            if strange := unfit(output.visible()):
                world.notes.append(
                    f"readers take what else lies in {job.output} for scores: {some(strange)}"
                )
        else:
            if not isinstance(job.output, Path):
                world.notes.append(f"the ledger needs a local disk: the state lies in {state.path}")
            ledger.begin({**meta_of(job, source), UNSETTLED: True}, source.files)
        if aged := about_age(job.price, job.now.date()):
            world.notes.append(aged)
        for note in world.notes:
            reporter.report(Noticed(note))
        yield world
    finally:
        ledger.close()


def is_begun(ledger: Path) -> bool:
    """
    Tell whether a ledger is there and knows what its output began with.
    """
    if not ledger.exists() or ledger.stat().st_size == 0:
        return False
    with LedgerReader.open(ledger) as reader:
        return "fingerprint" in reader.meta()


UNSETTLED = "unsettled"
"""
Under this name the ledger says that no run has been at the output but those for a sample, and those
that nobody agreed to.
"""


def is_old_sample(job: Job, source: ParquetSource) -> bool:
    """
    Tell whether nothing is begun but a sample, or less, of other settings or another source:
    whoever asked for an estimate, or found it too high, has not settled on anything, so it is set
    aside and not in the way. A sample of everything, which has finished the output, is no such
    thing.
    """
    if not is_begun(job.state.ledger) or job.state.manifest.exists():
        return False
    with LedgerReader.open(job.state.ledger) as ledger:
        return bool(ledger.meta().get(UNSETTLED)) and refusal(job, source, ledger) is not None


def begun_with(job: Job) -> frozenset[str]:
    """
    Digests of what a begun output's PostgreSQLs gave; none where there are only files to look at.
    """
    asked = any(other.type == "postgres" for other in job.config.source.attach.values())
    if not asked or not is_begun(job.state.ledger):
        return frozenset()
    with LedgerReader.open(job.state.ledger) as reader:
        return frozenset(file.footer_sha256 for file in reader.source_files())


def check_apart(job: Job, source: ParquetSource) -> None:
    """
    Refuse folders that lie in each other: what is written would be read, or told as output.

    Raises:
        OutputError: they do.
    """
    output, state = job.output, job.state.path
    if is_within(output, state) or is_within(state, output):
        raise OutputError(
            f"output.path ({output}) and the state folder ({state}) lie in each other",
            "set output.state to a folder elsewhere",
        )
    files = (placed(job.base, file.path, job.config.stores).resolve() for file in source.files)
    inside = any(_searches(job, path, output) for path in job.config.source.paths)
    if inside or any(is_within(file, output) for file in files):
        raise OutputError(
            f"output.path ({output}) and the source lie in each other:"
            " the next run would read what this one writes",
            "name a folder elsewhere as output.path",
        )


def _telling(reporter: Reporter) -> Callable[[int], None]:
    """
    Tell of staging now and then.
    """
    told_at = time.monotonic()

    def progress(rows: int) -> None:
        nonlocal told_at
        if time.monotonic() >= told_at + STAGING_TOLD_S:
            told_at = time.monotonic()
            reporter.report(SourceStaging(rows))

    return progress


def _searches(job: Job, path: str, output: Place) -> bool:
    """
    Tell whether whoever looks for *path* looks into *output*, too.
    """
    found = look(path, job.base, job.config.stores)
    searched = found.kind == "folder" or "**" in path
    return searched and is_within(output, found.root.resolve())


def _set_aside(job: Job) -> list[str]:
    """
    Move the old output into its state folder, and give that another name: nothing that was paid for
    is deleted, and nothing of it lies where readers of dated folders would find it. Says where.
    """
    state, stamp = job.state.path, job.now.strftime("%Y%m%dT%H%M%SZ")
    shelf = shelf_of(job.output)
    if not any(shelf.names()) and not _may_be_begun(job.state.ledger):
        return []
    notes = _settled(job)
    ends = (f".aside-{stamp}" + (f"-{n}" if n > 1 else "") for n in count(1))
    aside = next(n for end in ends if not (n := state.with_name(state.name + end)).exists())
    try:
        shelf.check_owner(job.state.mark)
        if any(shelf.names()):
            shelf.take_down(_old_output(job, aside))
        shelf.yield_up()
        state.rename(aside)
        if (aside / STAGED).exists():  # it is this source's, whatever becomes of the scores
            make_folder(state, private=True)
            (aside / STAGED).rename(state / STAGED)
    except OSError as error:
        why = f"{job.output} cannot be set aside: {error.strerror or error}"
        raise OutputError(why, "give it another name yourself, or name another one") from error
    return [f"the old output and its state are kept in {aside}", *notes]


def _may_be_begun(ledger: Path) -> bool:
    try:
        return is_begun(ledger)
    except StorageError:
        return True  # damaged, or another version's: `--restart` is what gets it out of the way


def _settled(job: Job) -> list[str]:
    """
    Have the old output hold no more of the budget that jobs share than it has spent: no run will
    look for what a killed one held where its state goes. Says why not where its ledger, for which
    `--restart` may be the remedy, cannot tell.
    """
    if not job.config.budget.is_shared:
        return []
    try:
        if is_begun(job.state.ledger):
            with closing(Ledger.create_or_open(job.state.ledger)) as ledger:
                settle_after_kill(job, ledger)
    except StorageError as error:
        until = "until its days and months are over"
        return [f"what the old output held of budget.shared stays held {until}: {error.message}"]
    return []


def _old_output(job: Job, aside: Path) -> Path:
    """
    Where the old output goes: along with its state, or hidden beside itself on another disk.
    """
    state, output = job.state.path, job.output
    if isinstance(output, Path) and state.stat().st_dev != output.stat().st_dev:
        return output.with_name(f".{output.name}{aside.name.removeprefix(state.name)}")
    return next(p for n in count(1) if not (p := state / f"output-{n}").exists())
