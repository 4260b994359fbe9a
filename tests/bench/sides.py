"""
Run one side in a process of its own and read what it says: speed, peak memory, CPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.material import Tables, write_job

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ran:
    """
    A process that ended: what it printed as JSON, its peak memory in MB, its CPU seconds.
    """

    said: Any
    peak_mb: float
    cpu_s: float


def run(command: list[str], **environment: str) -> Ran:
    """
    Run a command to its end; it has to print one line of JSON last.
    """
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        out, err = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} left with {process.returncode}:\n{err[-2000:]}")
    peak = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return Ran(json.loads(out.splitlines()[-1]), peak, usage.ru_utime + usage.ru_stime)


def ours(
    folder: Path, source: Path, base_url: str, concurrency: int, tables: Tables | None = None
) -> Ran:
    """
    The whole job from scratch, from Parquet to published Parquet, with the ledger durable; its
    output is verified, beside the clock.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = write_job(folder, source, base_url, concurrency, tables)
    batchrank = [sys.executable, "-m", "batchrank"]
    ran = run([*batchrank, "run", str(job), "--json"], BENCH_KEY="bench-key-0123456789")
    run([*batchrank, "verify", str(job), "--json"])  # or the run was fast at something else
    return ran


def client(name: str, source: Path, base_url: str, count: int, in_flight: int) -> float:
    """
    Requests per second of a client alone.
    """
    arguments = [name, base_url, str(source), str(count), str(in_flight)]
    return float(run([sys.executable, "-m", "tests.bench.clients", *arguments]).said)
