"""
The long form of the oracle: many seeds of every model, on all cores, as a table.

    python -m tests.sim [--seeds 1000] [--only WORDS]

Ends with 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from batchrank.policy.control import Adaptive
from tests.sim.oracle import DOUBLING, LONG, Figures, Model, Search, Verdict, judged, play
from tests.sim.reference import reference

HEADER = f"{'model':42} {'median':>7} {'5 %':>7} {'429s':>8}  more"


def main() -> int:
    """
    Play, print, judge.
    """
    asked = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    asked.add_argument("--seeds", type=int, default=1000)
    asked.add_argument("--only", default="", help="models whose name has these words")
    args = asked.parse_args()
    _say(HEADER)
    broken = 0
    with ProcessPoolExecutor() as pool:
        for model in (m for m in LONG if args.only in m.name):
            verdict = _verdict(pool, model, args.seeds, Adaptive)
            broken += bool(verdict.broken)
            _say(_row(model.name, verdict))
        for name, search in (("ours", Adaptive), ("reference", reference)):
            row = _row(f"{DOUBLING.name}: {name}", _verdict(pool, DOUBLING, args.seeds, search))
            _say(row)
    return 1 if broken else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it prints its table


def _verdict(pool: ProcessPoolExecutor, model: Model, seeds: int, search: Search) -> Verdict:
    runs: Iterable[Figures] = pool.map(
        partial(_play, model.name, search), range(seeds), chunksize=max(1, seeds // 16)
    )
    return judged(model, list(runs))


def _play(name: str, search: Search, seed: int) -> Figures:
    # Models hold functions, which do not travel between processes: their names do.
    return play(next(m for m in (*LONG, DOUBLING) if m.name == name), seed, search)


def _row(name: str, verdict: Verdict) -> str:
    more = [f"{took:.0f} s after {at:.0f}" for at, took in verdict.within_s.items()]
    if "two" in name:
        more.append(f"larger share {verdict.larger:.2f}")
    more += [f"BROKEN: {words}" for words in verdict.broken]
    used = f"{verdict.median:7.1%} {verdict.fifth:7.1%} {verdict.throttled:8.2%}"
    return f"{name:42} {used}  {'; '.join(more)}"


if __name__ == "__main__":
    sys.exit(main())
