"""
`make bench`: throughput beside bare clients, and memory; a table, JSON, and docs/benchmarks.md.

Sides alternate in one run, because machines are shared and noisy: only ratios of one run mean
anything. A run in which the server alone is not twice as fast as the fastest client is void.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batchrank.operate.serve import server
from tests.bench import report
from tests.bench.material import Shape, Tables, write_source
from tests.bench.sides import client, ours

IN_FLIGHT = 200
LATENCY_S = "0.15"
SMALL = Shape(12_000, 20, 200)
HTTPX_COUNT = 800
MEMORY = (Shape(100_000, 20, 200), Shape(20_000, 100, 500))
MEMORY_IN_FLIGHT = 64

SCIFACT = Path(__file__).resolve().parents[2].parent / "shared/data/scifact/groups_test.parquet"
LIMIT_PER_MINUTE = 3_000
LIMIT_IN_FLIGHT = 32

Said = Callable[[str], None]


def throughput(folder: Path, rounds: int, say: Said) -> dict[str, Any]:
    """
    Groups per second with 200 in flight at 150 ms: ours, bare aiohttp, stock httpx, in turn.
    """
    source = folder / "small.parquet"
    write_source(source, SMALL, row_group=2_000)
    figures: dict[str, list[float]] = {"batchrank": [], "bare aiohttp": [], "stock httpx": []}
    with server(["--latency", LATENCY_S, "--scorer", "hashed"]) as slow:
        for number in range(rounds):
            done = ours(folder / "job", source, slow.base_url, IN_FLIGHT)
            figures["batchrank"].append(SMALL.groups / done.said["elapsed_s"])
            for name, count in (("bare aiohttp", SMALL.groups), ("stock httpx", HTTPX_COUNT)):
                figures[name].append(client(name, source, slow.base_url, count, IN_FLIGHT))
            say(
                f"round {number + 1}: "
                + ", ".join(f"{k} {v[-1]:,.0f}/s" for k, v in figures.items())
            )
    alone = _server_alone(source, rounds)
    fastest = max(statistics.median(figures[name]) for name in ("bare aiohttp", "stock httpx"))
    return {
        "shape": SMALL.name,
        "in_flight": IN_FLIGHT,
        "latency_s": float(LATENCY_S),
        "per_s": figures,
        "server_alone_per_s": alone,
        "void": alone < 2 * fastest,
    }


def _server_alone(source: Path, rounds: int) -> float:
    """
    What the server does without latency, asked by the fastest client there is.
    """
    with server(["--scorer", "hashed"]) as fast:
        rates = [client("bare aiohttp", source, fast.base_url, 10_000, 64) for _ in range(rounds)]
    return max(rates)


def memory(folder: Path, say: Said) -> list[dict[str, Any]]:
    """
    Peak memory of the runner over sources of one row group, at 64 in flight.
    """
    found = []
    for shape in MEMORY:
        source = folder / f"{shape.groups}.parquet"
        _write_elsewhere(source, shape)
        with server(["--scorer", "hashed"]) as fast:
            done = ours(folder / "job", source, fast.base_url, MEMORY_IN_FLIGHT)
            ledger = _ledger_bytes(folder / "job")
        found.append(
            {
                "shape": shape.name,
                "peak_mb": round(done.peak_mb, 1),
                "groups_per_s": round(shape.groups / done.said["elapsed_s"]),
                "cpu_us_per_group": round(1e6 * done.cpu_s / shape.groups),
                "ledger_bytes_per_group": round(ledger / shape.groups),
                "source_mb": round(source.stat().st_size / 1e6, 1),
            }
        )
        say(f"memory, {shape.name}: {found[-1]}")
        source.unlink()
    return found


def _write_elsewhere(source: Path, shape: Shape) -> None:
    """
    Write in a process of its own: one row group is held whole while it is written.
    """
    pid = os.fork()
    if pid == 0:
        write_source(source, shape)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise SystemExit(f"cannot write {source}")


def _ledger_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob(".batchrank/*/ledger.sqlite*"))


def limit(folder: Path, say: Said) -> dict[str, Any]:
    """
    300 queries x 100 abstracts of SciFact under a limit that the server enforces, too.
    """
    enforced = ["--limit", f"{LIMIT_PER_MINUTE}/min", "--latency", "0.15"]
    tables: Tables = {
        "source": {"doc_id": "id", "text": "text"},
        "limits": {"requests_per_minute": LIMIT_PER_MINUTE},
    }
    with server(enforced) as limited:
        done = ours(folder / "job", SCIFACT, limited.base_url, LIMIT_IN_FLIGHT, tables).said
        seen = limited.account()
    found = {
        "groups": done["groups"],
        "rows": done["rows"],
        "rejected": done["rejected"],
        "refused": seen["limit_refusals"],
        "elapsed_s": done["elapsed_s"],
        "allowed_s": 60 * done["groups"] / LIMIT_PER_MINUTE,
    }
    say(f"limit: {found}")
    return found


def main() -> int:
    """
    Measure, print, save, render.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("throughput", "memory", "limit"))
    parser.add_argument("--keep", action="store_true", help="write docs/benchmarks.md")
    wanted = parser.parse_args()
    results: dict[str, Any] = {"machine": _machine()}
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name:
        if wanted.only in (None, "throughput"):
            results["throughput"] = throughput(Path(name), wanted.rounds, print)
        if wanted.only in (None, "limit") and SCIFACT.exists():
            results["limit"] = limit(Path(name), print)
        if wanted.only in (None, "memory"):
            results["memory"] = memory(Path(name), print)
    print(report.as_text(results))
    if wanted.keep:
        report.save(results)
    return 1 if results.get("throughput", {}).get("void") else 0


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
