"""
One run of a job: wire everything, run the engine, finish the output, say what came of it.

Owns the composition: which concrete scorer, wire, controller, lanes and clocks a run is made of.
Decides nothing about groups.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

import anyio

from batchrank.domain import Positions, Scored
from batchrank.engine import runner
from batchrank.engine.caller import Clocks
from batchrank.engine.dispatcher import Patience
from batchrank.engine.feed import Past, Source
from batchrank.engine.following import Equals
from batchrank.engine.publisher import Ranges
from batchrank.engine.runner import Ending, Lanes, Plan, Ports
from batchrank.engine.scorer import HttpScorer, Scorer
from batchrank.engine.waiting import ThreadLane
from batchrank.errors import Exit, JobError, Problem, StorageError
from batchrank.events import Chorus, JobEnded, JobStarted, Noticed, Reporter
from batchrank.job.ending import Account, finish, nothing_to_do
from batchrank.job.equals import equals_of
from batchrank.job.interpreter import rare_collections
from batchrank.job.knowing import KnowingSource
from batchrank.job.loading import Job, load
from batchrank.job.opening import Wishes, World, is_begun, opened
from batchrank.job.reusing import reuse
from batchrank.job.steering import Steering, remember
from batchrank.observe.report import Summary
from batchrank.policy.billing import nano_usd
from batchrank.policy.budget import Budget
from batchrank.policy.retry import Rules
from batchrank.store.disk import Reserve
from batchrank.store.output import part_file, some
from batchrank.store.parts import schema_of
from batchrank.store.reading import LedgerReader
from batchrank.wire.auth import Anonymous, Bearer
from batchrank.wire.exchange import Wire
from batchrank.wire.transport import HttpCarrier

T = TypeVar("T")


def run(
    job: Job | str | os.PathLike[str],
    *,
    set: Mapping[str, str] | None = None,  # noqa: A002 - the word of the command line
    limit: int | None = None,
    retry_rejects: bool = False,
    accept: Sequence[str] = (),
    restart: bool = False,
    steering: Steering | None = None,
    listeners: Sequence[Reporter] = (),
) -> Summary:
    """
    Run a job, or carry on where it stopped, as `batchrank run` does.

    *job* is a job file's path, or a loaded job; *set* gives its variables. *listeners* hear every
    event. In the main thread SIGINT and SIGTERM stop it in good order. Runs that follow each other
    and are given the same *steering* keep to the limits together.

    Returns how it ended: `Summary.exit_code` is 0 when every group has an outcome and few enough
    were rejected.

    Raises:
        BatchrankError: it could not begin; nobody was called.
    """
    if limit is not None and limit < 1:
        problem = Problem(0, "limit", f"is {limit}: no group would be done", "at least 1, or None")
        raise JobError("batchrank.run", [problem])
    loaded = job if isinstance(job, Job) else load(job, set)
    wishes = Wishes(limit, retry_rejects, tuple(accept), restart, steering)
    return _outside_of_loops(lambda: _run(loaded, wishes, Chorus(listeners)), wishes.interrupted)


def _outside_of_loops(function: Callable[[], T], interrupted: threading.Event) -> T:
    """
    Call *function* here, or in a thread if an event loop runs here already, as in a notebook.

    There an interruption does not reach it, so *interrupted* is set, and its end is awaited.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()
    with ThreadPoolExecutor(1, "batchrank") as thread:
        future = thread.submit(function)
        try:
            return future.result()
        except KeyboardInterrupt:
            interrupted.set()
            return future.result()


def _run(job: Job, wishes: Wishes, reporter: Reporter) -> Summary:
    _check_key(job)
    began = time.monotonic()
    if wishes.restart or not is_begun(job.state.ledger):
        job.ready()  # a finished output needs no model, and one that cannot score begins none
    with opened(job, wishes, reporter) as world:
        summary, last = _carried_out(world, reporter, began)
        if summary.exit_code == Exit.DONE and not job.config.source.keep_staged:
            shutil.rmtree(job.staging, ignore_errors=True)  # it can be made again
    reporter.report(JobEnded(summary.exit_code, summary.as_data()))
    if last is not None and last.stop and last.stop.exit_code is Exit.BUG and last.stop.error:
        raise last.stop.error
    return summary


def _check_key(job: Job) -> None:
    if job.vendor is not None and job.key is None and job.keyed:
        problem = Problem(
            0, "provider", "the job was loaded without its key", "load it with its key"
        )
        raise JobError(job.config.name, [problem])


def _carried_out(world: World, reporter: Reporter, began: float) -> tuple[Summary, Ending | None]:
    before = Account.of(world.ledger)
    done = world.done()
    ranges = Ranges(world.source.total, world.job.layout.part_groups)
    if len(done) == done.total:
        _mend(world, reporter)
    if _is_finished(world, done, ranges):
        return nothing_to_do(world, before, time.monotonic() - began), None
    world.output.withdraw_success()
    reuse(world, reporter, done)
    equals = equals_of(world.ledger, done, world.target) if world.dedupes else None
    with _reserve(world), _noted(world, done) as ended:
        last = _until_whole(world, reporter, done, ranges, equals)
        return finish(world, last, before, time.monotonic() - began, ended), last


def _is_finished(world: World, done: Positions, ranges: Ranges) -> bool:
    """
    Tell whether nothing is left to do, not even for the disk.
    """
    parts = [part for part in world.ledger.parts() if not part.stale]
    whole = len(done) == done.total and len(parts) == ranges.count
    if not whole or any(part.through < ranges.of(part.number)[1] for part in parts):
        return False
    few = world.ledger.tally().get("rejected", 0) <= world.job.config.output.rejected_max
    return world.state.manifest.exists() and world.output.has_success() is few


def _mend(world: World, reporter: Reporter) -> bool:
    """
    Have damaged or missing parts rendered again; tell whether there are any.

    Raises:
        StorageError: the ledger was pruned, so that nobody can; nothing is changed.
    """
    damaged = world.output.damaged(part for part in world.ledger.parts() if not part.stale)
    if damaged and world.ledger.meta().get("pruned"):
        raise StorageError(
            f"{some([part_file(number) for number in damaged])}: damaged or missing, and the ledger"
            " was pruned, so that nothing can render them again",
            "restore them from a copy and run again, or begin anew with --restart",
        )
    if damaged:
        names = ", ".join(str(number) for number in damaged[:10])
        reporter.report(Noticed(f"parts damaged or missing, rendered again: {names}"))
        world.ledger.mark_stale(damaged)
    return bool(damaged)


@contextmanager
def _reserve(world: World) -> Iterator[None]:
    reserve = Reserve(world.state.reserve)
    reserve.take()
    try:
        yield
    finally:
        reserve.give_back()


@contextmanager
def _noted(world: World, done: Positions) -> Iterator[Callable[[Exit, str], None]]:
    """
    Keep the run in the ledger. What is yielded notes its end, and gives back what was authorised
    and not spent; without it the run counts as killed.
    """
    lost = _count_as_lost(world)
    world.ledger.set_meta({"retries_rejects": world.wishes.retry_rejects})  # for `status`
    world.ledger.start_run(
        time.time(),
        os.getpid(),
        socket.gethostname(),
        done_before=len(done),
        target=world.target,
    )

    def ended(exit_code: Exit, reason: str) -> None:
        spent = Account.of(world.ledger).cost_nano_usd + lost
        world.ledger.set_meta({"authorised_nano_usd": spent})
        world.ledger.end_run(time.time(), exit_code, reason)

    yield ended


def _count_as_lost(world: World) -> int:
    """
    Book as spent what a run that was killed had been allowed and had not settled.
    """
    meta = world.ledger.meta()
    booked = Account.of(world.ledger).cost_nano_usd
    lost = max(meta.get("lost_nano_usd", 0), meta.get("authorised_nano_usd", 0) - booked)
    if lost != meta.get("lost_nano_usd", 0):
        world.ledger.set_meta({"lost_nano_usd": lost})
    return int(lost)


# --- the engine -----------------------------------------------------------------------------------


def _until_whole(
    world: World, reporter: Reporter, done: Positions, ranges: Ranges, equals: Equals | None
) -> Ending:
    """
    Run the engine; once more if parts of earlier runs turn out to be damaged.
    """
    reporter.report(_started(world, done))
    last = _engine_once(world, reporter, done, ranges, equals)
    if last.stop is None and len(done) == done.total and _mend(world, reporter):
        last = _engine_once(world, reporter, done, ranges, equals)
        if damaged := world.output.damaged(last.parts):
            raise StorageError(f"parts change as soon as they are written: {damaged}")
    return last


def _engine_once(
    world: World, reporter: Reporter, done: Positions, ranges: Ranges, equals: Equals | None
) -> Ending:
    with rare_collections():
        return anyio.run(
            _engine, world, reporter, done, ranges, equals, backend_options={"use_uvloop": True}
        )


async def _engine(
    world: World, reporter: Reporter, done: Positions, ranges: Ranges, equals: Equals | None
) -> Ending:
    scorer, close = _scorer(world.job)
    steering = world.wishes.steering or Steering.of(world.job, datetime.now(UTC))
    steering.controller.gate.taken_over(asyncio.get_running_loop().time())
    published = {part.number: part for part in world.ledger.parts()}
    try:
        with LedgerReader.open(world.state.ledger) as reader, _source(world) as source:
            ports = _ports(world, reporter, scorer, source, reader, steering)
            return await runner.run(_plan(world, equals), ports, done, ranges, published)
    finally:
        await close()
        if why_not := remember(world.job, steering.controller, datetime.now(UTC)):
            reporter.report(Noticed(f"the limit that was learned is forgotten: {why_not}"))


@contextmanager
def _source(world: World) -> Iterator[Source]:
    """
    The groups; of those of which some documents need not be sent, without these.
    """
    if not Account.of(world.ledger).count("documents_reused"):
        yield world.source
        return
    with LedgerReader.open(world.state.ledger) as known:
        yield KnowingSource(world.source, known)


def _scorer(job: Job) -> tuple[Scorer, Callable[[], Awaitable[None]]]:
    """
    Who is asked, and how to let go of the connections.
    """
    if job.in_process:
        return job.in_process.make(job.config, job.base)
    assert job.vendor is not None
    provider = job.config.provider
    carrier = HttpCarrier(
        connections_max=job.config.limits.concurrency_most,
        connect_timeout_s=provider.connect_timeout_s,
        timeout_s=provider.timeout_s,
    )
    header = job.options.keyed(job.vendor.key_header)
    auth = Bearer(job.key, header) if job.key else Anonymous()
    made = job.vendor.make(job.settings())
    wire = Wire(carrier, auth)
    return HttpScorer(made, wire, auth, time.time), wire.aclose


def _ports(
    world: World,
    reporter: Reporter,
    scorer: Scorer,
    source: Source,
    reader: LedgerReader,
    steering: Steering,
) -> Ports:
    job = world.job
    layout = job.layout
    schema = schema_of(world.source.no_rows(), layout)
    cap = job.config.budget.cost_usd_max
    meta = world.ledger.meta()
    spent = Account.of(world.ledger).cost_nano_usd + int(meta.get("lost_nano_usd", 0))
    return Ports(
        source=source,
        scorer=scorer,
        ledger=world.ledger,
        publish=lambda number, through: world.output.publish(
            reader, layout, schema, number, through
        ),
        reporter=reporter,
        clocks=Clocks(time.time, random.random, asyncio.get_running_loop().time),
        lanes=Lanes(ThreadLane(), ThreadLane(), ThreadLane()),
        controller=steering.controller,
        turnstiles=steering.turnstiles,
        budget=Budget(
            None if cap is None else nano_usd(cap),
            spent=spent,
            authorised=spent,
            block_sends=max(1, job.config.limits.concurrency_most // 4),
        ),
        allowance=steering.allowance,
        reserve=Reserve(world.state.reserve),
    )


def _plan(world: World, equals: Equals | None) -> Plan:
    job, times = world.job, world.job.config.run
    scored: dict[int, list[Scored]] = {}
    for part in world.ledger.slices():
        scored.setdefault(part.slice.position, []).append(part)
    deadline = job.deadline
    return Plan(
        target=world.target,
        past=Past(scored, world.ledger.sends()),
        documents_max=job.documents_max,
        price=job.price,
        rules=Rules(times.throttled_s_max, can_split=job.splits),
        patience=Patience(times.outage_s_max, times.throttled_s_max),
        drain_s_max=times.drain_s_max,
        model=world.ledger.meta().get("served_model"),
        deadline_s=(deadline - datetime.now(UTC)).total_seconds() if deadline else None,
        signals=threading.current_thread() is threading.main_thread(),
        interrupted=world.wishes.interrupted.is_set,
        equals=equals,
    )


def _started(world: World, done: Positions) -> JobStarted:
    limits = world.job.config.limits
    limit = limits.request_limit
    account = Account.of(world.ledger)
    return JobStarted(
        job=world.job.config.name,
        model=world.job.model,
        total=world.source.total,
        target=world.target,
        done=done.count(0, world.target),
        rejected=account.rejected,
        concurrency_max=limits.concurrency_most,
        rate_per_s=limit.per_s if limit else None,
        cost_usd=account.cost_nano_usd / 1e9,
    )
