"""
Limits that are told, as the server sees them: the fullest window of each in its log of arrivals.

Owns the four limits that are tried, each until enough of its windows have passed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchrank.testing import windows_max
from tests.bench.children import run
from tests.bench.material import KEY, Shape, Tables, write_job
from tests.bench.serving import serving
from tests.bench.sides import BATCHRANK, prepare

LATENCY_S = 0.15


@dataclass(frozen=True, slots=True)
class Told:
    """
    A limit of so many requests a period, and how many groups are sent under it.
    """

    count: int
    period_s: float
    groups: int


LIMITS = (
    Told(10, 60.0, 22),
    Told(20, 1.0, 400),
    Told(1_000, 60.0, 1_600),
    Told(1_000, 1.0, 20_000),
)
QUICK = (Told(20, 1.0, 60), Told(1_000, 1.0, 2_000))


def windows(folder: Path, limits: tuple[Told, ...], say: Callable[[str], None]) -> Any:
    """
    For each limit: the most in any window of its length, and the most that is allowed.
    """
    found = []
    for told in limits:
        place = folder / "windows"
        place.mkdir()
        prepare(place / "source", Shape(told.groups, 20, 200))
        limits_table = {"requests.count": told.count, "requests.per_s": told.period_s}
        tables: Tables = {"limits": limits_table}
        with serving(LATENCY_S) as server:
            job = write_job(place, place / "source", server.base_url, tables)
            done = run([*BATCHRANK, "run", str(job), "--json"], KEY).said
            came = server.arrivals()
        shutil.rmtree(place)
        found.append(
            {
                "limit": told.count,
                "period_s": told.period_s,
                "calls": len(came),
                "window_max": windows_max(came, told.period_s),
                "allowed": told.count + max(1.0, 0.02 * told.count),
                "used": round(
                    (len(came) - 1) / (came[-1] - came[0]) * told.period_s / told.count, 4
                ),
                "failed": done["calls_failed"],
            }
        )
        say(f"windows: {found[-1]}")
    return found
