"""
One side of a comparison, run once in a process of its own: how fast, and at what CPU.

Owns the order of every run: the server forgets its counts, the side works, its output is looked at
beside the clock. Which sides meet, and how often, is the business of `cells`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.children import Failed, Ran, run
from tests.bench.clients import CLIENTS, RAW
from tests.bench.material import KEY, Shape, Tables, limits, write_job
from tests.bench.peers.envs import Environment
from tests.bench.serving import Serving

BATCHRANK = (sys.executable, "-m", "batchrank")
OURS = "batchrank"

PEERS: Mapping[str, str] = {
    "openrouter SDK": "openrouter_sdk",
    "cohere SDK": "cohere_sdk",
    "litellm.arerank": "litellm_sdk",
    "Daft": "daft_udf",
    "Ray Data": "ray_data",
}
"""What people use today, by what tables call it: its module under `peers`."""

SKETCHES: Mapping[str, str] = {
    "sketch, our carrier": "ours",
    "sketch, aiohttp": "aiohttp",
    "sketch, pyreqwest": "pyreqwest",
}
"""The bare path over three carriers, as `sketch` knows them."""

TO_PARQUET = frozenset({"Daft", "Ray Data"})
"""The peers that write an output; the others look at their scores themselves."""


class NotMeasured(Exception):
    """
    A side that cannot be run here; the message says why.
    """


@dataclass(frozen=True, slots=True)
class Figures:
    """
    One run of a side.

    *elapsed_s* is by its own clock, which begins when everything is imported; *wall_s* is the life
    of its process. *cpu_s* is user and system. *in_flight_mean* and *server_cpu_s* are the
    server's words.
    """

    requests: int
    elapsed_s: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    in_flight_mean: float
    server_cpu_s: float

    @property
    def per_s(self) -> float:
        """
        Requests per second.
        """
        return self.requests / self.elapsed_s


@dataclass(frozen=True, slots=True)
class Work:
    """
    What every side of a cell is given.
    """

    source: Path
    serving: Serving
    in_flight: int
    folder: Path


def measured(name: str, work: Work, count: int) -> Figures:
    """
    Run the side *name* once, over *count* groups.

    Raises:
        NotMeasured: it cannot be run here.
        Failed: ours did something else than it should have done.
    """
    work.serving.reset()
    if name == OURS:
        ran = ours(work)
        return _figures(count, ran.said["elapsed_s"], ran.cpu_s, ran, work)
    if name in SKETCHES:
        ran = _sketch(name, work, count)
    else:
        ran = _peer(name, work, count) if name in PEERS else _client(name, work, count)
    said = ran.said
    return _figures(said["requests"], said["elapsed_s"], said["cpu_s"], ran, work)


def _figures(requests: int, elapsed_s: float, cpu_s: float, ran: Ran, work: Work) -> Figures:
    stats = work.serving.stats()
    return Figures(
        requests,
        elapsed_s,
        ran.wall_s,
        cpu_s,
        ran.peak_mb,
        stats["in_flight_mean"],
        stats["cpu_s"],
    )


# --- the three kinds of sides ---------------------------------------------------------------------


def ours(work: Work, tables: Tables | None = None) -> Ran:
    """
    The whole job from scratch, from Parquet to published Parquet, with the ledger durable.

    Raises:
        Failed: it did not come to its end, or its output is not what the server said.
    """
    folder = work.folder / "job"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = tables or {"limits": limits(work.in_flight)}
    job = write_job(folder, work.source, work.serving.base_url, settings)
    ran = run([*BATCHRANK, "run", str(job), "--json"], {**work.serving.environment, **KEY})
    run([*BATCHRANK, "verify", str(job), "--json"], {})
    look(work.source, folder / "out")
    return ran


def _client(name: str, work: Work, count: int) -> Ran:
    assert name in CLIENTS or name == RAW, name
    arguments = [work.serving.base_url, str(work.source), str(count), str(work.in_flight)]
    command = [sys.executable, "-m", "tests.bench.clients", name, *arguments]
    return run(command, work.serving.environment)


def _sketch(name: str, work: Work, count: int) -> Ran:
    folder = work.folder / "sketch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    arguments = [work.serving.base_url, str(work.source), str(folder), str(count)]
    command = [sys.executable, "-m", "tests.bench.sketch", SKETCHES[name], *arguments]
    return run([*command, str(work.in_flight)], work.serving.environment)


def _peer(name: str, work: Work, count: int) -> Ran:
    environment = Environment.of(PEERS[name])
    if environment.missing:
        raise NotMeasured(environment.missing)
    folder = work.folder / "peer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output = folder / "out"
    arguments = [work.serving.base_url, str(work.source), str(output), str(count)]
    module = f"tests.bench.peers.{PEERS[name]}"
    command = ("-m", module, *arguments, str(work.in_flight))
    try:
        ran = run([environment.python, *command], work.serving.environment)
        if name in TO_PARQUET:
            look(work.source, output, count)
    except Failed as failure:
        raise NotMeasured(str(failure).splitlines()[-1]) from failure
    return ran


def look(source: Path, output: Path, *count: int) -> None:
    """
    Compare every score of an output with its document, as `looking` does.

    Raises:
        Failed: it is not what the server said.
    """
    arguments = [str(source), str(output), *map(str, count)]
    run([sys.executable, "-m", "tests.bench.looking", *arguments], {})


def prepare(source: Path, shape: Shape, *row_group: int) -> None:
    """
    Write a source.
    """
    numbers = (shape.groups, shape.candidates, shape.characters, *row_group)
    run([sys.executable, "-m", "tests.bench.material", str(source), *map(str, numbers)], {})


def raw(work: Work, count: int) -> Figures:
    """
    What the server does when nobody's client is in the way.
    """
    return measured(RAW, work, count)


def as_data(found: Figures) -> dict[str, Any]:
    """
    Figures as tables and JSON show them.
    """
    requests = found.requests
    return {
        "per_s": round(found.per_s, 1),
        "wall_per_s": round(requests / found.wall_s, 1),
        "cpu_us": round(1e6 * found.cpu_s / requests, 1),
        "peak_mb": round(found.peak_mb, 1),
        "in_flight_mean": round(found.in_flight_mean, 1),
        "server_cpu_us": round(1e6 * found.server_cpu_s / requests, 1),
    }
