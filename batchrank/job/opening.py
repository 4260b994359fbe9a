"""
The world that a job names, checked and held: source, folders, lock, ledger.

Owns the order of the checks: all of them come before anything is paid, and what is refused is left
as it was. Owns what may change on a started output: a score setting may not, an output setting
renders parts again, everything else is free.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrank import __version__
from batchrank.config import fingerprint
from batchrank.domain import Positions
from batchrank.errors import ChangedError, OutputError, StorageError
from batchrank.events import Noticed, Reporter, SourceStaging
from batchrank.job.earlier import earlier_of
from batchrank.job.loading import STAGED, Job
from batchrank.job.money import settle_after_kill
from batchrank.job.steering import Steering
from batchrank.places.remote import Place, is_within, placed
from batchrank.policy.billing import about_age
from batchrank.source.files import differences, look
from batchrank.source.parquet import ParquetSource
from batchrank.store.disk import Lock, make_folder
from batchrank.store.ledger import Ledger
from batchrank.store.output import OutputFolder, StateFolder, some, unfit
from batchrank.store.parts import PYARROW, schema_of
from batchrank.store.reading import LedgerReader
from batchrank.store.shelf import shelf_of

if TYPE_CHECKING:
    from batchrank.job.consent import Consent

RECARRIED = ("source.carry", "output.reuse_pairs")
"""The output settings that decide what the source packs beside the scores."""

STAGING_TOLD_S = 5.0
"""Between two words about staging, in seconds."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """
    What the person who runs a job asks for, beside the job file.

    *limit*: only the first so many groups. *accept*: source files, as the job finds them, that may
    have changed. *restart*: set the old output and its state aside. *steering*: that of the runs
    before this one. *consent* is asked before anybody is called. *interrupted* is set when the
    person loses patience and no signal can tell. *sample*: only so many groups, at random places.
    """

    limit: int | None = None
    retry_rejects: bool = False
    accept: Sequence[str] = ()
    restart: bool = False
    steering: Steering | None = None
    consent: Consent | None = None
    interrupted: threading.Event = field(default_factory=threading.Event)
    sample: int | None = None


@dataclass(slots=True)
class World:
    """
    Everything a run works on, held by nobody else. *later* are groups that this run leaves for
    another although they come before its target.
    """

    job: Job
    wishes: Wishes
    source: ParquetSource
    state: StateFolder
    output: OutputFolder
    ledger: Ledger
    notes: list[str] = field(default_factory=list)
    later: Positions | None = None

    def done(self) -> Positions:
        """
        The positions that need not be asked about.
        """
        done = self.ledger.done(self.source.total)
        if self.wishes.retry_rejects:
            for position in self.ledger.rejected_positions():
                done.discard(position)
        return done

    @property
    def dedupes(self) -> bool:
        """
        Whether equal groups are asked about once.
        """
        return self.job.dedupes(self.source)

    @property
    def target(self) -> int:
        """
        Groups at or beyond this position are left alone.
        """
        limit = self.wishes.limit
        return self.source.total if limit is None else min(limit, self.source.total)

    def notice(self, note: str, reporter: Reporter) -> None:
        """
        Tell a person *note* now, and in the summary.
        """
        self.notes.append(note)
        reporter.report(Noticed(note))


@contextmanager
def opened(job: Job, wishes: Wishes, reporter: Reporter) -> Iterator[World]:
    """
    Check everything, and hold the output until the context ends.

    Raises:
        NotReady, SourceError: the source.
        OutputError, ChangedError, AlreadyRunning, StorageError: the output and its state.
    """
    source = job.open_source(_telling(reporter), () if wishes.restart else begun_with(job))
    _check_apart(job, source)
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
            _carry_on(world)
            if strange := unfit(output.visible()):
                world.notes.append(
                    f"readers take what else lies in {job.output} for scores: {some(strange)}"
                )
        else:
            if not isinstance(job.output, Path):
                world.notes.append(f"the ledger needs a local disk: the state lies in {state.path}")
            ledger.begin({**_meta(job, source), UNSETTLED: True}, source.files)
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


def _check_apart(job: Job, source: ParquetSource) -> None:
    """
    Refuse folders that lie in each other: what is written would be read, or told as output.
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


# --- begun anew, or carried on -------------------------------------------------------------------


def _meta(job: Job, source: ParquetSource) -> dict[str, Any]:
    settings = job.score_settings()
    return {
        "fingerprint": fingerprint({**settings, "source.files": _identities(source)}),
        "score_settings": settings,
        "output_settings": job.output_settings(),
        "part_groups": job.config.output.part_groups,
        "job": job.config.name,
        "labels": job.config.labels,
        "batchrank": __version__,
        "pyarrow": PYARROW,
        "total": source.total,
    }


def _identities(source: ParquetSource) -> list[list[object]]:
    return [[file.path, file.size_bytes, file.footer_sha256] for file in source.files]


def _carry_on(world: World) -> None:
    """
    Compare with what the output began with; refuse, render again, or go on.
    """
    before = world.ledger.meta()
    mended = _refuse_other_scores(world)
    if world.wishes.retry_rejects and before.get("pruned"):
        raise ChangedError(
            "--retry-rejects: not possible any more, because the ledger was pruned: the parts that"
            " the rejects belong to cannot be rendered again",
            "run without it, or set the old output aside with --restart",
        )
    reshaped = before["output_settings"] != world.job.output_settings()
    if reshaped:
        _refuse_other_shape(world, before, mended)
    if mended:
        _take_mended(world, mended)
    for path in world.ledger.meta().get("accepted", []):
        world.notes.append(f"{path} was mended in mid-run: outcomes from before stay as they are")
    if before["pyarrow"] != PYARROW:
        world.notes.append(
            f"parts were written by pyarrow {before['pyarrow']}, now it is {PYARROW}:"
            " bytes may differ where rows do not"
        )
    if reshaped:
        _relayout(world, before["output_settings"])
    now = _meta(world.job, world.source)
    if any(before.get(key) != value for key, value in now.items()):
        world.ledger.begin(now, world.source.files)
    if world.ledger.meta().get("accepted"):
        # Ids that were read from the file as it was must not come to stand beside new scores.
        world.ledger.forget_carried(world.done())


def refusal(
    job: Job, source: ParquetSource, ledger: LedgerReader, accepted: Collection[str] = frozenset()
) -> ChangedError | None:
    """
    Why a started output may not be carried on: settings or files that decide its scores are others
    now. None if all is as it was, but for files in *accepted*. Changes nothing.
    """
    was, is_now = ledger.meta()["score_settings"], job.score_settings()
    changes = [
        f"{key} was {was.get(key)!r}, now it is {is_now.get(key)!r}"
        for key in sorted(was.keys() | is_now.keys())
        if was.get(key) != is_now.get(key)
    ]
    changes += differences(ledger.source_files(), source.files, accepted)
    if not changes:
        return None
    mendable = source.mendable and _only_files(changes)
    hint = "undo the change, name another output.path, or set the old output aside with --restart"
    if was == is_now:
        cut = ledger.meta()["output_settings"].get("output.top_n") is not None
        hint += f" ({about_reuse(job, cut=cut)})"
    return ChangedError(
        f"{job.output} was begun with other settings or another source:\n  " + "\n  ".join(changes),
        hint + ("; a mended source file is taken with --accept FILE" if mendable else ""),
    )


def about_reuse(job: Job, *, cut: bool) -> str:
    """
    What `--restart` costs an output whose scores count; *cut*: `output.top_n` has left some out.
    """
    but = ", but for those that output.top_n has cut" if cut else ""
    if job.config.output.reuse:
        said = "as output.reuse says, groups that have not changed take their scores from there"
        return f"{said}{but}"
    return f'with output.reuse = "previous" groups that have not changed are not paid again{but}'


def _refuse_other_scores(world: World) -> list[str]:
    """
    Returns the files that were mended since, and may be.
    """
    accepted = _accepted(world)
    if refused := refusal(world.job, world.source, world.ledger, accepted):
        raise refused
    files = world.ledger.source_files()
    changed = {file.path for file in world.source.files} & accepted
    mended = sorted(changed - {file.path for file in files if file in world.source.files})
    if mended:
        _refuse_other_types(world, mended)
    return mended


def _take_mended(world: World, mended: Sequence[str]) -> None:
    """
    What was found out of these files, and is no outcome yet, holds no more.
    """
    earlier = world.ledger.meta().get("accepted", [])
    world.ledger.set_meta({"accepted": sorted({*earlier, *mended})})
    _forget_slices(world, mended)
    world.ledger.forget_equals()


def _refuse_other_types(world: World, mended: Sequence[str]) -> None:
    """
    A part has one type a column: what was kept from the old file and what comes from the new.
    """
    kept = next(world.ledger.carried(0, world.source.total), None)
    if kept is None:
        return
    was, is_now = (schema_of(body, world.job.layout) for body in (kept[2], world.source.no_rows()))
    changes = [
        f"{name} was {was.field(name).type}, now it is {is_now.field(name).type}"
        for name in is_now.names
        if name in was.names and was.field(name).type != is_now.field(name).type
    ]
    if changes:
        raise ChangedError(
            f"--accept: {', '.join(mended)} has columns of other types:\n  " + "\n  ".join(changes),
            "mend the file with the types it had, or set the old output aside with --restart",
        )


def _forget_slices(world: World, mended: Sequence[str]) -> None:
    """
    Half a group's scores from the old file and half from the new one would be no scores.
    """
    start = 0
    for file in world.source.files:
        if file.path in mended:
            world.ledger.forget_slices(start, start + file.rows)
        start += file.rows


def _only_files(changes: Sequence[str]) -> bool:
    return all(" changed: " in change and "--accept" not in change for change in changes)


def _accepted(world: World) -> set[str]:
    """
    The files that `--accept` names, as the source calls them.
    """
    known = {file.path for file in world.source.files}
    names = set()
    if world.wishes.accept and not world.source.mendable:
        raise OutputError(
            f"--accept {world.wishes.accept[0]}: the source is staged, and a file that was mended"
            " may have moved every group",
            "set the old output aside with --restart",
        )
    for given in world.wishes.accept:
        options = (given, os.path.relpath(Path(given).resolve(), world.job.base))
        name = next((option for option in options if option in known), None)
        if name is None:
            raise OutputError(
                f"--accept {given}: the source has no such file",
                f"its files are {', '.join(sorted(known)[:5])}",
            )
        names.add(name)
    return names


def _refuse_other_shape(world: World, meta: dict[str, Any], mended: Sequence[str]) -> None:
    """
    Parts can be rendered otherwise only from what the ledger holds, or the source as it was.
    """
    changed = _differing(meta["output_settings"], world.job.output_settings())
    if meta.get("pruned"):
        raise ChangedError(
            f"{', '.join(changed)}: cannot change any more, because the ledger was pruned",
            "undo the change, or set the old output aside with --restart",
        )
    recarried = [key for key in changed if key in RECARRIED]
    if recarried and (files := sorted({*meta.get("accepted", []), *mended})):
        raise ChangedError(
            f"{', '.join(recarried)}: cannot change any more, because {', '.join(files)} was"
            " mended in mid-run: what it held for the groups before is not known",
            "undo the change, or set the old output aside with --restart",
        )


def _relayout(world: World, before: dict[str, Any]) -> None:
    """
    Have every part rendered again in the layout that the job asks for now.
    """
    now = world.job.output_settings()
    recut = before.get("output.part_groups") != now["output.part_groups"]

    def make_way() -> None:
        world.output.withdraw_success()
        if recut:
            world.output.remove_parts()

    recarried = any(key in RECARRIED for key in _differing(before, now))
    carried = world.source.carried_batches(world.source.total) if recarried else None
    meta = {"output_settings": now, "part_groups": world.job.config.output.part_groups}
    world.ledger.relayout(meta, carried, make_way)
    world.notes.append("output settings changed: all parts are rendered again, nobody is called")


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """
    The settings that are others now; one that is not told is None.
    """
    return [key for key in {**before, **now} if before.get(key) != now.get(key)]
