"""
The kill campaign: one job, killed again and again without warning, and what must hold every time.

Owns the moments at which to kill, and the laws that are checked against the server's own account:
after each kill, and of the output in the end. `python -m tests.e2e.torture` is the long form,
`test_kills` the short one. Calls the program only as a person would.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.jobs import (
    BILLED,
    Account,
    Book,
    Process,
    Watched,
    bytes_of,
    digests,
    embedded,
    faults_of,
    loaded,
    run,
    running,
    under_way,
    unpublished_parts,
    until,
    write_job,
    write_source,
    wrong_parts,
)

FAULTS = ("429:0.02", "529:0.02", "502:0.02", "drop:0.02", "garbage:0.02")
START_S = 0.5
"""No process comes to its first call before."""

CAP_USD = 1_000.0
"""Far above what any of these jobs costs."""

FINISHES_MAX = 12
"""So often a job with faults is run to its end, its rejects asked again."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    What is killed, how often, and what else goes wrong meanwhile.

    *capped*: the job has a budget, which it does not reach. *anew*: each process begins with an
    interpreter of its own, as a person's does.
    """

    name: str
    kills: int
    groups: int
    faults: tuple[str, ...] = ()
    seed: int = 1
    concurrency_max: int = 32
    latency_s: float = 0.1
    part_groups: int = 100
    capped: bool = False
    anew: bool = True


# --- when -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """
    What a manner of killing knows: the process, its job, and how long this run may send.

    *window_s* is a fair share of the work that is left; in *work_s* nobody can do all of it.
    """

    process: Process
    watched: Watched
    job: Path
    random: random.Random
    window_s: float
    work_s: float
    concurrency_max: int


def _at_any_time(moment: Moment) -> None:
    time.sleep(moment.random.uniform(0.0, START_S + moment.window_s))


def _after_a_while(moment: Moment) -> None:
    under_way(moment.watched, 1, moment.process)
    time.sleep(moment.random.uniform(0.0, moment.window_s))


def _with_calls_in_flight(moment: Moment) -> None:
    calls = moment.random.randint(1, moment.concurrency_max)
    under_way(moment.watched, calls, moment.process)


def _while_publishing(moment: Moment) -> None:
    staging = loaded(moment.job).state.staging
    under_way(moment.watched, 1, moment.process)
    give_up_at = time.monotonic() + min(3 * moment.window_s, moment.work_s)

    def begun() -> bool:
        return any(staging.glob("part-*")) or time.monotonic() > give_up_at

    until(begun, moment.process, step_s=0.0)
    time.sleep(moment.random.uniform(0.0, min(0.008, moment.work_s)))


MANNERS: Mapping[str, Callable[[Moment], None]] = {
    "after a while": _after_a_while,
    "publishing": _while_publishing,
    "in flight": _with_calls_in_flight,
    "any time": _at_any_time,
}

TURNS = (
    *("after a while", "publishing", "in flight", "after a while", "publishing"),
    *("after a while", "in flight", "after a while", "publishing", "any time"),
)
"""Which manner comes when; the turns repeat."""


# --- what was found -------------------------------------------------------------------------------


@dataclass(slots=True)
class Kill:
    """
    One kill, and what it cost.

    Attributes:
        at_server: calls that the server was still working on.
        in_flight: those, and others whose reply was not durable.
        lost, lost_billed: calls that the ledger does not know; those that were paid for.
        unpublished: part files on the disk that the ledger does not call published.
    """

    number: int
    manner: str
    lived_s: float
    at_server: int
    in_flight: int
    lost: int
    lost_billed: int
    done: int
    parts: int
    unpublished: int
    wrong: list[str] = field(default_factory=list)

    def row(self) -> str:
        """
        A line of the table.
        """
        return (
            f"{self.number:>4}  {self.manner:<14} {self.lived_s:>6.2f} {self.at_server:>9}"
            f" {self.in_flight:>9} {self.lost:>5} {self.lost_billed:>6} {self.done:>7}"
            f" {self.parts:>5} {self.unpublished or '':>7}  {'; '.join(self.wrong) or 'ok'}"
        )


HEAD = "kill  moment         lived s at server in flight  lost billed    done parts halfway"


@dataclass(slots=True)
class Report:
    """
    A whole campaign. *wrong* is what did not hold in the end.
    """

    scenario: Scenario
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    finishes: int = 0
    calls: int = 0
    elapsed_s: float = 0.0

    @property
    def problems(self) -> list[str]:
        """
        Everything that did not hold.
        """
        return [f"kill {k.number}: {w}" for k in self.kills for w in k.wrong] + self.wrong

    @property
    def with_calls(self) -> int:
        """
        Kills that found calls in flight.
        """
        return sum(kill.in_flight > 0 for kill in self.kills)

    @property
    def extra(self) -> int:
        """
        Calls that were billed and have to be paid again.
        """
        return sum(kill.lost_billed for kill in self.kills)

    def text(self) -> str:
        """
        The sums, and what did not hold.
        """
        name = f"{self.scenario.name} (seed {self.scenario.seed})"
        wrong = [f"WRONG: {problem}" for problem in self.problems]
        return "\n".join([name, self._sums(), *wrong])

    def _sums(self) -> str:
        most = max((kill.lost_billed for kill in self.kills), default=0)
        bound = self.with_calls * self.scenario.concurrency_max
        midway = sum(kill.unpublished > 0 for kill in self.kills)
        return (
            f"{len(self.kills)} kills, {self.with_calls} with calls in flight, {midway} with a part"
            f" half published; {self.extra} calls paid again (at most {most} by one kill; bound"
            f" {bound}); {self.calls} calls for {self.scenario.groups} groups;"
            f" {self.finishes} runs to finish; {self.elapsed_s:.0f} s"
        )


# --- the campaign ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _State:
    """
    What server and ledger agreed on when last looked at.
    """

    account: Account = field(default_factory=Account)
    book: Book = field(default_factory=Book)
    arrived: Counter[int] = field(default_factory=Counter)

    def lost(self) -> Counter[int]:
        """
        Calls that the server saw and the ledger does not know, by position.
        """
        lost = Counter(self.arrived)
        lost.subtract(self.book.attempts())
        return lost

    @property
    def lost_billed(self) -> int:
        """
        Those that were charged.
        """
        return self.account.billed - self.book.count(BILLED)


class Campaign:
    """
    One job in *folder*, killed as *scenario* says.
    """

    def __init__(self, folder: Path, watched: Watched, scenario: Scenario) -> None:
        self._watched = watched
        self._scenario = scenario
        self._random = random.Random(scenario.seed)
        source = write_source(folder, scenario.groups)

        def job(name: str) -> Path:
            return write_job(
                folder / name,
                watched.base_url,
                source=source,
                concurrency_max=scenario.concurrency_max,
                output={"part_groups": scenario.part_groups, "rejected_max": scenario.groups},
                budget={"cost_usd_max": CAP_USD} if scenario.capped else {},
            )

        self._whole, self._job = job("undisturbed"), job("killed")
        self._positions = digests(self._job)
        self._last = _State()

    def run(self, told: Callable[[str], object] = lambda _line: None) -> Report:
        """
        Kill, look, and finish; *told* hears of each kill.
        """
        began = time.monotonic()
        report = Report(self._scenario)
        mean_s = self._scenario.latency_s
        # Not all the same, or calls would come and go in waves and kills find only all or none.
        latency = f"{mean_s / 2}..{mean_s * 3 / 2}"
        self._watched.turn(latency=latency, faults=[], retry_after="absent")
        if code := run(self._whole, anew=self._scenario.anew).exit_code():
            report.wrong.append(f"the undisturbed run left with {code}")
        self._watched.reset()
        self._watched.turn(faults=list(self._scenario.faults))
        for number in range(1, self._scenario.kills + 1):
            report.kills.append(self._kill(number))
            told(report.kills[-1].row())
        report.wrong += self._finish(report)
        if report.with_calls < self._scenario.kills * 0.8:
            report.wrong.append(f"only {report.with_calls} kills found calls in flight")
        report.calls = self._last.account.arrived
        report.elapsed_s = time.monotonic() - began
        return report

    # --- one kill ---------------------------------------------------------------------------------

    def _kill(self, number: int) -> Kill:
        manner = TURNS[(number - 1) % len(TURNS)]
        with running(self._job, anew=self._scenario.anew) as process:
            MANNERS[manner](self._moment(process, number))
            over = not process.is_alive
            process.kill()
            at_once = self._watched.account()
        before, book = self._last, Book.of(self._job)
        now = self._last = self._look(book)
        kill = Kill(
            number,
            manner,
            process.ended_at - process.began_at,
            at_once.in_flight,
            at_once.arrived - book.count() - sum(before.lost().values()),
            sum(now.lost().values()) - sum(before.lost().values()),
            now.lost_billed - before.lost_billed,
            len(book.ranked),
            len(book.parts),
            len(unpublished_parts(self._job, book)),
        )
        if over:
            kill.wrong.append(f"it was over before the kill, with {process.exit_code()}")
        kill.wrong += self._broken(before, now, kill)
        return kill

    def _moment(self, process: Process, number: int) -> Moment:
        left = self._scenario.groups - len(self._last.book.ranked)
        rate = self._scenario.concurrency_max / self._scenario.latency_s
        # A bit less than all, as latencies are drawn and may be kind.
        work_s = 0.8 * left / rate
        return Moment(
            process,
            self._watched,
            self._job,
            self._random,
            work_s / (self._scenario.kills - number + 1),
            work_s,
            self._scenario.concurrency_max,
        )

    def _look(self, book: Book) -> _State:
        account = self._watched.settled()
        arrived = Counter(
            {self._positions[digest]: n for digest, n in self._watched.arrivals().items()}
        )
        return _State(account, book, arrived)

    def _broken(self, before: _State, now: _State, kill: Kill) -> Iterator[str]:
        most = self._scenario.concurrency_max
        if max(kill.in_flight, kill.lost, kill.lost_billed) > most:
            yield f"more than {most} calls were lost"
        yield from self._broken_always(before, now)
        lost = now.lost()
        lost.subtract(before.lost())
        if twice := [position for position, n in lost.items() if n > 1]:
            yield f"groups {twice[:5]} lost more than one call at once"

    def _broken_always(self, before: _State, now: _State) -> Iterator[str]:
        book = now.book
        if book.twice:
            yield f"{book.twice} positions have two final words"
        if wrong := wrong_parts(self._job, book):
            yield f"published and other bytes: {wrong[:5]}"
        if book.sound != "ok":
            yield f"the ledger is damaged: {book.sound[:80]}"
        if gone := before.book.ranked - book.ranked:
            yield f"{len(gone)} scores are gone"
        if again := [p for p in before.book.ranked if now.arrived[p] > before.arrived[p]]:
            yield f"groups {again[:5]} were asked again although they had scores"
        if invented := [p for p, n in now.lost().items() if n < 0]:
            yield f"groups {invented[:5]} have calls in the ledger that were never sent"

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self, report: Report) -> Iterator[str]:
        before = self._last
        options: tuple[str, ...] = ()
        for report.finishes in range(1, FINISHES_MAX + 1):
            process = run(self._job, *options, anew=self._scenario.anew)
            if process.exit_code() or not process.summary["rejected"]:
                break
            options = ("--retry-rejects",)
        if process.exit_code():
            yield f"the last run left with {process.exit_code()}: {process.said[-500:]}"
            return
        now = self._last = self._look(Book.of(self._job))
        yield from self._broken_always(before, now)
        yield from self._broken_account(process.summary, now.account)
        if now.lost() != before.lost():
            yield "calls are missing from the ledger although nobody was killed"
        if now.lost_billed > report.with_calls * self._scenario.concurrency_max:
            yield f"{now.lost_billed} calls were paid twice"
        if len(now.book.ranked) < self._scenario.groups:
            yield f"only {len(now.book.ranked)} of {self._scenario.groups} groups are ranked"
        yield from self._broken_output()

    def _broken_account(self, summary: Mapping[str, Any], account: Account) -> Iterator[str]:
        """
        With a cap all that may have been spent is owned up to, by dead runs as well.
        """
        told_usd = summary["cost_usd"] + summary["cost_usd_lost"]
        if self._scenario.capped and told_usd < account.nano_usd / 1e9 - 1e-9:
            yield f"told ${told_usd} of ${account.nano_usd / 1e9}"

    def _broken_output(self) -> Iterator[str]:
        found, expected = bytes_of(self._job), bytes_of(self._whole)
        if other := sorted(n for n in found | expected if found.get(n) != expected.get(n)):
            yield f"not as in the undisturbed run: {other[:5]}"
        if faults := faults_of(self._job):
            yield f"verify: {'; '.join(faults)}"


# --- carrying on ----------------------------------------------------------------------------------


def first_call_s(folder: Path, watched: Watched, groups: int) -> float:
    """
    Do nine groups of ten; how long a new process then takes from its start to its first call.
    """
    write_source(folder, groups)
    job = write_job(folder, watched.base_url, concurrency_max=64)
    watched.turn(latency=0, faults=[])
    run(job, "--limit", str(groups * 9 // 10), anew=True)
    watched.reset()
    watched.turn(latency=1)
    with running(job, anew=True) as process:
        until(lambda: watched.account().arrived, process)
    return watched.arrived_at()[0] - process.began_at


# --- the command ----------------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--groups", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """
    The long form; returns 1 if anything did not hold.
    """
    given = _arguments()
    size = given.kills, given.groups
    scenarios = (
        Scenario("kills", *size, seed=given.seed),
        Scenario("kills and faults", *size, FAULTS, seed=given.seed + 1, capped=True),
    )
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="batchrank-") as folder, embedded() as watched:
        for scenario in scenarios:
            _say(f"\n{HEAD}")
            report = Campaign(Path(folder, scenario.name), watched, scenario).run(_say)
            _say(report.text())
            problems += report.problems
        groups = given.groups * 10
        first_s = first_call_s(Path(folder, "carrying on"), watched, groups)
    _say(f"\ncarrying on at 9 of 10 of {groups:,} groups: first call after {first_s:.2f} s")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
