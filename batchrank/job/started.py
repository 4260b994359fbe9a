"""
An output that was begun before: what it began with, and what may be another now.

Owns what may change on a started output: a score setting may not, nor a source file unless it was
mended and is accepted, an output setting renders parts again, everything else is free. What is
refused is left as it was.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from batchrank import __version__
from batchrank.config import fingerprint
from batchrank.errors import ChangedError, OutputError
from batchrank.job.loading import Job
from batchrank.job.world import World
from batchrank.source.files import differences
from batchrank.source.parquet import ParquetSource
from batchrank.store.parts import PYARROW, schema_of
from batchrank.store.reading import LedgerReader

RECARRIED = ("source.carry", "output.reuse_pairs")
"""The output settings that decide what the source packs beside the scores."""


def meta_of(job: Job, source: ParquetSource) -> dict[str, Any]:
    """
    What an output of *job* begins with, as its ledger keeps it.
    """
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


def carry_on(world: World) -> None:
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
    now = meta_of(world.job, world.source)
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
    before = ledger.source_files()
    settings = [
        f"{key} was {was.get(key)!r}, now it is {is_now.get(key)!r}"
        for key in sorted(was.keys() | is_now.keys())
        if was.get(key) != is_now.get(key)
    ]
    changes = settings + differences(before, source.files, accepted)
    if not changes:
        return None
    files = {file.path for file in source.files}
    mendable = source.mendable and not settings and not differences(before, source.files, files)
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
