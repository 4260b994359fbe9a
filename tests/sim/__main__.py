"""
The long form of the oracle: many seeds of every model, on all cores, as a table.

    python -m tests.sim [--seeds 1000] [--only WORDS] [--held-out]

Ends with 1 if a bound is broken. `python -m tests.sim.compiled` plays the same in a quarter of the
time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from batchrank.policy.control import Adaptive
from tests.sim.heldout import HELD_OUT
from tests.sim.oracle import DOUBLING, LONG, Figures, Model, Search, Verdict, judged, play
from tests.sim.reference import reference

MODELS = {model.name: model for model in (*LONG, *HELD_OUT, DOUBLING)}
WIDTH = max(map(len, MODELS))
HEADER = f"{'model':{WIDTH}} {'median':>7} {'5 %':>7} {'429s':>8}  more"


class Row(NamedTuple):
    """
    A line of the table, and the runs it will be made of.
    """

    title: str
    model: Model
    runs: Iterable[Figures]


def main() -> int:
    """
    Play, print, judge.
    """
    asked = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    asked.add_argument("--seeds", type=int, default=1000)
    asked.add_argument("--only", default="", help="models whose name has these words")
    asked.add_argument(
        "--held-out", action="store_true", help="the models, too, that no constant was fitted to"
    )
    args = asked.parse_args()
    _say(HEADER)
    broken = 0
    with ProcessPoolExecutor() as pool:
        # All are begun at once, so that no core waits for the last seeds of a model.
        for row in list(_rows(pool, args.seeds, args.only, args.held_out)):
            verdict = judged(row.model, list(row.runs))
            broken += bool(verdict.broken)
            _say(_line(row.title, verdict))
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it prints its table


def _rows(pool: ProcessPoolExecutor, seeds: int, only: str, held_out: bool) -> Iterator[Row]:
    played: list[tuple[str, Model, Search]] = [(m.name, m, Adaptive) for m in LONG]
    if held_out:
        played += [(m.name, m, Adaptive) for m in HELD_OUT]
    played += [
        (f"{DOUBLING.name}: {name}", DOUBLING, search)
        for name, search in (("ours", Adaptive), ("reference", reference))
    ]
    for title, model, search in played:
        if only in title:
            one = partial(_play, model.name, search)
            yield Row(title, model, pool.map(one, range(seeds), chunksize=max(1, seeds // 16)))


def _play(name: str, search: Search, seed: int) -> Figures:
    # Models hold functions, which do not travel between processes: their names do.
    return play(MODELS[name], seed, search)


def _line(title: str, verdict: Verdict) -> str:
    more = [f"{took:.0f} s after {at:.0f}" for at, took in verdict.within_s.items()]
    if "clients" in title:
        more.append(f"larger share {verdict.larger:.2f}")
    more += [f"BROKEN: {words}" for words in verdict.broken]
    used = f"{verdict.median:7.1%} {verdict.fifth:7.1%} {verdict.throttled:8.2%}"
    return f"{title:{WIDTH}} {used}  {'; '.join(more)}"


if __name__ == "__main__":
    sys.exit(main())
