"""
A run as JSON lines, for whoever keeps logs.

Owns which events are worth a line (a rejected group, a pause, a part, a minute), and its keys.
Only this module knows structlog, and it configures nobody else's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TextIO

import structlog

from batchrank.domain import FailureKind
from batchrank.errors import Exit
from batchrank.events import (
    CostStrayed,
    DayRefused,
    DayStarted,
    Event,
    GateOpened,
    GateShut,
    GroupRejected,
    JobEnded,
    JobRefused,
    JobStarted,
    Noticed,
    PartPublished,
    ReporterFailed,
    SourceStaging,
    Stopping,
    Tick,
)
from batchrank.observe.pulse import Pulse

PROGRESS_S = 60.0


class JsonLines:
    """
    Writes a line for each event that is worth one, and one a minute about the progress.
    """

    def __init__(self, file: TextIO, clock: Callable[[], float]) -> None:
        self._pulse = Pulse(clock)
        self._clock = clock
        self._progress_at = clock() + PROGRESS_S
        self._log = structlog.wrap_logger(
            structlog.PrintLogger(file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(_as_json),
            ],
            # Whatever the program around us has configured for itself is not for these lines.
            wrapper_class=structlog.BoundLogger,
            context_class=dict,
        )

    def report(self, event: Event, /) -> None:
        """
        Write what is worth a line.
        """
        self._pulse.report(event)
        if isinstance(event, Tick) and self._clock() >= self._progress_at:
            self._progress_at = self._clock() + PROGRESS_S
            self._log.info("job.progressed", **progress(self._pulse))
        elif type(event) in _LINES:
            level, keys = _LINES[type(event)]
            named = level if isinstance(level, str) else level(event)
            getattr(self._log, named)(event.name, **keys(event))


def _as_json(line: dict[str, Any], **_: Any) -> str:
    """
    Characters as they are, but for those that steer a terminal or break a line.
    """
    text = json.dumps(line, ensure_ascii=False, default=repr)
    return _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_STEERING = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Those that JSON itself does not make us escape; no file takes half a surrogate pair."""


def progress(pulse: Pulse) -> dict[str, Any]:
    """
    The progress line's keys.
    """
    left_s = pulse.left_s
    line: dict[str, Any] = {
        "done": pulse.done,
        "target": pulse.target,
        "groups_per_s": round(pulse.groups_per_s, 1),
        "in_flight": pulse.in_flight,
        "waiting": pulse.waiting,
        "pace_per_s": None if pulse.pace_per_s is None else round(pulse.pace_per_s, 2),
        "mode": pulse.mode,
        "calls": pulse.calls,
        "repeated": pulse.repeated,
        "failures": dict(pulse.failures),
        "cost_usd": round(pulse.cost_usd_now, 6),
        "cost_usd_at_end": round(pulse.cost_usd_at_end, 4),
        "calls_cost_unknown": pulse.calls_cost_unknown,
        "reserved_usd": round(pulse.reserved_usd, 6),
        "lost_usd": round(pulse.lost_usd, 6),
        "cap_usd": pulse.cap_usd,
        "cap_covers": pulse.cap_covers,
        "left_s": None if left_s == float("inf") else round(left_s),
    }
    if pulse.routes:
        line["calls_by_route"] = dict(pulse.calls_by_route)
        line["routes_not_taken"] = {now.route: now.why for now in pulse.routes if now.why}
    if pulse.paused:
        reason, until_s = pulse.paused
        line |= {"paused_because": reason, "paused_s": round(until_s, 1)}
    return line


def _started(event: Any) -> dict[str, Any]:
    names = ("job", "model", "total", "target", "done", "rejected", "concurrency_max")
    rate = event.rate_per_s
    return {name: getattr(event, name) for name in names} | {
        "limit_per_s": None if rate is None else round(rate, 3)
    }


def _rejected(event: Any) -> dict[str, Any]:
    it = event.rejected
    return {
        "position": it.position,
        "query_id": it.query_id,
        "kind": it.kind.value,
        "status": it.status,
        "code": it.code,
        "reason": it.message,
        "attempts": it.attempts,
    }


def _shut(event: Any) -> dict[str, Any]:
    why = "throttled" if event.kind is FailureKind.THROTTLED else "outage"
    line = {"why": why, "reason": event.reason, "wait_s": round(event.until_s, 1)}
    return {**_routed(event), **line}


def _routed(event: Any) -> dict[str, Any]:
    """
    The route's name, where there are several.
    """
    return {"route": event.route} if event.route else {}


def _by_code(event: Any) -> str:
    """
    The level of an end: whatever needs a person is an error.
    """
    levels: dict[int, str] = {Exit.DONE: "info", Exit.LATER: "warning"}
    return levels.get(event.exit_code, "error")


_LINES: dict[type[Event], tuple[str | Callable[[Any], str], Callable[[Any], dict[str, Any]]]] = {
    JobStarted: ("info", _started),
    DayStarted: (
        "info",
        lambda event: {"day": event.day, "number": event.number, "total": event.total},
    ),
    DayRefused: ("error", lambda event: {"day": event.day, "why": event.why}),
    SourceStaging: ("info", lambda event: {"rows": event.rows}),
    Noticed: ("warning", lambda event: {"message": event.message}),
    GroupRejected: ("warning", _rejected),
    GateShut: ("warning", _shut),
    GateOpened: ("info", _routed),
    CostStrayed: (
        "warning",
        lambda event: {
            "groups": event.groups,
            "usd_a_group": round(event.usd, 9),
            "low_usd": round(event.low_usd, 9),
            "high_usd": round(event.high_usd, 9),
        },
    ),
    PartPublished: (
        "info",
        lambda event: {"file": event.file, "rows": event.rows, "again": event.again},
    ),
    Stopping: ("warning", lambda event: {"reason": event.reason, "in_flight": event.in_flight}),
    JobEnded: (_by_code, lambda event: dict(event.summary)),
    JobRefused: (_by_code, lambda event: {"exit_code": event.exit_code, "why": event.why}),
    ReporterFailed: ("error", lambda event: {"reporter": event.reporter, "error": event.error}),
}
"""Which events are worth a line, at which level, with which keys."""
