"""
`make demo`: the quick start as a real job over HTTP, with faults, killed once, with the proof.

Owns the story and the words. Everything is done by the commands that a user would type; the server
is `batchrank serve` in a process of its own, which keeps its own bill. Works in a folder of its own
below `jobs/out`, made anew each time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ir_measures
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from ir_measures import Qrel, ScoredDoc, nDCG

from batchrank.operate.serve import Server, server

HERE = Path(__file__).resolve().parent
STAGE = HERE / "out" / "demo"
JOB = STAGE / "quickstart.toml"
KEY = "demo-key-that-costs-nothing"

DIALS = ["--latency", "0.1..0.3", "--fault", "529@6,14,31", "--fault", "429@22,30"]
"""Overloads, and two 429s with Retry-After, one of them halfway."""

HALFWAY = 20
START_S_MAX = 60.0


def main() -> int:
    """
    Play the demonstration; returns 0 if everything that is promised was kept.
    """
    prepare()
    with server(DIALS) as rerank:
        say("a rerank server listens, with faults on the way:", "batchrank serve", *DIALS)
        lost = run_and_kill(rerank)
        say("the same command carries on:", *command("run", rerank))
        again = batchrank("run", rerank, "--json")
        summary = json.loads(again.stdout)
        say("and the output is proved:", *command("verify", rerank))
        proof = batchrank("verify", rerank)
        print(proof.stdout)
        kept = report(summary, lost, rerank.account())
    return 0 if kept and again.returncode == proof.returncode == 0 else 1


def prepare() -> None:
    """
    Copy job and data to a place of their own.
    """
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(HERE / "data", STAGE / "data")
    shutil.copy(HERE / "quickstart.toml", JOB)


# --- commands -------------------------------------------------------------------------------------


def command(name: str, rerank: Server, *more: str) -> list[str]:
    """
    A command on the demonstration's job, as a user would type it.
    """
    return ["batchrank", name, "quickstart.toml", "--set", f"base_url={rerank.base_url}", *more]


def start(name: str, rerank: Server, *more: str) -> subprocess.Popen[str]:
    """
    Start a command; what it shows goes to the terminal, or to a file where there is none.
    """
    log = None if sys.stderr.isatty() else (STAGE / "demo.log").open("a")
    try:
        return subprocess.Popen(
            [sys.executable, "-m", *command(name, rerank, *more)],
            cwd=STAGE,
            env={**os.environ, "OPENROUTER_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    finally:
        if log is not None:
            log.close()


def batchrank(name: str, rerank: Server, *more: str) -> subprocess.CompletedProcess[str]:
    """
    Run a command to its end.
    """
    with start(name, rerank, *more) as process:
        out, _ = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out)


def run_and_kill(rerank: Server) -> int:
    """
    Run the job and kill it halfway; returns how many calls were billed and are not in the ledger.

    The moment is the pause that the 429 asks for: everybody has come home, so that the bill can be
    compared to the call. At any other moment as many calls as were in flight can be paid again.
    """
    say("the job runs, and is killed halfway:", *command("run", rerank))
    with start("run", rerank) as process:
        seen = until_halfway(rerank, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    status = json.loads(batchrank("status", rerank, "--json").stdout)
    print(f"killed with SIGKILL: {status['done']} of {status['groups']} groups are in the ledger,")
    print(f"the server has billed {seen['billed_calls']} calls, {seen['in_flight']} are in flight")
    print("(killed in the pause after a 429, so that the bill can be compared to the call;")
    print(" `make torture` kills at any moment: then what is in flight may be paid again)\n")
    return int(seen["billed_calls"] - status["done"])


def until_halfway(rerank: Server, process: subprocess.Popen[str]) -> dict[str, Any]:
    """
    Wait for the pause halfway.
    """
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end and process.poll() is None:
        seen = rerank.account()
        if seen["calls"] > HALFWAY and seen["by_status"].get("429") and not seen["in_flight"]:
            time.sleep(0.2)  # the last reply becomes durable
            return seen
        time.sleep(0.01)
    raise SystemExit("the job ended, or never began, before it could be killed")


# --- what came of it ------------------------------------------------------------------------------


def report(summary: dict[str, Any], lost: int, seen: dict[str, Any]) -> bool:
    """
    Print quality, bill and proof; tell whether every promise was kept.
    """
    before, after = quality()
    billed, groups = seen["billed_calls"], summary["groups"]
    statuses = ", ".join(f"{count} with {status}" for status, count in seen["by_status"].items())
    bill = sum(account["nano_usd"] for account in seen["bill"].values()) / 1e9
    rows = [
        ("nDCG@10, first stage", f"{before:.3f}"),
        ("nDCG@10, reranked", f"{after:.3f}"),
        ("groups, each scored once", f"{summary['ranked']} of {groups}"),
        ("rejected", f"{summary['rejected']}"),
        ("calls, as the server saw them", f"{seen['calls']}: {statuses}"),
        ("calls, as our ledger has them", f"{summary['calls']}"),
        ("the server's bill", f"${bill:.4f} for {billed} calls"),
        ("our account", f"${summary['cost_usd']:.4f}"),
        ("billed, and lost by the kill", f"{lost}"),
        ("billed beyond that", f"{billed - groups - lost}"),
    ]
    for name, value in rows:
        print(f"  {name:<32}{value}")
    kept = billed == groups + lost and seen["calls"] == summary["calls"] + lost
    what = "nothing" if not lost else f"but for {lost} that the kill lost, nothing"
    once = f"{what} was paid twice: {billed} calls were billed for {groups} groups"
    print(f"\n{once if kept else 'THE BILL IS WRONG'}")
    return bool(kept and after > before)


def quality() -> tuple[float, float]:
    """
    nDCG@10 of the first stage's order and of the scores that the job wrote.
    """
    qrels = [Qrel(*row.values()) for row in pq.read_table(STAGE / "data/qrels.parquet").to_pylist()]
    scores = ds.dataset(STAGE / "out/quickstart").to_table().to_pylist()
    ours = [ScoredDoc(r["query_id"], r["doc_id"], r["relevance_score"]) for r in scores]
    first, second = (
        ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10]
        for run in (list(first_stage()), ours)
    )
    return first, second


def first_stage() -> Iterator[ScoredDoc]:
    """
    The candidates in the order in which they came.
    """
    for group in pq.read_table(STAGE / "data/helpdesk.parquet").to_pylist():
        for index, document in enumerate(group["documents"]):
            yield ScoredDoc(group["query_id"], document["doc_id"], -float(index))


def say(what: str, *words: str) -> None:
    """
    Announce a step and the command that does it.
    """
    print(f"— {what}\n  $ {' '.join(words)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
