"""
A flame graph of the own path: where the CPU of `batchrank run` goes at zero latency.

`make flame` has py-spy look at a run against the bench server and writes `docs/flame.svg`. Frames
are named by module and function; paths of this machine are cut off, also from what cannot be seen.
Needs the right to look into another process (root, or ptrace_scope 0), and nothing of ours slower.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tests.bench.children import ROOT, run
from tests.bench.drawing import drawn
from tests.bench.material import KEY, Shape, limits, write_job
from tests.bench.peers.envs import Environment
from tests.bench.serving import serving
from tests.bench.sides import BATCHRANK, NotMeasured, prepare

PICTURE = ROOT / "docs" / "flame.svg"
SHAPE = Shape(30_000, 20, 200)
IN_FLIGHT = 64
RATE_PER_S = 199
"""A prime, so that no timer of ours beats with it."""

SHARE_MIN = 0.002
"""Narrower frames are left out: nobody can read them."""

FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")
THREAD = re.compile(r"thread \(\w+\)(?:: (?P<name>.*))?")
LIBRARY = re.compile(r".*/(?:site-packages|lib/python3[.]\d+|lib-dynload)/")
IMPORTING = "(<frozen "
WAITING = "threading.Condition.wait"
"""What py-spy takes for work in threads that have nothing to do."""


def named(frame: str) -> str:
    """
    A frame of py-spy as module and function: `batchrank.job.running._engine`, or as its thread.
    """
    if thread := THREAD.fullmatch(frame):
        return thread["name"] or "MainThread"  # it has no name before Python gives it one
    found = FRAME.fullmatch(frame)
    if found is None:
        return frame.rsplit("/", 1)[-1]
    file = LIBRARY.sub("", found["file"].removeprefix(f"{ROOT}/"))
    module = file.rsplit("/", 1)[-1] if file.startswith("/") else file
    module = module.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{module}.{found['function']}"


def stacks(lines: Iterable[str]) -> Mapping[tuple[str, ...], int]:
    """
    Samples by stack, from py-spy's raw format: frames from the root, and how often.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for line in lines:
        frames, _, count = line.rpartition(" ")
        stack = tuple(named(frame) for frame in frames.split(";") if IMPORTING not in frame)
        if stack[-1] != WAITING:
            counts[stack] += int(count)
    return counts


def sampled(folder: Path, shape: Shape) -> Mapping[tuple[str, ...], int]:
    """
    Run a job under py-spy.

    Raises:
        NotMeasured: py-spy is not to be had here.
    """
    environment = Environment.of("py_spy")
    if environment.missing:
        raise NotMeasured(environment.missing)
    source, raw = folder / "source", folder / "stacks.txt"
    prepare(source, shape)
    with serving() as server:
        job = write_job(folder, source, server.base_url, {"limits": limits(IN_FLIGHT)})
        looking = ("record", "--format", "raw", "--threads", "--rate", str(RATE_PER_S))
        job_run = (*BATCHRANK, "run", job, "--json")
        run(
            [environment.python.with_name("py-spy"), *looking, "--output", raw, "--", *job_run], KEY
        )
    return stacks(raw.read_text().splitlines())


def main() -> None:
    """
    Sample, draw, say how large the picture is.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench.flame")
    parser.add_argument("--groups", type=int, default=SHAPE.groups)
    parser.add_argument("--output", type=Path, default=PICTURE)
    wanted = parser.parse_args()
    shape = replace(SHAPE, groups=wanted.groups)
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = sampled(Path(folder), shape)
    except NotMeasured as why:
        raise SystemExit(f"not drawn: {why}") from why
    title = f"batchrank run, {shape.name}, {IN_FLIGHT} in flight, no latency"
    wanted.output.write_text(drawn(found, title, SHARE_MIN), encoding="utf-8")
    print(f"{wanted.output}: {wanted.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
