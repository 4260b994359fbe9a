"""
One output, and everything that can happen to it in any order: commands, kills, settings that change
and change back, files that are lost. After each step all who tell of it agree; in the end it is as
if nothing had happened.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from batchrank.examine.bill import bill
from batchrank.examine.status import status
from batchrank.examine.verify import verify
from batchrank.store.output import SUCCESS
from tests.e2e.jobs import (
    Book,
    Watched,
    bytes_of,
    embedded,
    faults_of,
    folder_of,
    here,
    loaded,
    run_here,
    running,
    write_job,
    write_source,
    wrong_parts,
)

pytestmark = pytest.mark.campaign

GROUPS, CONCURRENCY, STEPS = 60, 8, 20
FAULTS = ("429:0.05", "502:0.05", "drop:0.05", "garbage:0.05", "400:0.03")
SHAPES: tuple[Mapping[str, object], ...] = (
    {"layout": "groups"},
    {"top_n": 1},
    {"part_groups": 7},
)


@dataclass(slots=True)
class Play:
    """
    The job, and what was done to it that its ledger cannot know: *spoiled* parts, and *kills*.
    """

    folder: Path
    server: Watched
    chance: random.Random
    job: Path = field(init=False)
    spoiled: set[str] = field(default_factory=set)
    kills: int = 0

    def __post_init__(self) -> None:
        self.shape()

    def shape(self, **output: object) -> None:
        """
        Write the job file, with a shape of the output that may be another than it was.
        """
        output = {"part_groups": 20, "rejected_max": GROUPS, **output}
        budget = {"cost_usd_max": 1_000.0}
        url, most = self.server.base_url, CONCURRENCY
        self.job = write_job(self.folder, url, concurrency_max=most, output=output, budget=budget)

    def run(self, *options: str) -> None:
        """
        To its end, unless something stops it.
        """
        here("run", str(self.job), *options)

    def cut_short(self, number: signal.Signals) -> None:
        """
        Signal a run somewhere on its way.
        """
        with running(self.job) as process:
            time.sleep(self.chance.uniform(0.0, 0.8))
            self.kills += number is signal.SIGKILL and process.is_alive
            process.send(number)
            process.exit_code()


# --- what happens ---------------------------------------------------------------------------------


def _reshaped(play: Play) -> None:
    play.shape(**play.chance.choice(SHAPES))
    play.chance.choice([play.run, lambda: play.cut_short(signal.SIGKILL)])()
    play.shape()


def _sampled(play: Play) -> None:
    here("plan", str(play.job), "--sample", "20")


def _spoiled(play: Play) -> None:
    parts = sorted(folder_of(play.job).glob("part-*"))
    if parts:
        part = play.chance.choice(parts)
        play.spoiled.add(part.name)
        part.write_bytes(b"damaged")
        if play.chance.random() < 0.5:
            part.unlink()


def _without_success(play: Play) -> None:
    (folder_of(play.job) / SUCCESS).unlink(missing_ok=True)


def _without_manifest(play: Play) -> None:
    loaded(play.job).state.manifest.unlink(missing_ok=True)
    play.run()


def _pruned(play: Play) -> None:
    """
    Nothing can be rendered any more, so that what follows has to begin anew.
    """
    if here("prune", str(play.job))[0] == 0:
        play.run()
        assert [] == faults_of(play.job)
        play.run("--restart", "--limit", "20")


HAPPENS: tuple[Callable[[Play], None], ...] = (
    Play.run,
    lambda play: play.run("--limit", str(play.chance.randint(1, GROUPS))),
    lambda play: play.run("--retry-rejects"),
    lambda play: play.run("--restart", "--limit", "30"),
    _sampled,
    *[lambda play: play.cut_short(signal.SIGKILL)] * 4,
    lambda play: play.cut_short(signal.SIGTERM),
    _reshaped,
    _spoiled,
    _without_success,
    _without_manifest,
    _pruned,
)


# --- what holds -----------------------------------------------------------------------------------


def broken(play: Play) -> Iterator[str]:
    """
    What of all that is told contradicts itself, or the server's own bill.
    """
    job, book = loaded(play.job), Book.of(play.job)
    if book.twice or book.sound != "ok":
        yield f"{book.twice} positions with two final words, {book.sound}"
    if wrong := set(wrong_parts(play.job, book)) - play.spoiled:
        yield f"published and other bytes: {sorted(wrong)}"
    found, told = bill([str(play.job)], {}), status(job)
    (now,) = (part for part in found.parts if part.state == str(job.state.path))
    costs = sum(entry.amounts.nano_usd for entry in now.entries), now.lost_nano_usd
    if costs != (round(told.cost_usd * 1e9), round(told.cost_usd_lost * 1e9)):
        yield f"the bill says {costs}, status {told.cost_usd} and {told.cost_usd_lost}"
    account = play.server.settled()
    unknown = account.nano_usd - found.total.nano_usd
    most = play.kills * CONCURRENCY * account.nano_usd / max(1, account.billed)
    if not 0 <= unknown <= most:
        yield f"{unknown} of the server's bill are in no ledger, after {play.kills} kills"
    verdict = verify(job)
    if told.success and told.done == told.groups and not verdict.holds and not play.spoiled:
        yield verdict.as_text()


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in (2, 3, 4))])
def test_whatever_happens_to_an_output_in_the_end_it_is_the_same(tmp_path: Path, seed: int) -> None:
    """
    And on the way nobody tells two stories of it, least of all about money.
    """
    write_source(tmp_path, GROUPS, documents=3)
    with embedded("--latency", "0.02..0.15") as server:
        play = Play(tmp_path, server, random.Random(seed))
        assert 0 == run_here(play.job)
        whole = bytes_of(play.job)
        play.run("--restart", "--limit", "10")
        for step in range(STEPS):
            server.turn(faults=list(play.chance.choice([(), FAULTS])))
            happened = play.chance.choice(HAPPENS)
            happened(play)
            with suppress(FileNotFoundError):
                play.spoiled -= whole_again(play)
            assert [] == list(broken(play)), f"step {step}: {happened}"
        server.turn(faults=[])
        play.run()
        play.run("--retry-rejects")

    assert [] == faults_of(play.job)
    assert whole == bytes_of(play.job)


def whole_again(play: Play) -> set[str]:
    """
    The spoiled parts that a run has mended.
    """
    return play.spoiled - set(wrong_parts(play.job, Book.of(play.job)))
