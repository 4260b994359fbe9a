"""
Throughput: who does how many groups a second, by shape of the groups, TLS and latency.

Owns the cells, the sides of each, and the order: sides alternate, round after round, because
machines are shared and noisy, and only ratios of one run mean anything. Before and after, raw
sockets tell what the server does alone. A side that is faster than half of that is void: what was
measured is the server.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.clients import CLIENTS
from tests.bench.material import Shape
from tests.bench.serving import Certificate, serving
from tests.bench.sides import (
    OURS,
    PEERS,
    SKETCHES,
    NotMeasured,
    Work,
    as_data,
    measured,
    prepare,
    raw,
)

Said = Callable[[str], None]

LATENCY_S = 0.15
IN_FLIGHT: Mapping[float, int] = {0.0: 64, LATENCY_S: 200}
"""Calls at once, by the server's latency."""

ROW_GROUP = 2_000
ALONE_MIN = 2.0
"""The server alone is at least so many times as fast as a client, or the client's run is void."""

RAW_SLOW = 4_000
"""Exchanges over raw sockets where the server has a latency: its double without one is asked."""


@dataclass(frozen=True, slots=True)
class Cell:
    """
    One place in the matrix. *shape* says how many groups the full sides do.
    """

    shape: Shape
    tls: bool
    latency_s: float

    @property
    def in_flight(self) -> int:
        """
        Calls at once.
        """
        return IN_FLIGHT[self.latency_s]

    @property
    def name(self) -> str:
        """
        As tables say it.
        """
        wire = "TLS" if self.tls else "plain"
        return f"{self.shape.of_group}, {wire}, {1000 * self.latency_s:.0f} ms"


SMALL, LARGE = (20, 200), (100, 500)
COUNTS: Mapping[tuple[tuple[int, int], float], int] = {
    (SMALL, 0.0): 30_000,
    (LARGE, 0.0): 8_000,
    (SMALL, LATENCY_S): 16_000,
    (LARGE, LATENCY_S): 8_000,
}
"""Groups for those who are fast, by shape and latency: a few seconds a run."""

CELLS = tuple(
    Cell(Shape(COUNTS[of_group, latency_s], *of_group), tls, latency_s)
    for latency_s in IN_FLIGHT
    for of_group in (SMALL, LARGE)
    for tls in (False, True)
)
QUICK = (Cell(Shape(2_000, *SMALL), False, 0.0), Cell(Shape(2_000, *SMALL), True, LATENCY_S))
FOR_PEERS = frozenset(cell for cell in CELLS if cell.shape.candidates == 20 and not cell.tls)

EVERYBODY = (OURS, *CLIENTS, *PEERS)
ALL_BUT_PEERS = (OURS, *CLIENTS)
BESIDE_SKETCHES = (OURS, "bare aiohttp", *SKETCHES)
"""Who meets in a cell, by what is asked there."""


SHARES: Mapping[str, Mapping[float, float]] = {
    "stock httpx": {0.0: 0.02, LATENCY_S: 0.03},
    "httpx, 20 kept": {0.0: 0.03, LATENCY_S: 0.1},
    "openrouter SDK": {0.0: 0.02, LATENCY_S: 0.04},
    "cohere SDK": {0.0: 0.05, LATENCY_S: 0.1},
    "litellm.arerank": {0.0: 0.07, LATENCY_S: 0.15},
    "Daft": {0.0: 0.7, LATENCY_S: 0.4},
    "Ray Data": {0.0: 0.4, LATENCY_S: 0.3},
}
"""How many of the groups a slow side gets, so that its run takes about as long as the others'."""


@dataclass(frozen=True, slots=True)
class Bench:
    """
    How a bench is carried out. *sides* tells who meets in a cell.
    """

    folder: Path
    rounds: int
    say: Said
    sides: Callable[[Cell], Sequence[str]]


def throughput(bench: Bench, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """
    Measure every cell.
    """
    certificate = Certificate.make(bench.folder)
    return [_cell(bench, cell, certificate if cell.tls else None) for cell in cells]


def _cell(bench: Bench, cell: Cell, certificate: Certificate | None) -> dict[str, Any]:
    source = bench.folder / f"source-{cell.shape.groups}-{cell.shape.candidates}"
    if not source.exists():
        prepare(source, cell.shape, ROW_GROUP)
    bench.say(f"{cell.name}, {cell.in_flight} in flight, {cell.shape.groups:,} groups")
    with serving(cell.latency_s, certificate) as server:
        work = Work(source, server, cell.in_flight, bench.folder)
        alone = [_alone(cell, work)]
        runs, missing = _rounds(bench, cell, work)
        alone.append(_alone(cell, work))
    found: dict[str, Any] = {
        "cell": cell.name,
        "shape": cell.shape.of_group,
        "tls": cell.tls,
        "latency_s": cell.latency_s,
        "in_flight": cell.in_flight,
        "groups": cell.shape.groups,
        "server_alone": max(alone, key=lambda each: each["per_s"]),
        "sides": {name: _summed_up(each) for name, each in runs.items()},
        "not_measured": missing,
    }
    found["void"] = void(found)
    bench.say(f"  server alone {found['server_alone']['per_s']:,.0f}/s; void: {found['void']}")
    return found


def _alone(cell: Cell, work: Work) -> dict[str, Any]:
    """
    What the server does alone. With a latency its double is asked, which has none.
    """
    if not cell.latency_s:
        return as_data(raw(work, 2 * cell.shape.groups))
    with serving(0.0, work.serving.certificate) as double:
        return as_data(raw(Work(work.source, double, cell.in_flight, work.folder), RAW_SLOW))


Runs = dict[str, list[dict[str, Any]]]


def _rounds(bench: Bench, cell: Cell, work: Work) -> tuple[Runs, dict[str, str]]:
    sides = bench.sides(cell)
    runs: Runs = {name: [] for name in sides}
    missing: dict[str, str] = {}
    for number in range(bench.rounds):
        for name in sides:
            if name in missing:
                continue
            try:
                runs[name].append(as_data(measured(name, work, groups_of(name, cell))))
            except NotMeasured as why:
                missing[name] = str(why)
                del runs[name]
        rates = ", ".join(f"{name} {each[-1]['per_s']:,.0f}" for name, each in runs.items())
        bench.say(f"  round {number + 1}, groups/s: {rates}")
    return runs, missing


def groups_of(name: str, cell: Cell) -> int:
    """
    How many groups a side does in a cell.
    """
    share = SHARES[name][cell.latency_s] if name in SHARES else 1.0
    return round(cell.shape.groups * share)


def _summed_up(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """
    Medians of all figures, and the range of the rate.
    """
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    rates = [run["per_s"] for run in runs]
    return {**medians, "range": [min(rates), max(rates)], "runs": len(runs)}


def void(found: dict[str, Any]) -> list[str]:
    """
    The sides that the server may have held back.
    """
    most = found["server_alone"]["per_s"] / ALONE_MIN
    return [name for name, side in found["sides"].items() if side["per_s"] > most]
