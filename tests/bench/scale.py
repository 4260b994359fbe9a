"""
Does it stay as cheap as it begins: memory, CPU and ledger over a hundred thousand groups and more.

Owns the sampling of a run: CPU of its process against the calls that the server has counted, or
against those that a simulated run has noted. Halves are halves of the calls; what comes before the
first of them and after the last is told apart. Long runs are killed at 90 % and carried on.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.bench.children import Child, Failed, Ran, run
from tests.bench.material import KEY, Shape, limits, write_job
from tests.bench.serving import Serving, serving
from tests.bench.sides import BATCHRANK, look, prepare
from tests.bench.simulated import CANDIDATES, NOTES

Said = Callable[[str], None]

IN_FLIGHT = 64
SHAPES = (Shape(100_000, 20, 200), Shape(20_000, 100, 500), Shape(1_000_000, 20, 200))
KILLED_FROM = 1_000_000
"""Sources of so many groups are killed on the way."""

KILLED_AT = 0.9
LOOK_MAX = 200_000
"""Of larger outputs `verify` alone looks at every row: twenty million take this script minutes."""

SAMPLE_S = 0.1
MADE_UP = 10_000_000
"""Groups of the run without source and server."""


@dataclass(frozen=True, slots=True)
class Sample:
    """
    So many calls had come when the process had used so much CPU.
    """

    calls: int
    cpu_s: float


def at(samples: Sequence[Sample], calls: float) -> float:
    """
    CPU seconds when so many calls had come, between the two samples around that.
    """
    after = next(n for n, sample in enumerate(samples) if sample.calls >= calls)
    high = samples[after]
    low = samples[after - 1] if after else high
    share = (calls - low.calls) / ((high.calls - low.calls) or 1)
    return low.cpu_s + share * (high.cpu_s - low.cpu_s)


def halves(samples: Sequence[Sample], total_cpu_s: float) -> dict[str, float]:
    """
    CPU per call in microseconds: in the first half, in the second, and what is around them.
    """
    last = samples[-1].calls
    first_s = at(samples, last / 2) - at(samples, 1)
    second_s = at(samples, last) - at(samples, last / 2)
    around_s = total_cpu_s - first_s - second_s
    return {
        "first_half_us": round(2e6 * first_s / last, 1),
        "second_half_us": round(2e6 * second_s / last, 1),
        "second_to_first": round(second_s / first_s, 3),
        "around_s": round(around_s, 2),
    }


def scale(folder: Path, shapes: Sequence[Shape], say: Said) -> list[dict[str, Any]]:
    """
    Run each shape against a server without latency.
    """
    found = []
    for shape in shapes:
        found.append(_shape(folder / "scale", shape))
        say(f"scale, {shape.name}: {found[-1]}")
    return found


def _shape(folder: Path, shape: Shape) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source = folder / "source"
    prepare(source, shape)
    with serving() as server:
        tables = {"limits": limits(IN_FLIGHT)}
        job = write_job(folder, source, server.base_url, tables)
        found = _whole(job, server, shape)
    run([*BATCHRANK, "verify", str(job), "--json"], {})
    if shape.groups <= LOOK_MAX:
        look(source, folder / "out")
    found |= {
        "groups": shape.groups,
        "shape": shape.name,
        "source_mb": round(sum(file.stat().st_size for file in source.iterdir()) / 1e6, 1),
        "ledger_bytes": _ledger_bytes(folder, shape.groups),
    }
    shutil.rmtree(folder)
    return found


def _ledger_bytes(folder: Path, groups: int) -> float:
    files = folder.glob(".batchrank/*/ledger.sqlite*")
    return round(sum(file.stat().st_size for file in files) / groups, 1)


def _whole(job: Path, server: Serving, shape: Shape) -> dict[str, Any]:
    """
    The run from its first call to its last, killed once if it is long.
    """
    until = round(shape.groups * KILLED_AT) if shape.groups >= KILLED_FROM else None
    first, samples = _watched(job, server, until)
    calls = samples[-1].calls
    found: dict[str, Any] = {
        "peak_mb": round(first.peak_mb, 1),
        "groups_per_s": round(calls / server.stats()["span_s"]),
        "cpu_us": round(1e6 * first.cpu_s / calls, 1),
        **halves(samples, first.cpu_s),
    }
    if until is not None:
        found["carried_on"] = _carried_on(job, server, shape.groups)
    return found


def _carried_on(job: Path, server: Serving, groups: int) -> Mapping[str, float]:
    before = server.stats()["requests"]
    server.reset()
    began = time.monotonic()
    second, samples = _watched(job, server, None)
    return {
        "killed_at": KILLED_AT,
        "first_call_s": round(server.arrivals()[0] - began, 2),
        "peak_mb": round(second.peak_mb, 1),
        "calls_repeated": before + samples[-1].calls - groups,
    }


def _watched(job: Path, server: Serving, until: int | None) -> tuple[Ran, list[Sample]]:
    """
    Run a job and sample it; with *until*, kill it when so many calls have come.
    """
    samples = [Sample(0, 0.0)]
    with Child([*BATCHRANK, "run", str(job), "--json"], {**KEY, **server.environment}) as child:
        while not child.is_over:
            samples.append(Sample(server.stats()["requests"], child.cpu_s))
            if until is not None and samples[-1].calls >= until:
                child.send(signal.SIGKILL)
                break
            time.sleep(SAMPLE_S)
        ran = child.finish(-signal.SIGKILL)
    samples.append(Sample(server.stats()["requests"], ran.cpu_s))
    return ran, samples


# --- without a source and a server ----------------------------------------------------------------


def simulated(folder: Path, groups: int, say: Said) -> dict[str, Any]:
    """
    Run so many groups that nobody has written down, killed once, with a real ledger and real parts.
    """
    place = folder / "simulated"
    place.mkdir()
    first, samples, _ = _noted(place, groups, round(groups * KILLED_AT))
    say(f"simulated, {groups:,} groups: killed at {samples[-1].calls:,}")
    second, _, first_call_s = _noted(place, groups, None)
    found = {
        "groups": groups,
        "shape": f"{groups:,} x {CANDIDATES}",
        "peak_mb": round(first.peak_mb, 1),
        "groups_per_s": round(samples[-1].calls / first.wall_s),
        "cpu_us": round(1e6 * first.cpu_s / samples[-1].calls, 1),
        **halves(samples, first.cpu_s),
        "ledger_bytes": _ledger_bytes(place, groups),
        "carried_on": {
            "killed_at": KILLED_AT,
            "first_call_s": round(first_call_s, 2),
            "peak_mb": round(second.peak_mb, 1),
        },
    }
    rows = sum(pq.read_metadata(part).num_rows for part in (place / "out").glob("*.parquet"))
    if rows != groups * CANDIDATES or not second.said["success"]:
        raise Failed(f"{rows:,} rows for {groups:,} groups")
    shutil.rmtree(place)
    say(f"simulated: {found}")
    return found


def _noted(place: Path, groups: int, until: int | None) -> tuple[Ran, list[Sample], float]:
    """
    Run it once; its samples by its own notes, and when its first call came.
    """
    notes = place / NOTES
    notes.write_text("")
    command = [sys.executable, "-m", "tests.bench.simulated", str(place), str(groups)]
    with Child(command, {}) as child:
        while not child.is_over:
            time.sleep(SAMPLE_S)
            last = notes.read_text().splitlines()[-1:]
            if until is not None and last and json.loads(last[0])["calls"] >= until:
                child.send(signal.SIGKILL)
                break
        ran = child.finish(-signal.SIGKILL)
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    return ran, [Sample(line["calls"], line["cpu_s"]) for line in lines], lines[0]["at_s"]
