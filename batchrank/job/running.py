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
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import anyio

from batchrank.domain import Positions, Scored
from batchrank.engine import runner
from batchrank.engine.caller import Clocks
from batchrank.engine.dispatcher import Patience
from batchrank.engine.feed import Past, Source
from batchrank.engine.following import Equals
from batchrank.engine.publisher import Ranges
from batchrank.engine.routes import kinds_of
from batchrank.engine.runner import Ending, Lanes, Plan, Ports
from batchrank.engine.waiting import Stop, ThreadLane
from batchrank.errors import Exit, JobError, Problem, StorageError
from batchrank.events import Chorus, JobEnded, JobStarted, Noticed, Reporter
from batchrank.job.account import Account
from batchrank.job.beforehand import ask_beforehand
from batchrank.job.consent import Consent, left
from batchrank.job.ending import finish, nothing_to_do
from batchrank.job.equals import equals_of
from batchrank.job.interpreter import rare_collections
from batchrank.job.knowing import KnowingSource
from batchrank.job.loading import Job, load
from batchrank.job.money import Money, money_of, settle_after_kill
from batchrank.job.opening import UNSETTLED, is_begun, opened
from batchrank.job.reusing import reuse
from batchrank.job.sampling import left_for_later
from batchrank.job.steering import Steering, remember, remember_capacity
from batchrank.job.uncut import check_uncut
from batchrank.job.wiring import Wired, wired
from batchrank.job.world import Wishes, World
from batchrank.observe.report import Summary
from batchrank.observe.watch import CostWatch
from batchrank.policy.billing import in_usd
from batchrank.policy.retry import Rules
from batchrank.policy.routing import Strategy
from batchrank.store.disk import Reserve
from batchrank.store.output import part_file, some
from batchrank.store.parts import schema_of
from batchrank.store.reading import LedgerReader

T = TypeVar("T")


def run(
    job: Job | str | os.PathLike[str],
    *,
    set: Mapping[str, str] | None = None,  # noqa: A002 - the word of the command line
    limit: int | None = None,
    retry_rejects: bool = False,
    accept: Sequence[str] = (),
    restart: bool = False,
    sample: int | None = None,
    steering: Steering | None = None,
    consent: Consent | None = None,
    listeners: Sequence[Reporter] = (),
) -> Summary:
    """
    Run a job, or carry on where it stopped, as `batchrank run` does.

    *job* is a job file's path, or a loaded job; *set* gives its variables. With *sample* only so
    many groups, at random places of the source, are asked about: the rest is left for another run,
    and `examine.plan.plan` says what these teach about it. *listeners* hear every event. In the
    main thread SIGINT and SIGTERM stop it in good order. Runs that follow each other and are given
    the same *steering* keep to the limits together. *consent* is asked before anybody is called;
    without one nobody is, whatever it may cost.

    Returns how it ended: `Summary.exit_code` is 0 when every group has an outcome and few enough
    were rejected.

    Raises:
        BatchrankError: it could not begin; nobody was called.
    """
    if limit is not None and limit < 1:
        problem = Problem(0, "limit", f"is {limit}: no group would be done", "at least 1, or None")
        raise JobError("batchrank.run", [problem])
    if sample is not None and (sample < 1 or limit is not None):
        wrong = f"is {sample}: nobody would be asked" if sample < 1 else "cannot go with limit"
        problem = Problem(0, "sample", wrong, "at least 1, alone, or None")
        raise JobError("batchrank.run", [problem])
    loaded = job if isinstance(job, Job) else load(job, set)
    wishes = Wishes(limit, retry_rejects, tuple(accept), restart, steering, consent, sample=sample)
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
    if any(way.keyed and way.key is None for way in job.ways):
        problem = Problem(
            0, "provider", "the job was loaded without its key", "load it with its key"
        )
        raise JobError(job.config.name, [problem])


def _carried_out(world: World, reporter: Reporter, began: float) -> tuple[Summary, Ending | None]:
    before = Account.of(world.ledger)
    # Also where nothing is left to do, or nobody agrees to it.
    settle_after_kill(world.job, world.ledger, landed=_has_landed(world))
    done = world.done()
    ranges = Ranges(world.source.total, world.job.layout.part_groups)
    if len(done) == done.total:
        _mend(world, reporter)
    if _is_finished(world, done, ranges):
        return nothing_to_do(world, before, time.monotonic() - began), None
    world.output.withdraw_success()
    reuse(world, reporter, done)
    with _source(world) as source:
        check_uncut(world, source, done)
    equals = equals_of(world.ledger, done, world.target) if world.dedupes else None
    if world.wishes.sample is not None:
        world.later = left_for_later(world.ledger, done, equals, world.wishes.sample)
    reporter = _agreed(world, reporter, done, equals)
    if world.wishes.sample is None and world.ledger.meta().get(UNSETTLED):
        world.ledger.set_meta({UNSETTLED: False})
    with (
        _reserve(world),
        money_of(world.job, world.ledger) as money,
        _noted(world, money, done) as ended,
    ):
        task = _Task(world, money, reporter, done, ranges, equals)
        last = _until_whole(task)
        return finish(world, last, before, time.monotonic() - began, ended), last


def _agreed(world: World, reporter: Reporter, done: Positions, equals: Equals | None) -> Reporter:
    """
    Have somebody agree to what is left, if that is asked for; returns who compares it with what
    comes of it.
    """
    if world.wishes.consent is None:
        return reporter
    others = runner.passed_over(done, equals, world.later)
    about = left(world.job, world.source, world.ledger, others, world.target)
    estimate = world.wishes.consent(about)
    return CostWatch(reporter, estimate) if estimate else reporter


def _has_landed(world: World) -> bool:
    """
    Tell whether no call can be missing from the ledger. One that was restored from a copy does not
    know all that lies beside `_SUCCESS`.
    """
    return world.output.has_success() and world.ledger.published() == world.source.total


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
def _noted(world: World, money: Money, done: Positions) -> Iterator[Callable[[Exit, str], None]]:
    """
    Keep the run in the ledger. What is yielded notes its end, and gives back what was authorised
    and not spent; without it the run counts as killed.
    """
    world.ledger.set_meta({"retries_rejects": world.wishes.retry_rejects})  # for `status`
    world.ledger.start_run(
        time.time(),
        os.getpid(),
        socket.gethostname(),
        done_before=len(done),
        target=world.target,
    )

    def ended(exit_code: Exit, reason: str) -> None:
        money.close_account()
        world.ledger.end_run(time.time(), exit_code, reason)

    yield ended


# --- the engine -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """
    What the engine is given to do, once or twice.
    """

    world: World
    money: Money
    reporter: Reporter
    done: Positions
    ranges: Ranges
    equals: Equals | None


def _until_whole(task: _Task) -> Ending:
    """
    Run the engine; once more if parts of earlier runs turn out to be damaged.
    """
    world, done = task.world, task.done
    task.reporter.report(_started(world, done))
    last = _engine_once(task)
    if last.stop is None and len(done) == done.total and _mend(world, task.reporter):
        last = _engine_once(task)
        if damaged := world.output.damaged(last.parts):
            raise StorageError(f"parts change as soon as they are written: {damaged}")
    return last


def _engine_once(task: _Task) -> Ending:
    with rare_collections():
        return anyio.run(_engine, task, backend_options={"use_uvloop": True})


async def _engine(task: _Task) -> Ending:
    world, reporter = task.world, task.reporter
    steering = world.wishes.steering or Steering.of(world.job, datetime.now(UTC))
    published = {part.number: part for part in world.ledger.parts()}
    now = asyncio.get_running_loop().time
    ways, close = wired(world, steering, now)
    for way in ways:
        way.route.gate.taken_over(now())
    try:
        with LedgerReader.open(world.state.ledger) as reader, _source(world) as source:
            ports = _ports(task, ways, source, reader, steering)
            others = runner.passed_over(task.done, task.equals, world.later)
            left_over = world.target - others.count(0, world.target)
            beforehand = partial(ask_beforehand, world, reporter, ways, left_over)
            plan = _plan(world, task.equals, ways, beforehand)
            ending = await runner.run(plan, ports, task.done, task.ranges, published)
        for way in ways:
            way.reins.proven |= way.route.proven
        return ending
    finally:
        await close()
        for why_not in _remembered(world.job, steering, ways):
            reporter.report(Noticed(f"the limit that was learned is forgotten: {why_not}"))


def _remembered(job: Job, steering: Steering, ways: Sequence[Wired]) -> Iterator[str]:
    """
    Keep what was learned of limits; yields why what could not be kept.
    """
    now = datetime.now(UTC)
    if why_not := remember(job, steering, now):
        yield why_not
    for each in ways:
        if why_not := remember_capacity(job, each.way, each.route.capacity, now):
            yield why_not


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


def _ports(
    task: _Task, ways: Sequence[Wired], source: Source, reader: LedgerReader, steering: Steering
) -> Ports:
    world = task.world
    layout = world.job.layout
    schema = schema_of(world.source.no_rows(), layout)
    return Ports(
        source=source,
        routes=[way.route for way in ways],
        ledger=world.ledger,
        publish=lambda number, through: world.output.publish(
            reader, layout, schema, number, through
        ),
        reporter=task.reporter,
        clocks=Clocks(time.time, random.random, asyncio.get_running_loop().time),
        lanes=Lanes(ThreadLane(), ThreadLane(), ThreadLane(), ThreadLane()),
        budget=task.money.budget,
        till=task.money.till,
        allowance=steering.allowance,
        reserve=Reserve(world.state.reserve),
    )


def _plan(
    world: World,
    equals: Equals | None,
    ways: Sequence[Wired],
    beforehand: Callable[[], Awaitable[Stop | None]],
) -> Plan:
    job, times = world.job, world.job.config.run
    scored: dict[int, list[Scored]] = {}
    for part in world.ledger.slices():
        scored.setdefault(part.slice.position, []).append(part)
    deadline = job.deadline
    return Plan(
        target=world.target,
        past=Past(scored, world.ledger.sends(), kinds_of([way.route for way in ways])),
        rules=Rules(times.throttled_s_max, can_split=job.splits),
        patience=Patience(times.outage_s_max, times.throttled_s_max),
        drain_s_max=times.drain_s_max,
        strategy=Strategy(job.config.provider.strategy),
        deadline_s=(deadline - datetime.now(UTC)).total_seconds() if deadline else None,
        signals=threading.current_thread() is threading.main_thread(),
        interrupted=world.wishes.interrupted.is_set,
        equals=equals,
        beforehand=beforehand,
        later=world.later,
    )


def _started(world: World, done: Positions) -> JobStarted:
    account = Account.of(world.ledger)
    here = done.count(0, world.target)
    asked = None if world.later is None else done.total - len(done.united(world.later))
    return JobStarted(
        job=world.job.config.name,
        model=world.job.model,
        total=world.source.total,
        target=world.target if asked is None else here + asked,
        done=here,
        rejected=account.rejected,
        concurrency_max=world.job.concurrency_most,
        rate_per_s=world.job.limit_per_s,
        cost_usd=in_usd(account.cost_nano_usd),
        lost_usd=in_usd(account.lost_nano_usd),
        cap_usd=world.job.config.budget.cost_usd_max,
        calls_cost_unknown=account.calls_cost_unknown,
    )
