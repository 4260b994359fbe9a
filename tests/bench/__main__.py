"""
`make bench`: measure, print tables, and with `--keep` save them as docs/benchmarks.json and .md.

Campaigns: `cells` (throughput of all sides), `sketch` (what the path alone would do), `limit`,
`hidden`, `windows`, `night`, `scale`, `staging`, and `ten-million`, which takes as long as all
others and is only done when it is named. What is kept replaces what was kept of the same campaign;
the rest of the document stays.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.cells import (
    ALL_BUT_PEERS,
    BESIDE_SKETCHES,
    CELLS,
    EVERYBODY,
    FOR_PEERS,
    QUICK,
    Bench,
    Cell,
    throughput,
)
from tests.bench.hidden import hidden
from tests.bench.limited import limited
from tests.bench.material import Shape
from tests.bench.night import LENGTH_S, night
from tests.bench.scale import MADE_UP, SHAPES, scale, simulated
from tests.bench.staging import QUICK as FEW_ROWS
from tests.bench.staging import ROWS, staging
from tests.bench.windows import LIMITS, windows
from tests.bench.windows import QUICK as FEW

OUT = Path(__file__).parent / "out"
"""Where everything is written meanwhile; git ignores it."""

QUICK_SHAPES = (Shape(2_000, 20, 200),)
QUICK_MADE_UP = 60_000
QUICK_NIGHT_S = 3
QUICK_HURRY = 12.0

Campaigns = Mapping[str, Callable[[Path], Any]]
say = partial(print, flush=True)


def campaigns(wanted: argparse.Namespace) -> Campaigns:
    """
    What can be measured, by name.
    """
    cells = QUICK if wanted.quick else CELLS
    rounds = 1 if wanted.quick else wanted.rounds

    def sides_of(cell: Cell) -> Sequence[str]:
        peers = wanted.all or (cell in FOR_PEERS and not wanted.quick)
        return EVERYBODY if peers else ALL_BUT_PEERS

    def cells_of(folder: Path) -> Any:
        return throughput(Bench(folder, rounds, say, sides_of), cells)

    def sketch(folder: Path) -> Any:
        return throughput(Bench(folder, rounds, say, lambda _: BESIDE_SKETCHES), cells[:1])

    return {
        "cells": cells_of,
        "sketch": sketch,
        "limit": lambda folder: limited(folder, say),
        "hidden": lambda folder: hidden(folder, say, QUICK_HURRY if wanted.quick else 1.0),
        "windows": lambda folder: windows(folder, FEW if wanted.quick else LIMITS, say),
        "night": lambda folder: night(folder, QUICK_NIGHT_S if wanted.quick else LENGTH_S, say),
        "scale": lambda folder: scale(folder, QUICK_SHAPES if wanted.quick else SHAPES, say),
        "staging": lambda folder: staging(folder, FEW_ROWS if wanted.quick else ROWS, say),
        "ten-million": lambda folder: simulated(
            folder, QUICK_MADE_UP if wanted.quick else wanted.groups, say
        ),
    }


def main() -> int:
    """
    Measure, print, and keep if asked to.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument(
        "--only", action="append", metavar="CAMPAIGN", help="may come several times"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="does everything run; no figures")
    parser.add_argument("--all", action="store_true", help="the peers in every cell")
    parser.add_argument("--groups", type=int, default=MADE_UP, help="of ten-million")
    parser.add_argument("--keep", action="store_true", help="write docs/benchmarks.*")
    wanted = parser.parse_args()
    known = campaigns(wanted)
    names = wanted.only or [name for name in known if name != "ten-million"]
    if strange := set(names) - set(known):
        parser.error(f"no campaign is called {', '.join(sorted(strange))}: {', '.join(known)}")
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=OUT) as folder:
        for name in names:
            results = {name: known[name](Path(folder)), "machine": machine()}
            say(report.as_text(results))
            if wanted.keep:  # now: whoever ends the rest keeps what there is
                report.save(results)
    return 0


def machine() -> dict[str, Any]:
    """
    Where this is measured.
    """
    return {
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
