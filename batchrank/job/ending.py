"""
What a run came to: the manifest, `_SUCCESS`, the exports, the summary and its exit code.

Owns when an output is finished (every position has an outcome, few enough are rejected, every part
has its final name) and the words for how a run ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

from batchrank.engine.caller import MODEL_CHANGED
from batchrank.engine.routes import SERVED_MODEL
from batchrank.engine.runner import Ending
from batchrank.engine.waiting import Stop
from batchrank.errors import BatchrankError, Exit, StorageError
from batchrank.job.account import Account
from batchrank.job.ways import served_by
from batchrank.job.world import World
from batchrank.observe.report import Summary, counted
from batchrank.policy.billing import in_usd
from batchrank.store.disk import write_durably
from batchrank.store.exports import export_calls, export_rejects, is_exported

ENDED = {
    Exit.DONE: "done",
    Exit.REJECTS: "finished, with too many rejects",
    Exit.USAGE: "stopped",
    Exit.PERSON: "stopped, needs a person",
    Exit.STORAGE: "stopped, the disk failed",
    Exit.LATER: "stopped early, run it again",
    Exit.BUG: "stopped by a bug",
}
"""How a run ended, by its exit code."""


def finish(
    world: World,
    ending: Ending,
    before: Account,
    elapsed_s: float,
    ended: Callable[[Exit, str], None],
) -> Summary:
    """
    Finish the output as far as it goes, and say what came of the run.

    *ended* notes the end in the ledger, before anything is exported: the account is final then,
    whatever becomes of the process. A ledger that failed is left as if the run had been killed.
    """
    stop = ending.stop
    exit_code = stop.exit_code if stop else _finished(world, ending)
    notes = [*world.notes, *ending.notes, *(_remedies(world, stop) if stop else ())]
    try:
        if exit_code is not Exit.STORAGE:
            ended(exit_code, stop.reason if stop else "")
        # Whoever is in a hurry is about to be killed; the next run writes them.
        if not (stop and stop.hurry):
            _export(world)
    except StorageError as error:
        # The ledger has it all; files beside it can be written by any later run.
        exit_code = exit_code if stop else Exit.STORAGE
        notes.append(error.message)
    summary = replace(
        _summary(world, exit_code, stop.reason if stop else "", before, elapsed_s, notes),
        in_flight_max=ending.in_flight_max,
        done_now=ending.outcomes,
        groups_per_s=round(ending.outcomes / elapsed_s, 2) if elapsed_s > 0 else 0.0,
    )
    _write_report(world, summary)
    return summary


def _remedies(world: World, stop: Stop) -> Iterator[str]:
    """
    What a person can do about what stopped the run, as far as somebody knows.
    """
    if isinstance(stop.error, BatchrankError) and stop.error.hint:
        yield stop.error.hint
    if stop.hint:
        yield stop.hint
    if stop.code == MODEL_CHANGED:
        yield _about_model(Account.of(world.ledger).count("reused"))


def _about_model(reused: int) -> str:
    """
    What to do when the model is served as of another day than the scores that are there.
    """
    if reused:
        copied = f"{counted(reused, 'group')} with scores of that model came from earlier outputs"
        return f"{copied}: take out output.reuse, and run with --restart: every group is called"
    return "scores of both cannot be mixed: with --restart every group is called again"


def _finished(world: World, ending: Ending) -> Exit:
    """
    Write manifest and `_SUCCESS` if the whole output is there.
    """
    account = Account.of(world.ledger)
    if account.done < world.source.total:
        return Exit.DONE  # `--limit`: what was asked for is done
    meta = world.ledger.meta()
    about = {
        "job": world.job.config.name,
        "labels": world.job.config.labels,
        "fingerprint": meta["fingerprint"],
        "model": meta.get(SERVED_MODEL, world.job.model),
        "models": sorted(set(served_by(meta).values())),
        "pyarrow": meta["pyarrow"],
        "source": [[f.path, f.size_bytes, f.footer_sha256] for f in world.source.files],
        "groups": world.source.total,
        "ranked": account.count("ranked"),
        "rejected": account.rejected,
        "empty": account.count("empty"),
        "accepted": meta.get("accepted", []),
    }
    world.output.remove_parts(keep=[part.file for part in ending.parts])
    world.output.write_manifest(about, ending.parts)
    if account.rejected > world.job.config.output.rejected_max:
        return Exit.REJECTS
    world.output.write_success()
    return Exit.DONE


def _export(world: World) -> None:
    export_rejects(world.ledger, world.state.rejects)
    export_calls(world.ledger, world.state.calls)


def nothing_to_do(world: World, before: Account, elapsed_s: float) -> Summary:
    """
    Say that a finished output is finished; nobody was called. Nothing is written but what the run
    before it had not come to when it was killed behind `_SUCCESS`, or found no room for.

    Raises:
        StorageError: there is still none.
    """
    few = world.output.has_success()
    exit_code = Exit.DONE if few else Exit.REJECTS
    reason = "it was finished before; " + ("nothing to do" if few else "nobody was called")
    summary = _summary(world, exit_code, reason, before, elapsed_s, world.notes)
    exported = is_exported(world.state.rejects, summary.rejected)
    if not (exported and is_exported(world.state.calls, summary.calls)):
        _export(world)
        _write_report(world, summary)
    return summary


def _ended(exit_code: Exit, done: int, world: World) -> str:
    total = world.source.total
    if exit_code is Exit.DONE and done < total:
        if world.wishes.sample is not None:
            return f"done with a sample of {world.wishes.sample:,} of {total:,} groups"
        return f"done with the first {world.target:,} of {total:,} groups, as --limit says"
    return ENDED[exit_code]


def _summary(
    world: World,
    exit_code: Exit,
    reason: str,
    before: Account,
    elapsed_s: float,
    notes: list[str],
) -> Summary:
    ledger, job = world.ledger, world.job
    now = Account.of(ledger)
    meta = ledger.meta()
    models = sorted(set(served_by(meta).values()))
    providers = {who.provider for who in ledger.served().values() if who.model in models}
    parts = ledger.parts()
    return Summary(
        job=job.config.name,
        exit_code=int(exit_code),
        ended=_ended(exit_code, now.done, world),
        reason=reason,
        output=str(job.output),
        state=str(job.state.path),
        labels=job.config.labels,
        groups=world.source.total,
        done=now.done,
        ranked=now.count("ranked"),
        rejected=now.rejected,
        rejected_max=job.config.output.rejected_max,
        empty=now.count("empty"),
        candidates=now.count("candidates"),
        reused=now.count("reused"),
        equal=now.count("equal"),
        documents_reused=now.count("documents_reused"),
        documents_cut=now.count("documents_cut"),
        rejects_by_kind={kind: count for kind, count, _, _ in ledger.reject_counts()},
        models=tuple(models),
        providers=tuple(sorted(filter(None, providers))),
        calls=now.calls,
        calls_now=now.calls - before.calls,
        calls_repeated=now.count("calls.repeated"),
        calls_failed=now.calls_failed,
        search_units=now.tally.get("search_units", 0.0),
        total_tokens=now.count("total_tokens"),
        cost_usd=in_usd(now.cost_nano_usd),
        cost_usd_now=in_usd(now.cost_nano_usd - before.cost_nano_usd),
        cost_usd_by_source=now.cost_usd_by_source,
        cost_usd_rejected=in_usd(ledger.cost_of_rejects()) if now.rejected else 0.0,
        cost_usd_lost=in_usd(now.lost_nano_usd),
        calls_cost_unknown=now.calls_cost_unknown,
        routes=now.routes,
        parts=len(parts),
        rows=sum(part.rows for part in parts),
        success=world.output.has_success(),
        elapsed_s=round(elapsed_s, 3),
        accepted=tuple(meta.get("accepted", [])),
        notes=tuple(notes),
    )


def _write_report(world: World, summary: Summary) -> None:
    content = json.dumps(summary.as_data(), indent=1, ensure_ascii=False)
    try:
        write_durably(world.state.report, content.encode())
    except StorageError:
        if summary.exit_code != Exit.STORAGE:
            raise
