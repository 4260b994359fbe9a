"""
A run as JSON lines, written by structlog: which events are worth a line, and what stands in it.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Call,
    CostSource,
    Failure,
    FailureKind,
    Ranked,
    Rejected,
    RejectKind,
    Slice,
    Usage,
)
from batchrank.events import (
    AttemptFailed,
    CommitStarted,
    Committed,
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
    ManifestWritten,
    Noticed,
    PartMoment,
    PartPublished,
    ReplyRead,
    ReporterFailed,
    RouteNow,
    SourceStaging,
    Stopping,
    SuccessWritten,
    Tick,
)
from batchrank.observe.logs import JsonLines
from tests.laws import law

CALL = Call(
    Slice(0, 0, 1), 2, 0.0, 0.1, Failure(FailureKind.UNKNOWN, "reset"), None, Usage(), None,
    2_000_000, CostSource.REPORTED,
)  # fmt: skip
STARTED = JobStarted("nightly", "v/m", 1000, 500, 100, 3, 64, 1000 / 60, 1.5)


class Written:
    """
    A listener, and what it wrote by now.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.file = io.StringIO()
        self.listener = JsonLines(self.file, lambda: self.now)

    def report(self, *events: Event) -> list[dict[str, Any]]:
        """
        Tell events; returns all lines that there are, without their times.
        """
        for event in events:
            self.listener.report(event)
        return [self._line(text) for text in self.file.getvalue().splitlines()]

    def _line(self, text: str) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(text)
        assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
        return line


@pytest.fixture
def written() -> Written:
    """
    A fresh listener.
    """
    return Written()


LINES: dict[str, tuple[Event, dict[str, Any]]] = {
    "a cost that was not foreseen": (
        CostStrayed(200, 0.0025, 0.0009, 0.0011),
        {
            "event": "cost.strayed",
            "level": "warning",
            "groups": 200,
            "usd_a_group": 0.0025,
            "low_usd": 0.0009,
            "high_usd": 0.0011,
        },
    ),
    "the beginning": (
        STARTED,
        {
            "event": "job.started",
            "level": "info",
            "job": "nightly",
            "model": "v/m",
            "total": 1000,
            "target": 500,
            "done": 100,
            "rejected": 3,
            "concurrency_max": 64,
            "limit_per_s": 16.667,
        },
    ),
    "the next day of a backfill": (
        DayStarted("2026-11-03", 3, 14),
        {"event": "day.started", "level": "info", "day": "2026-11-03", "number": 3, "total": 14},
    ),
    "a day that cannot begin": (
        DayRefused("2026-11-03", "no such file"),
        {"event": "day.refused", "level": "error", "day": "2026-11-03", "why": "no such file"},
    ),
    "a source that is staged": (
        SourceStaging(2_000_000),
        {"event": "source.staging", "level": "info", "rows": 2_000_000},
    ),
    "a notice": (
        Noticed("pyarrow is another one"),
        {"event": "job.noticed", "level": "warning", "message": "pyarrow is another one"},
    ),
    "a rejected group": (
        GroupRejected(Rejected(7, "q7", RejectKind.BAD_GROUP, "too long", 413, "too_large", 2)),
        {
            "event": "group.rejected",
            "level": "warning",
            "position": 7,
            "query_id": "q7",
            "kind": "bad_group",
            "status": 413,
            "code": "too_large",
            "reason": "too long",
            "attempts": 2,
        },
    ),
    "a pause": (
        GateShut("asked to wait 30 s", FailureKind.THROTTLED, 30.04),
        {
            "event": "gate.shut",
            "level": "warning",
            "why": "throttled",
            "reason": "asked to wait 30 s",
            "wait_s": 30.0,
        },
    ),
    "one way of several": (
        GateOpened("other"),
        {"event": "gate.opened", "level": "info", "route": "other"},
    ),
    "its end": (GateOpened(), {"event": "gate.opened", "level": "info"}),
    "the end of one way's": (
        GateOpened("other"),
        {"event": "gate.opened", "level": "info", "route": "other"},
    ),
    "a part": (
        PartPublished(3, "part-00003.parquet", 9, again=True),
        {
            "event": "part.published",
            "level": "info",
            "file": "part-00003.parquet",
            "rows": 9,
            "again": True,
        },
    ),
    "a stop": (
        Stopping("stopped by SIGTERM", 5),
        {
            "event": "job.stopping",
            "level": "warning",
            "reason": "stopped by SIGTERM",
            "in_flight": 5,
        },
    ),
    "the end": (
        JobEnded(0, {"job": "nightly", "exit_code": 0, "labels": {"team": "Süd"}}),
        {
            "event": "job.ended",
            "level": "info",
            "job": "nightly",
            "exit_code": 0,
            "labels": {"team": "Süd"},
        },
    ),
    "an end that tomorrow's run mends": (
        JobEnded(75, {"exit_code": 75}),
        {"event": "job.ended", "level": "warning", "exit_code": 75},
    ),
    "an end that needs a person": (
        JobEnded(3, {"exit_code": 3}),
        {"event": "job.ended", "level": "error", "exit_code": 3},
    ),
    "a job that cannot begin": (
        JobRefused(2, "no such file"),
        {"event": "job.refused", "level": "error", "exit_code": 2, "why": "no such file"},
    ),
    "a job that cannot begin yet": (
        JobRefused(75, "no _SUCCESS yet"),
        {"event": "job.refused", "level": "warning", "exit_code": 75, "why": "no _SUCCESS yet"},
    ),
    "a listener that failed": (
        ReporterFailed("LivePanel", "ValueError('x')"),
        {
            "event": "reporter.failed",
            "level": "error",
            "reporter": "LivePanel",
            "error": "ValueError('x')",
        },
    ),
}
"""Events that are worth a line, and the line."""


@pytest.mark.parametrize(
    ("event", "line"), [pytest.param(*pair, id=name) for name, pair in LINES.items()]
)
def test_what_is_worth_a_line_is_one(written: Written, event: Event, line: dict[str, Any]) -> None:
    """
    With keys that are always the same.
    """
    assert [line] == written.report(event)


SILENT: list[Event] = [
    ReplyRead(0),
    AttemptFailed(CALL, "again in 1.0 s"),
    CommitStarted(1, 1),
    Committed((CALL,), (Ranked(0, (0.5,), ()),)),
    PartMoment(0, "synced"),
    ManifestWritten(1),
    SuccessWritten(),
    Tick(1, 1),
]


@pytest.mark.parametrize("event", [pytest.param(event, id=event.name) for event in SILENT])
def test_what_happens_all_the_time_is_no_line(written: Written, event: Event) -> None:
    """
    A million calls are not a million lines.
    """
    assert [] == written.report(event)


def test_every_event_is_either_a_line_or_silent() -> None:
    """
    A new event has to be put into one of the two tables.
    """
    known = [event for event, _ in LINES.values()] + SILENT

    # By name: a class with slots is made twice.
    assert {kind.name for kind in Event.__subclasses__()} == {event.name for event in known}


# --- progress -------------------------------------------------------------------------------------


def test_there_is_one_progress_line_a_minute_and_no_other(written: Written) -> None:
    """
    Ticks come every second; ten minutes are ten lines.
    """
    written.report(STARTED)
    for _ in range(600):
        written.now += 1.0
        written.report(Tick(3, 1))

    lines = written.report()
    assert ["job.started"] + ["job.progressed"] * 10 == [line["event"] for line in lines]


def test_a_progress_line_says_how_far_how_fast_and_at_which_price(written: Written) -> None:
    """
    For whoever watches the night by its logs.
    """
    outcomes = tuple(Ranked(n, (0.5,), ()) for n in range(60))
    written.report(replace(STARTED, lost_usd=0.1, cap_usd=1.61))
    written.now += 60
    written.report(Committed((CALL,) * 3, outcomes), GateShut("slow", FailureKind.THROTTLED, 9.0))

    line = written.report(Tick(3, 1, 12.345, "ramp", reserved_usd=0.25))[-1]

    assert {
        "event": "job.progressed",
        "level": "info",
        "done": 160,
        "target": 500,
        "groups_per_s": 1.0,
        "in_flight": 3,
        "waiting": 1,
        "pace_per_s": 12.35,
        "mode": "ramp",
        "calls": 3,
        "repeated": 3,
        "failures": {"unknown": 3},
        "cost_usd": 1.506,
        "cost_usd_at_end": 1.54,
        "calls_cost_unknown": 0,
        "reserved_usd": 0.25,
        "lost_usd": 0.1,
        "cap_usd": 1.61,
        "cap_covers": 40,
        "left_s": 340,
        "paused_because": "slow",
        "paused_s": 9.0,
    } == line


def test_a_progress_line_tells_several_ways_apart(written: Written) -> None:
    """
    How often each was asked, and why one is not taken.
    """
    written.report(STARTED)
    written.now += 60
    written.report(Committed((msgspec.structs.replace(CALL, route="first"),) * 3, ()))

    away, open_ = RouteNow("first", 1, 20.0, "no answer"), RouteNow("other", 6, None, "")
    line = written.report(Tick(7, 0, 20.0, "hold", (away, open_)))[-1]

    assert {"first": 3} == line["calls_by_route"]
    assert {"first": "no answer"} == line["routes_not_taken"]


def test_time_left_that_nobody_knows_is_null(written: Written) -> None:
    """
    Infinity is no JSON.
    """
    written.report(STARTED)
    written.now += 60

    assert written.report(Tick(0, 0))[-1]["left_s"] is None


def test_a_machine_that_slept_writes_one_line_when_it_wakes(written: Written) -> None:
    """
    An hour without ticks is not sixty lines at once.
    """
    written.report(STARTED)
    written.now += 3600

    for _ in range(30):
        written.now += 1
        written.report(Tick(0, 0))

    assert 1 == sum(line["event"] == "job.progressed" for line in written.report())


# --- whatever comes -------------------------------------------------------------------------------


@law(150)
@given(st.text(st.characters()))
def test_a_line_is_one_line_of_json_whatever_is_said(words: str) -> None:
    """
    Nothing in it steers a terminal or needs another encoding; all of it comes back.
    """
    written = Written()

    found = written.report(GroupRejected(Rejected(0, words, RejectKind.UNKNOWN, words)))

    assert [(words, words)] == [(line["query_id"], line["reason"]) for line in found]
    text = written.file.getvalue()
    assert 1 == len(text.splitlines())
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text.rstrip("\n"))
    text.encode()


def test_readable_characters_stay_readable(written: Written) -> None:
    """
    Logs are for people, too.
    """
    written.report(Noticed("Straße 日本 🙂"))

    assert "Straße 日本 🙂" in written.file.getvalue()


@pytest.fixture
def loud_neighbour() -> Iterator[None]:
    """
    A program around us that has configured structlog for itself.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
        processors=[structlog.dev.ConsoleRenderer()],
    )
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("loud_neighbour")
def test_nobody_elses_configuration_changes_a_line(written: Written) -> None:
    """
    Neither what is written nor how.
    """
    event, line = LINES["its end"]

    assert [line] == written.report(event)


def test_nobody_elses_logs_are_touched(written: Written) -> None:
    """
    We configure nothing for others.
    """
    before = structlog.get_config()

    written.report(STARTED)

    assert before == structlog.get_config()
    assert not structlog.is_configured()
