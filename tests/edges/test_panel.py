"""
The live panel, drawn by rich on a console that remembers: numbers, moods, and nobody else's paint.
"""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from msgspec import structs
from rich.console import Console
from rich.panel import Panel

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
    Committed,
    CostStrayed,
    DayRefused,
    DayStarted,
    Event,
    GateOpened,
    GateShut,
    GroupRejected,
    JobStarted,
    Noticed,
    ReporterFailed,
    RouteNow,
    Stopping,
    Tick,
)
from batchrank.observe.panel import REJECTS_SHOWN, LivePanel, duration

NOW = datetime(2026, 11, 20, 23, 30, 0, tzinfo=UTC)


class Screen:
    """
    A terminal of 100 columns, and a panel on it.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.file = io.StringIO()
        self.console = Console(
            file=self.file, width=100, height=30, force_terminal=True, color_system="standard"
        )
        self.panel = LivePanel(self.console, lambda: self.now, lambda: NOW)

    def report(self, *events: Event) -> None:
        """
        Tell events.
        """
        for event in events:
            self.panel.report(event)

    def drawn(self) -> dict[str, str]:
        """
        The panel's lines, by name.
        """
        copy = Console(file=io.StringIO(), width=100, record=True)
        copy.print(self.panel._picture())
        rows = [line.strip("│ ").split(None, 1) for line in copy.export_text().splitlines()[2:-1]]
        return {row[0]: row[1] for row in rows}

    def mood(self) -> object:
        """
        The colour of the border.
        """
        picture = self.panel._picture()
        return picture.border_style if isinstance(picture, Panel) else None


def started(job: str = "nightly", total: int = 1000, rate: float | None = None) -> JobStarted:
    """
    A job's beginning.
    """
    return JobStarted(job, "v/m", total, total, 100, 0, 64, rate, 1.0)


def committed(count: int, *failed: FailureKind) -> Committed:
    """
    So many groups, each by a call of a tenth of a cent, and some calls that failed.
    """
    kinds = [*[None] * count, *failed]
    calls = [
        Call(
            Slice(0, 0, 1), 1, 0.0, 0.1, Failure(kind, "x") if kind else None, None, Usage(), None,
            0 if kind else 1_000_000, CostSource.REPORTED,
        )
        for kind in kinds
    ]  # fmt: skip
    return Committed(tuple(calls), tuple(Ranked(n, (0.5,), ()) for n in range(count)))


def rejected(query_id: str | int, message: str) -> GroupRejected:
    """
    A rejected group.
    """
    return GroupRejected(Rejected(0, query_id, RejectKind.BAD_GROUP, message))


@pytest.fixture
def screen() -> Screen:
    """
    A fresh terminal.
    """
    return Screen()


# --- numbers --------------------------------------------------------------------------------------


def test_before_the_beginning_it_says_what_it_does(screen: Screen) -> None:
    """
    Reading the source may take a while.
    """
    assert "reading the source …" == str(screen.panel._picture())


def test_how_far_how_fast_at_which_price(screen: Screen) -> None:
    """
    One line a thing.
    """
    failed = (FailureKind.THROTTLED, FailureKind.THROTTLED, FailureKind.UNKNOWN)
    screen.report(started(rate=1000 / 60))
    screen.now += 20
    screen.report(committed(200, *failed), Tick(7, 0))

    assert {
        "groups": "300 of 1,000",
        "speed": "10.0 groups/s of 16.7 allowed, 7 in flight",
        "calls": "203, repeated 0; failed: 2 told to slow down, 1 perhaps billed (no clear answer)",
        "cost": "$1.2000 so far, $1.90 at the end",
        "left": "1 m 10 s (until 23:31:10)",
    } == screen.drawn()
    assert "green" == screen.mood()


def test_a_budget_is_shown_with_where_it_ends(screen: Screen) -> None:
    """
    Spent, what killed runs may have spent, reserved, the cap, and how far it goes.
    """
    screen.report(replace(started(), cap_usd=1.5005, lost_usd=0.1))
    screen.now += 20
    screen.report(committed(200), Tick(7, 0, reserved_usd=0.007))

    spent = "$1.3000 spent ($0.1000 perhaps lost) and $0.0070 reserved of $1.5005"
    assert spent == screen.drawn()["budget"]
    assert "about 200 more groups, then the budget ends the run" == screen.drawn()["covers"]

    screen.report(replace(started(), cap_usd=3.0))
    assert "$1.2000 spent and $0.0070 reserved of $3.0000" == screen.drawn()["budget"]
    assert "covers" not in screen.drawn()


def test_what_nobody_knows_the_cost_of_is_not_shown_as_nothing(screen: Screen) -> None:
    """
    Calls without a price, of this run and those before it; what is known of others stands beside.
    """
    unpriced = committed(2)
    unknown = {"cost_nano_usd": 0, "cost_source": CostSource.UNKNOWN}
    calls = tuple(structs.replace(call, **unknown) for call in unpriced.calls)
    screen.report(replace(started(), cost_usd=0.0))
    assert "$0.0000 so far, $0.00 at the end" == screen.drawn()["cost"]

    screen.report(replace(unpriced, calls=calls))
    assert "unknown for 2 calls: no price is known" == screen.drawn()["cost"]

    screen.report(replace(started(total=102), calls_cost_unknown=3))
    words = "$1.0000 so far, $1.00 at the end; unknown for 5 calls: no price is known"
    assert words == screen.drawn()["cost"]


def test_an_estimate_that_does_not_hold_is_told(screen: Screen) -> None:
    """
    As a line that stays.
    """
    screen.report(CostStrayed(200, 0.0025, 0.0009, 0.0011))

    told = "a group costs $0.002500 on the average of the first 200, and was estimated at $0.000900"
    assert told in " ".join(screen.file.getvalue().split())


def test_nothing_is_known_before_the_first_group(screen: Screen) -> None:
    """
    No division by nothing, no infinity.
    """
    screen.report(started())

    assert "not known yet" == screen.drawn()["left"]
    assert "0, repeated 0; failed: none" == screen.drawn()["calls"]


def test_a_pause_is_told_with_its_end(screen: Screen) -> None:
    """
    Until when, and why; it is gone when the gate opens.
    """
    screen.report(started(), GateShut("asked to wait 30 s", FailureKind.THROTTLED, 30.0))
    screen.now += 10

    assert "until 23:30:20, because: asked to wait 30 s" == screen.drawn()["paused"]
    assert "yellow" == screen.mood()

    screen.report(GateOpened())
    assert "paused" not in screen.drawn()


def test_several_ways_have_a_line_each(screen: Screen) -> None:
    """
    What each has been asked and what is in its way; nothing is paused while one is taken.
    """
    away, open_ = RouteNow("first", 1, 20.0, "no answer"), RouteNow("other", 6, None, "")
    shut = GateShut("no answer", FailureKind.UNKNOWN, 5.0, "first")
    screen.report(started(), committed(3), shut, Tick(7, 0, 20.0, "hold", (away, open_)))

    drawn = screen.drawn()
    assert "0 calls, 1 in flight, not taken: no answer" == drawn["first"]
    assert "0 calls, 6 in flight, open" == drawn["other"]
    assert "paused" not in drawn

    screen.report(Tick(1, 0, 20.0, "hold", (away, RouteNow("other", 0, None, "spent"))))
    assert screen.drawn()["paused"].endswith("because: no answer")


def test_a_stop_is_told_with_what_still_comes_home(screen: Screen) -> None:
    """
    The last thing a person wants is to wonder whether Ctrl-C was heard.
    """
    screen.report(started(), Tick(5, 0), Stopping("stopped by SIGINT", 5))

    assert "stopped by SIGINT; 5 calls come home" == screen.drawn()["stopping"]
    assert "red" == screen.mood()


@pytest.mark.parametrize(
    ("groups", "after_s", "left"),
    [
        (900, 0.5, "0 s (until 23:30:00)"),
        (450, 30.0, "30 s (until 23:30:30)"),
        (1, 60.0, "14 h 59 m (until Sat 14:29)"),
        (1, 6_000.0, "1498 h 20 m (until some week to come)"),
        (1, 1e12, "249722222222 h 13 m (until some week to come)"),
    ],
)
def test_the_end_is_told_however_far_it_is(
    screen: Screen, groups: int, after_s: float, left: str
) -> None:
    """
    A clock for today, a weekday for tomorrow, and no year ten thousand.
    """
    screen.report(started())
    screen.now += after_s
    screen.report(committed(groups))

    assert left == screen.drawn()["left"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 m 00 s"),
        (200.0, "3 m 20 s"),
        (3599.9, "1 h 00 m"),
        (18_120.0, "5 h 02 m"),
        (360_000.0, "100 h 00 m"),
    ],
)
def test_durations_as_people_say_them(seconds: float, words: str) -> None:
    """
    Seconds, minutes and seconds, hours and minutes.
    """
    assert words == duration(seconds)


# --- the terminal ---------------------------------------------------------------------------------

PAINT = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold red]x[/bold red]\r\u202e"


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(started(job=PAINT), id="a job's name"),
        pytest.param(Noticed(PAINT), id="a notice"),
        pytest.param(DayStarted(PAINT, 1, 14), id="a day"),
        pytest.param(DayRefused("2026-11-01", PAINT), id="why a day cannot begin"),
        pytest.param(rejected(PAINT, "no"), id="a query's id"),
        pytest.param(rejected("q", PAINT), id="a provider's message"),
        pytest.param(ReporterFailed(PAINT, PAINT), id="a listener's error"),
        pytest.param(GateShut(PAINT, FailureKind.UNKNOWN, 5.0), id="a reason to pause"),
        pytest.param(Stopping(PAINT, 1), id="a reason to stop"),
    ],
)
def test_nobody_else_paints_on_the_terminal(screen: Screen, event: Event) -> None:
    """
    Escape sequences and markup from outside are shown as what they are: text.
    """
    with screen.panel:
        screen.report(started(), event)
        screen.console.print(screen.panel._picture())

    shown = screen.file.getvalue()
    assert "owned" in shown
    assert "[bold red]x[/bold red]" in shown
    assert not any(part in shown for part in ("\x1b]0", "\x07", "\x9b", "\u202e", "\x1b[2J"))


def test_rejects_scroll_by_above_the_panel_and_are_counted_after_twenty(screen: Screen) -> None:
    """
    Each in one line, cut at the terminal's edge; the others are only counted.
    """
    with screen.panel:
        screen.report(started())
        for n in range(REJECTS_SHOWN + 30):
            screen.report(rejected(n, "a very long reason " * 20))

    shown = screen.file.getvalue()
    assert REJECTS_SHOWN == shown.count("rejected: query")
    assert 1 == shown.count("more rejects are counted, not shown")
    assert "rejected: query 19 (bad_group) a very long reason" in shown


def test_rejected_and_empty_groups_are_counted_in_the_panel(screen: Screen) -> None:
    """
    By their outcomes, not by the lines that scrolled by.
    """
    screen.report(started())
    screen.report(Committed((), (Rejected(0, "q", RejectKind.FLAWED, ""),)))

    assert "101 of 1,000 (1 rejected)" == screen.drawn()["groups"]


def test_nothing_of_the_panel_is_left_behind(screen: Screen) -> None:
    """
    It is taken away at the end, and the cursor is there again.
    """
    with screen.panel:
        screen.report(started(), committed(5))
        screen.panel._live.refresh()

    assert screen.file.getvalue().rstrip("\n").endswith("\x1b[2K")
    assert "\x1b[?25h" in screen.file.getvalue()


def test_threads_report_while_it_draws(screen: Screen) -> None:
    """
    The event loop and the publishing thread tell their news, and nobody waits for ever.
    """

    def tell() -> None:
        for n in range(100):
            screen.report(Tick(n, 0), Noticed(f"note {n}"), committed(1))

    with screen.panel:
        screen.report(started(total=10_000))
        threads = [threading.Thread(target=tell, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            screen.panel._live.refresh()
        for thread in threads:
            thread.join(20)

    assert not any(thread.is_alive() for thread in threads)
    assert "400 of 10,000" == screen.drawn()["groups"]
