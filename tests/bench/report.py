"""
Figures as Markdown tables, as JSON, and as docs/benchmarks.md.

Owns the words of the tables. Measures nothing, and rounds only here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.cells import ALONE_MIN
from tests.bench.sides import OURS

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
DATA = ROOT / "docs" / "benchmarks.json"
VOID = "†"

Found = Mapping[str, Any]


def as_text(results: Found) -> str:
    """
    Everything that was measured.
    """
    machine = results["machine"]
    head = f"Measured on {machine['cpus']} cores, {machine['system']}, Python {machine['python']}."
    told = [
        told for name, tell in SECTIONS.items() if results.get(name) for told in tell(results[name])
    ]
    return "\n".join([head, *told])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table of Markdown, its first column to the left and all others to the right.
    """
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- throughput -----------------------------------------------------------------------------------


def _cells(cells: Sequence[Found]) -> Iterator[str]:
    yield "\n## Throughput\n"
    yield _wrapped_up(cells)
    for latency_s in sorted({cell["latency_s"] for cell in cells}):
        some = [cell for cell in cells if cell["latency_s"] == latency_s]
        calls = f"{some[0]['in_flight']} in flight"
        where = f"{1000 * latency_s:.0f} ms" if latency_s else "No latency"
        yield f"\n### {where}, {calls}\n"
        yield "Groups per second, and in brackets how many times that batchrank does.\n"
        yield _matrix(some, _rate)
        yield "\nCPU of the side, µs a group.\n"
        yield _matrix(some, lambda cell, name: f"{cell['sides'][name]['cpu_us']:,.0f}")
        if latency_s:
            yield "\nCalls in flight at the server, on average.\n"
            yield _matrix(some, lambda cell, name: f"{cell['sides'][name]['in_flight_mean']:,.0f}")
    yield from _missing(cells)


def _wrapped_up(cells: Sequence[Found]) -> str:
    """
    Whether the server was fast enough to measure others with.
    """
    held = [cell for cell in cells if cell["void"]]
    if not held:
        return f"The server alone did at least {ALONE_MIN:g} times what any side did."
    words = "; ".join(f"{cell['cell']}: {', '.join(cell['void'])}" for cell in held)
    return (
        f"**Void** ({VOID}), because the server alone did less than {ALONE_MIN:g} times that:"
        f" {words}."
    )


def _matrix(cells: Sequence[Found], shown: Callable[[Found, str], str]) -> str:
    names = list(dict.fromkeys(name for cell in cells for name in cell["sides"]))
    rows = [
        [name, *(shown(c, name) if name in c["sides"] else "" for c in cells)] for name in names
    ]
    if shown is _rate:
        rows.append(["*server alone*", *(f"{c['server_alone']['per_s']:,.0f}" for c in cells)])
    heads = [f"{cell['shape']}, {'TLS' if cell['tls'] else 'plain'}" for cell in cells]
    return table(["", *heads], rows)


def _rate(cell: Found, name: str) -> str:
    side, own = cell["sides"][name], cell["sides"].get(OURS)
    mark = VOID if name in cell["void"] else ""
    if name == OURS or own is None:
        return f"**{side['per_s']:,.0f}**{mark}"
    return f"{side['per_s']:,.0f}{mark} ({_ratio(own['per_s'] / side['per_s'])})"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 9.95 else f"{value:.0f}"


def _missing(cells: Sequence[Found]) -> Iterator[str]:
    told = {name: why for cell in cells for name, why in cell["not_measured"].items()}
    if told:
        yield "\nNot measured:\n"
        yield "\n".join(f"- {name}: {why}" for name, why in told.items())


def _sketch(cells: Sequence[Found]) -> Iterator[str]:
    yield "\n## The path alone\n"
    yield (
        "A sketch beside the whole: Parquet, JSON, a carrier, every echo compared, scores in SQLite"
        " before their slot is free, Parquet; without records of attempts, limits, budget, retries,"
        " digests, ids, or a look at what was written. Groups per second, and in brackets how many"
        " times that batchrank does.\n"
    )
    yield _matrix(cells, _rate)
    yield "\nCPU of the side, µs a group.\n"
    yield _matrix(cells, lambda cell, name: f"{cell['sides'][name]['cpu_us']:,.0f}")


# --- the others -----------------------------------------------------------------------------------


def _limit(found: Found) -> Iterator[str]:
    over = found["elapsed_s"] / found["allowed_s"] - 1
    yield "\n## At a limit\n"
    yield (
        f"SciFact, {found['groups']} groups of 100 abstracts, at a limit that allows them in"
        f" {found['allowed_s']:.1f} s: {found['elapsed_s']:.2f} s ({over:+.1%}),"
        f" {found['rows']:,} rows, {found['rejected']} rejected, {found['refused']} calls refused"
        " by the server."
    )


def _hidden(found: Found) -> Iterator[str]:
    yield "\n## At a limit that nobody told\n"
    yield (
        "A token bucket in the embedded server, real time, a job without a limit. *Followed after*:"
        " seconds until ten seconds begin in which 90 % to 110 % of the new limit are accepted.\n"
    )
    rows = [
        [
            f"{step['limit_per_s']}/s",
            "never" if step["after_s"] is None else f"{step['after_s']} s",
            "" if step["then_per_s"] is None else f"{step['then_per_s']:,.1f}",
        ]
        for step in found["steps"]
    ]
    yield table(["limit", "followed after", "accepted per s from then on"], rows)
    yield (
        f"\n429s in all: {found['refused']:,} of {found['calls']:,} calls"
        f" ({found['refused_share']:.2%})."
    )


def _windows(found: Sequence[Found]) -> Iterator[str]:
    yield "\n## Limits that are told, as the server sees them\n"
    rows = [
        [
            f"{each['limit']:,} in {each['period_s']:g} s",
            f"{each['calls']:,}",
            f"{each['window_max']:,}",
            f"{each['allowed']:,.0f}",
            f"{each['used']:.1%}",
        ]
        for each in found
    ]
    yield table(["limit", "calls", "fullest window", "allowed", "mean rate / limit"], rows)


def _night(found: Found) -> Iterator[str]:
    low, high = found["seconds"]
    yield "\n## A minute at 1,200 requests a second\n"
    yield (
        f"{found['shape']} over TLS at {1000 * found['latency_s']:.0f} ms, limit"
        f" {found['limit_per_s']:,}/s: **{found['held_per_s']:,.1f}/s** held as the server saw it,"
        f" {low:,} to {high:,} in each second, at most {found['window_max']:,} in any window of a"
        f" second, {found['in_flight_mean']:.0f} in flight, longest gap"
        f" {found['gap_ms_max']:.0f} ms."
        f" {found['elapsed_s']:.1f} s in all, {found['cpu_share']:.0%} of one core"
        f" ({found['cpu_us']:.0f} µs a group; the server took {found['server_cpu_share']:.0%} of"
        f" another), {found['peak_mb']:.0f} MB. Failed calls: {found['calls_failed'] or 'none'}."
    )


SCALE_HEAD = (
    "groups",
    "source MB",
    "peak MB",
    "groups/s",
    "CPU µs/group, 1st half",
    "2nd half",
    "2nd/1st",
    "ledger bytes/group",
)


def _scale(found: Sequence[Found]) -> Iterator[str]:
    yield "\n## Scale\n"
    yield table(SCALE_HEAD, [_scale_row(row) for row in found])
    yield from _carried_on(found)


def _simulated(found: Found) -> Iterator[str]:
    yield "\n## Ten million groups, made up\n"
    yield table(SCALE_HEAD, [_scale_row(found)])
    yield from _carried_on([found])


def _scale_row(row: Found) -> list[str]:
    source = f"{row['source_mb']:,.0f}" if "source_mb" in row else ""
    return [
        row["shape"],
        source,
        f"{row['peak_mb']:,.0f}",
        f"{row['groups_per_s']:,}",
        f"{row['first_half_us']:,.0f}",
        f"{row['second_half_us']:,.0f}",
        f"{row['second_to_first']:.2f}",
        f"{row['ledger_bytes']:,.0f}",
    ]


def _carried_on(found: Sequence[Found]) -> Iterator[str]:
    for row in found:
        if more := row.get("carried_on"):
            repeated = more.get("calls_repeated")
            again = "" if repeated is None else f", {repeated} calls were made again"
            yield (
                f"\n{row['shape']} was killed at {more['killed_at']:.0%} and carried on: the first"
                f" call came {more['first_call_s']:.1f} s after the start{again},"
                f" {more['peak_mb']:,.0f} MB."
            )


def _staging(found: Sequence[Found]) -> Iterator[str]:
    yield "\n## Staging\n"
    yield (
        f"Rows of candidates in random order, {found[0]['memory']} for DuckDB: what a job does"
        " before its first call, beside DuckDB's own `COPY ... ORDER BY` of the same rows. Medians;"
        " CPU is that of the process, imports included.\n"
    )
    head = ["rows", "groups", "file, MB", "s", "CPU, s", "peak, MB"]
    head += ["DuckDB, s", "CPU, s", "peak, MB", "times ours"]
    yield table(head, [_staged(row) for row in found])


def _staged(row: Found) -> list[str]:
    sides = (row["staged"], row["sorted"])
    figures = [
        f"{value:,.0f}"
        for side in sides
        for value in (side["elapsed_s"], side["cpu_s"], side["peak_mb"])
    ]
    ratio = row["sorted"]["elapsed_s"] / row["staged"]["elapsed_s"]
    counts = (row["rows"], row["groups"], row["source_mb"])
    return [*(f"{count:,}" for count in counts), *figures, f"{ratio:.1f}"]


SECTIONS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "cells": _cells,
    "sketch": _sketch,
    "limit": _limit,
    "hidden": _hidden,
    "windows": _windows,
    "night": _night,
    "scale": _scale,
    "staging": _staging,
    "ten-million": _simulated,
}
"""What is told of each campaign, in the order of the page."""


# --- the document ---------------------------------------------------------------------------------


def save(results: Found) -> None:
    """
    Write the page and its data. Campaigns that were not run this time stay as they are there.
    """
    before = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    whole = {name: before[name] for name in SECTIONS if name in before} | dict(results)
    DATA.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    head = (Path(__file__).parent / "page.md").read_text(encoding="utf-8")
    PAGE.write_text(head.replace("{figures}", as_text(whole)), encoding="utf-8")
