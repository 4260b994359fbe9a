"""
What a run came to: the summary for people, for programs, and for the state folder.

Owns its words and its keys; both are stable. Where the numbers come from is `job`'s business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from unicodedata import category


@dataclass(frozen=True, slots=True)
class Summary:
    """
    One run, and where it leaves its output.

    Without a qualifier numbers are of the output, over all runs; `*_now` are of this run. Costs are
    US dollars; *cost_usd_by_source* tells how they are known.
    """

    job: str
    exit_code: int
    ended: str
    reason: str
    output: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: int = 0
    done: int = 0
    ranked: int = 0
    rejected: int = 0
    empty: int = 0
    candidates: int = 0
    rejects_by_kind: Mapping[str, int] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    calls: int = 0
    calls_now: int = 0
    calls_repeated: int = 0
    calls_failed: Mapping[str, int] = field(default_factory=dict)
    search_units: float = 0.0
    total_tokens: int = 0
    cost_usd: float = 0.0
    cost_usd_now: float = 0.0
    cost_usd_by_source: Mapping[str, float] = field(default_factory=dict)
    cost_usd_lost: float = 0.0
    parts: int = 0
    rows: int = 0
    success: bool = False
    done_now: int = 0
    elapsed_s: float = 0.0
    groups_per_s: float = 0.0
    in_flight_max: int = 0
    accepted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """
        Plain data, ready for JSON.
        """
        return asdict(self)

    def as_json(self) -> str:
        """
        One line of JSON.
        """
        return json.dumps(self.as_data(), ensure_ascii=False)

    def as_text(self) -> str:
        """
        Some lines for people.
        """
        return "\n".join(f"{name:<9}{as_shown(value)}" for name, value in self._lines() if value)

    def _lines(self) -> list[tuple[str, str]]:
        return [
            ("job", f"{self.job}: {self.ended}{f' ({self.reason})' if self.reason else ''}"),
            ("groups", self._groups()),
            ("rejects", _counts(self.rejects_by_kind)),
            ("calls", self._calls()),
            ("cost", self._cost()),
            ("lost", self._lost()),
            ("served", ", ".join((*self.models, *(f"by {p}" for p in self.providers)))),
            ("time", self._time()),
            ("output", self._output()),
            ("state", self.state),
            ("accepted", ", ".join(self.accepted)),
            *(("note", note) for note in self.notes),
        ]

    def _groups(self) -> str:
        ranked = f"{self.ranked:,} ranked ({self.candidates:,} candidates)"
        ends = f"{ranked}, {self.rejected:,} rejected, {self.empty:,} empty"
        return f"{self.done:,} of {self.groups:,} done: {ends}"

    def _calls(self) -> str:
        failed = _counts(self.calls_failed)
        repeated = f"{self.calls_repeated:,} repeated{f'; failed: {failed}' if failed else ''}"
        return f"{self.calls_now:,} now, {self.calls:,} in all, {repeated}"

    def _cost(self) -> str:
        sources = ", ".join(f"${v:,.4f} {k}" for k, v in self.cost_usd_by_source.items() if v)
        known = f" ({sources})" if sources else ""
        return f"${self.cost_usd_now:,.4f} now, ${self.cost_usd:,.4f} in all{known}"

    def _lost(self) -> str:
        if not self.cost_usd_lost:
            return ""
        return f"${self.cost_usd_lost:,.4f} may have been spent by runs that were killed"

    def _time(self) -> str:
        speed = f", {self.groups_per_s:,.1f} groups/s" if self.done_now else ""
        return f"{self.elapsed_s:,.1f} s{speed}, {self.in_flight_max} in flight at most"

    def _output(self) -> str:
        success = "_SUCCESS" if self.success else "no _SUCCESS"
        return f"{self.output}: {self.parts} parts, {self.rows:,} rows, {success}"


def as_shown(text: str) -> str:
    """
    *text* in one line, with nothing in it that steers a terminal: it may come from anywhere.
    """
    return "".join(
        _STAND_IN if category(character)[0] == "C" else character
        for character in " ".join(text.splitlines()).replace("\t", " ")
    )


_STAND_IN = "\N{REPLACEMENT CHARACTER}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
