"""
Figures as a table, as JSON, and as docs/benchmarks.md.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
DATA = ROOT / "docs" / "benchmarks.json"


def as_text(results: dict[str, Any]) -> str:
    """
    Everything that was measured, as Markdown tables.
    """
    machine = results["machine"]
    lines = [
        f"Measured on {machine['cpus']} cores, {machine['system']}, Python {machine['python']}."
    ]
    if "throughput" in results:
        lines += ["", *_throughput(results["throughput"])]
    if "limit" in results:
        lines += ["", *_limit(results["limit"])]
    if "memory" in results:
        lines += ["", *_memory(results["memory"])]
    return "\n".join(lines)


def _throughput(found: dict[str, Any]) -> list[str]:
    medians = {name: statistics.median(rates) for name, rates in found["per_s"].items()}
    own = medians["batchrank"]
    rows = [
        f"| {name} | {median:,.0f} | {min(rates):,.0f} to {max(rates):,.0f} | {own / median:.2f} |"
        for (name, rates), median in zip(found["per_s"].items(), medians.values(), strict=True)
    ]
    alone = found["server_alone_per_s"]
    void = "**VOID: the server is too slow**" if found["void"] else "enough"
    shape = f"{found['shape']} (groups x documents x characters), {found['in_flight']} in flight"
    served = f"a server that takes {found['latency_s']} s; alone it does {alone:,.0f}/s: {void}"
    return [
        f"{shape}, {served}.",
        "",
        "| side | median per s | range | batchrank / side |",
        "|---|---|---|---|",
        *rows,
    ]


def _limit(found: dict[str, Any]) -> list[str]:
    over = found["elapsed_s"] / found["allowed_s"] - 1
    what = f"SciFact, {found['groups']} groups of 100 abstracts, at a limit that allows them in"
    took = f"{found['allowed_s']:.1f} s: {found['elapsed_s']:.2f} s ({over:+.1%})"
    came = f"{found['rows']:,} rows, {found['rejected']} rejected"
    return [f"{what} {took}, {came}, {found['refused']} calls refused by the server."]


def _memory(found: list[dict[str, Any]]) -> list[str]:
    rows = [
        f"| {r['shape']} | {r['source_mb']} | {r['peak_mb']} | {r['groups_per_s']:,} |"
        f" {r['cpu_us_per_group']} | {r['ledger_bytes_per_group']} |"
        for r in found
    ]
    return [
        "| one row group | its MB | peak MB | groups/s | CPU µs/group | ledger bytes/group |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def save(results: dict[str, Any]) -> None:
    """
    Write the page and its data.
    """
    DATA.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    head = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    PAGE.write_text(head.replace("{figures}", as_text(results)), encoding="utf-8")
