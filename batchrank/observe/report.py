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

from batchrank.errors import Exit


@dataclass(frozen=True, slots=True)
class RouteShare:
    """
    What one way to a model was asked, and the groups whose last scores came by it.
    """

    calls: int
    groups: int
    cost_usd: float

    def __str__(self) -> str:
        return (
            f"{counted(self.calls, 'call')}, {counted(self.groups, 'group')}, ${self.cost_usd:,.4f}"
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """
    One run, and where it leaves its output.

    Without a qualifier numbers are of the output, over all runs; `*_now` are of this run. Costs are
    US dollars; *cost_usd_by_source* tells how they are known, *routes* by which way they came.
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
    rejected_max: int = 0
    empty: int = 0
    candidates: int = 0
    reused: int = 0
    equal: int = 0
    documents_reused: int = 0
    documents_cut: int = 0
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
    calls_cost_unknown: int = 0
    cost_usd_rejected: float = 0.0
    routes: Mapping[str, RouteShare] = field(default_factory=dict)
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

    def as_text(self, *, goes_on: bool = True) -> str:
        """
        Some lines for people. *goes_on*: another run carries on from here, and it is said how.
        """
        lines = self._lines(goes_on=goes_on)
        return "\n".join(f"{name:<9}{as_shown(value)}" for name, value in lines if value)

    def _lines(self, *, goes_on: bool) -> list[tuple[str, str]]:
        return [
            ("job", f"{self.job}: {self._ended()}"),
            ("next", RETRY if goes_on and self._has_too_many_rejects() else ""),
            ("groups", self._groups()),
            ("rejects", in_words(self.rejects_by_kind, REJECT_WORDS)),
            ("texts", self._texts()),
            ("calls", self._calls()),
            ("cost", self._cost()),
            *(("route", line) for line in routes_in_words(self.routes)),
            ("lost", self._lost()),
            ("served", ", ".join((*self.models, *(f"by {p}" for p in self.providers)))),
            ("time", self._time()),
            ("output", self._output()),
            ("state", self.state),
            ("accepted", ", ".join(self.accepted)),
            *(("note", note) for note in self.notes),
        ]

    def _ended(self) -> str:
        if self._has_too_many_rejects():
            now = "" if self.calls_now else "; nobody was called now"
            return f"{too_many_rejects(self.rejected, self.rejected_max)}{now}"
        return f"{self.ended}{f' ({self.reason})' if self.reason else ''}"

    def _has_too_many_rejects(self) -> bool:
        return self.exit_code == Exit.REJECTS

    def _groups(self) -> str:
        reused = f", {self.reused:,} reused" if self.reused else ""
        equal = f", {self.equal:,} equal to another" if self.equal else ""
        ranked = f"{self.ranked:,} ranked ({self.candidates:,} candidates{reused}{equal})"
        ends = f"{ranked}, {self.rejected:,} rejected, {self.empty:,} empty"
        return f"{self.done:,} of {self.groups:,} done: {ends}"

    def _texts(self) -> str:
        cut, known = (
            number and f"{counted(number, 'document')} {words}"
            for number, words in (
                (self.documents_cut, "cut, as source.max_chars says"),
                (self.documents_reused, "of changed groups not sent, as output.reuse_pairs says"),
            )
        )
        return "; ".join(words for words in (cut, known) if words)

    def _calls(self) -> str:
        failed = in_words(self.calls_failed, FAILURE_WORDS)
        repeated = f"{self.calls_repeated:,} repeated{f'; failed: {failed}' if failed else ''}"
        return f"{self.calls_now:,} now, {self.calls:,} in all, {repeated}"

    def _cost(self) -> str:
        sources = ", ".join(f"${v:,.4f} {k}" for k, v in self.cost_usd_by_source.items() if v)
        known = f" ({sources})" if sources else ""
        vain = self.cost_usd_rejected
        rejected = f", ${vain:,.4f} for groups that were rejected" if vain else ""
        spent = f"${self.cost_usd_now:,.4f} now, ${self.cost_usd:,.4f} in all{known}{rejected}"
        return with_unknown(spent if self.cost_usd else "", self.calls_cost_unknown) or spent

    def _lost(self) -> str:
        if not self.cost_usd_lost:
            return ""
        return f"${self.cost_usd_lost:,.4f} may have been spent by runs that were killed"

    def _time(self) -> str:
        speed = f", {self.groups_per_s:,.1f} groups/s" if self.done_now else ""
        return f"{self.elapsed_s:,.1f} s{speed}, {self.in_flight_max} in flight at most"

    def _output(self) -> str:
        success = "_SUCCESS" if self.success else "no _SUCCESS"
        parts, rows = counted(self.parts, "part"), counted(self.rows, "row")
        return f"{self.output}: {parts}, {rows}, {success}"


# --- words ----------------------------------------------------------------------------------------

FAILURE_WORDS = {
    "never_sent": "never sent",
    "throttled": "told to slow down",
    "unknown": "perhaps billed (no clear answer)",
    "bad_reply": "answered wrongly (perhaps billed)",
    "bad_group": "refused by the provider for content or size",
    "fatal": "refused for good (key, credit, model or address)",
}
"""What became of failed calls, behind their number."""

REJECT_WORDS = {
    "empty_query": "with an empty query",
    "flawed": "flawed in the source",
    "too_large": "too large for one request",
    "bad_group": "refused by the provider for the content",
    "bad_reply": "answered wrongly each time",
    "unknown": "without a clear answer",
    "throttled": "told to slow down each time",
}
"""Why groups were rejected, behind their number."""

RETRY = "`batchrank run --retry-rejects` asks about them again; output.rejected_max allows more"


def too_many_rejects(rejected: int, allowed: int) -> str:
    """
    How an output ended that is whole and lacks too much.
    """
    groups, are = counted(rejected, "group"), "is" if rejected == 1 else "are"
    return f"finished, but {groups} {are} rejected where {allowed:,} are allowed"


def with_unknown(spent: str, calls: int) -> str:
    """
    What was *spent* ("" is nothing that is known), and for how many *calls* nobody knows it.
    """
    unknown = calls and f"unknown for {counted(calls, 'call')}: no price is known"
    return "; ".join(words for words in (spent, unknown) if words)


def routes_in_words(routes: Mapping[str, RouteShare]) -> list[str]:
    """
    A line for each way, where there are several.
    """
    return [f"{name}: {share}" for name, share in routes.items()] if len(routes) > 1 else []


def in_words(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    """
    `3 told to slow down, 1 never sent`: *counts* by kind as people say it.
    """
    return ", ".join(f"{n:,} {words.get(kind, kind)}" for kind, n in counts.items() if n)


def counted(number: int, thing: str) -> str:
    """
    `1 part`, `2 parts`.
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """
    So many bytes in a unit that fits.
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:,.0f} {unit}" if unit == "bytes" else f"{size_bytes:,.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def as_shown(text: str) -> str:
    """
    *text* in one line, with nothing in it that steers a terminal: it may come from anywhere.
    """
    return "".join(
        _STAND_IN if category(character)[0] == "C" else character
        for character in " ".join(text.splitlines()).replace("\t", " ")
    )


_STAND_IN = "\N{REPLACEMENT CHARACTER}"
