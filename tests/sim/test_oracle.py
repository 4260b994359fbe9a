"""
The controller against servers with a hidden limit, on virtual time: eight seeds of most, and twenty
in `make campaigns`.

`python -m tests.sim` plays a thousand at full size; `python -m tests.sim.compiled` does so sooner.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from batchrank.domain import RateLimit
from batchrank.policy.control import Adaptive, Known
from batchrank.policy.pace import pace_of
from tests.sim.compiled import MODULES, ROOT
from tests.sim.heldout import HELD_OUT
from tests.sim.oracle import DOUBLING, LONG, SHORT, Model, judged, play
from tests.sim.reference import reference

SEEDS, FEW = 20, 8

AT_ITS_BOUND = "sliding 1 s of 12"
"""Its median is just what it must be, which eight seeds cannot tell: always in full."""


def in_full_or_fewer() -> Iterator[Any]:
    """
    Each model with few seeds, and as a campaign with all of them.
    """
    for model in SHORT:
        name = model.name.replace(" ", "-")
        if model.name == AT_ITS_BOUND:
            yield pytest.param(model, SEEDS, id=name)
            continue
        yield pytest.param(model, FEW, id=f"{name}, {FEW} seeds")
        yield pytest.param(model, SEEDS, id=name, marks=pytest.mark.campaign)


@pytest.mark.parametrize(("model", "seeds"), list(in_full_or_fewer()))
def test_the_hidden_limit_is_used_and_hardly_ever_passed(model: Model, seeds: int) -> None:
    """
    Utilisation and 429s from the first HOLD on, times after steps, shares of two clients; and
    nobody sends through a shut gate. Of eight seeds the 5th percentile is the worst.
    """
    verdict = judged(model, [play(model, seed) for seed in range(seeds)])

    assert () == verdict.broken


@pytest.mark.parametrize("model", [m for m in SHORT if len(m.rates) == 1][:7], ids=lambda m: m.name)
def test_with_a_true_limit_configured_nobody_is_throttled(model: Model) -> None:
    """
    It starts at 98 % of the limit at once, and there are no 429s at all.
    """
    count, period_s = model.rates[0][1], 1.0
    if "60 s" in model.name:
        count, period_s = 60 * count, 60.0
    pace = pace_of(RateLimit(count, period_s))

    def configured(known: Known) -> Adaptive:
        return Adaptive(Known(pace=pace, concurrency_max=known.concurrency_max))

    figures = play(model, 0, configured)

    assert 0.0 == figures.throttled
    assert pytest.approx(0.98, abs=0.01) == figures.utilisation


def test_a_limit_that_doubles_is_followed_sooner_than_by_the_reference() -> None:
    """
    Half the time at least, with as few 429s; at a fifth of the rates that are published, for three
    seeds.
    """
    slower = replace(DOUBLING, rates=[(since, per_s / 5) for since, per_s in DOUBLING.rates])
    ours = judged(slower, [play(slower, seed) for seed in range(3)])
    theirs = judged(slower, [play(slower, seed, reference) for seed in range(3)])

    assert ours.within_s[300.0] <= theirs.within_s[300.0] / 2
    assert ours.throttled <= 0.005


def test_every_model_of_the_long_form_has_its_own_name() -> None:
    """
    Processes look models up by name, and the seeds of two that share one would be the same.
    """
    names = [model.name for model in (*LONG, *HELD_OUT, DOUBLING)]

    assert sorted(set(names)) == sorted(names)


def test_what_is_to_be_compiled_is_there() -> None:
    """
    Otherwise the long form would play uncompiled, with a word that nobody reads.
    """
    assert () == tuple(module for module in MODULES if not (ROOT / module).is_file())


@pytest.mark.long
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_what_is_to_be_compiled_can_be() -> None:
    """
    The compiler refuses types that mypy lets pass (an int where a float was declared).
    """
    arguments = ["--seeds", "1", "--only", "bucket 20/s, hint given"]
    played = subprocess.run(
        [sys.executable, "-m", "tests.sim.compiled", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (0, "") == (played.returncode, played.stderr)
