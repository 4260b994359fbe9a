"""
A minute at the most that a provider allows: 1,200 requests a second at 160 ms over TLS.

Owns what a night is held against: the rate as the server saw it, second by second, the fullest
window, and the CPU that was left.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from batchrank.testing import windows_max
from tests.bench.material import Shape, Tables
from tests.bench.serving import Certificate, serving
from tests.bench.sides import Work, ours, prepare

Said = Callable[[str], None]

LIMIT_PER_S = 1_200
LATENCY_S = 0.16
IN_FLIGHT = 256
LENGTH_S = 60
SHAPE = (20, 200)


def night(folder: Path, length_s: int, say: Said) -> dict[str, Any]:
    """
    Run a job with that limit for about so many seconds.
    """
    shape = Shape(LIMIT_PER_S * length_s, *SHAPE)
    source = folder / "night"
    prepare(source, shape)
    tables: Tables = {"limits": {"requests_per_second": LIMIT_PER_S, "concurrency": IN_FLIGHT}}
    with serving(LATENCY_S, Certificate.make(folder)) as server:
        ran = ours(Work(source, server, IN_FLIGHT, folder), tables)
        came, stats = server.arrivals(), server.stats()
    seconds = _by_second(came)
    found = {
        "shape": shape.name,
        "limit_per_s": LIMIT_PER_S,
        "latency_s": LATENCY_S,
        "held_per_s": round((len(came) - 1) / (came[-1] - came[0]), 1),
        "seconds": [min(seconds), max(seconds)],
        "window_max": windows_max(came, 1.0),
        "gap_ms_max": round(1e3 * max(after - before for before, after in pairwise(came)), 1),
        "in_flight_mean": round(stats["in_flight_mean"], 1),
        "elapsed_s": ran.said["elapsed_s"],
        "cpu_share": round(ran.cpu_s / ran.wall_s, 3),
        "cpu_us": round(1e6 * ran.cpu_s / shape.groups, 1),
        "server_cpu_share": round(stats["cpu_s"] / stats["span_s"], 3),
        "cpus": os.cpu_count(),
        "calls_failed": ran.said["calls_failed"],
        "peak_mb": round(ran.peak_mb, 1),
    }
    say(f"night: {found}")
    return found


def _by_second(came: Sequence[float]) -> list[int]:
    """
    Arrivals of each whole second, without the last one, which is cut off.
    """
    counts = Counter(int(at - came[0]) for at in came)
    return [counts[second] for second in range(max(counts))] or [len(came)]
