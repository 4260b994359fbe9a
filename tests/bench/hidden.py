"""
A limit that nobody told and that moves: how soon it is followed on real time, with how many 429s.

Owns the course of four minutes (300 requests a second for one, 200 for one, 400 for two) and what
the server's log of arrivals says about it. The embedded server holds the limit, a token bucket; the
job knows nothing of it.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchrank.operate.serve import Server, server
from tests.bench.children import run
from tests.bench.material import KEY, Shape, Tables, write_job
from tests.bench.sides import BATCHRANK, prepare

STEPS = ((0.0, 300), (60.0, 200), (120.0, 400))
LENGTH_S = 240.0
"""Since when how many a second, in seconds; and when it ends."""

WITHIN_S = 10.0
REACHED = 0.9
"""A limit is followed from the first ten seconds on in which nine tenths of it are accepted."""

SHAPE = Shape(100_000, 2, 40)


def hidden(folder: Path, say: Callable[[str], None], hurry: float = 1.0) -> dict[str, Any]:
    """
    Run a job through the course, *hurry* times as quickly.
    """
    place = folder / "hidden"
    place.mkdir()
    prepare(place / "source", SHAPE)
    steps = [(since / hurry, per_s) for since, per_s in STEPS]
    tables: Tables = {"run": {"deadline": f"{LENGTH_S / hurry + 5:.0f}s", "drain_s_max": 5}}
    first = f"bucket:{steps[0][1]}/s"
    with server(["--limit", first, "--latency", "0.1..0.3", "--scorer", "hashed"]) as embedded:
        job = write_job(place, place / "source", embedded.base_url, tables)
        course = threading.Thread(target=_follow, args=(embedded, steps[1:]), daemon=True)
        course.start()
        run([*BATCHRANK, "run", str(job), "--json"], KEY, 75)
        arrivals = embedded.arrivals()
    shutil.rmtree(place)
    found = judged(arrivals, steps, LENGTH_S / hurry)
    say(f"hidden: {found}")
    return found


def _follow(embedded: Server, steps: Sequence[tuple[float, int]]) -> None:
    """
    Turn the limit, counted from the first call.
    """
    while not embedded.account()["calls"]:
        time.sleep(0.05)
    began = time.monotonic()
    for since, per_s in steps:
        time.sleep(max(0.0, began + since - time.monotonic()))
        embedded.turn(limit=f"bucket:{per_s}/s")


def judged(
    arrivals: Mapping[str, Sequence[Any]], steps: Sequence[tuple[float, int]], length_s: float
) -> dict[str, Any]:
    """
    For each step: the seconds until it was followed, the mean rate accepted from there to its end;
    and the share of 429s in all.
    """
    began = min(arrivals["at_s"])
    came = [
        (at - began, status)
        for at, status in zip(arrivals["at_s"], arrivals["status"], strict=True)
        if at - began < length_s
    ]
    accepted = [0] * int(length_s + 1)
    for at, status in came:
        accepted[int(at)] += status == 200
    ends = [since for since, _ in steps[1:]] + [length_s]
    return {
        "steps": [
            _step(accepted, since, end, per_s)
            for (since, per_s), end in zip(steps, ends, strict=True)
        ],
        "calls": len(came),
        "refused": sum(status == 429 for _, status in came),
        "refused_share": round(sum(status == 429 for _, status in came) / len(came), 5),
    }


def _step(accepted: Sequence[int], since: float, end: float, per_s: int) -> dict[str, Any]:
    first, last, window = round(since), int(end), int(WITHIN_S)
    for start in range(first, last - window + 1):
        # Not above the new limit either: what the old one let through follows nothing.
        share = sum(accepted[start : start + window]) / window / per_s
        if REACHED <= share <= 1.1:
            rest = sum(accepted[start:last]) / max(1, last - start)
            return {"limit_per_s": per_s, "after_s": start - first, "then_per_s": round(rest, 1)}
    return {"limit_per_s": per_s, "after_s": None, "then_per_s": None}
