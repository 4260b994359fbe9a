"""
A run as a live panel on a terminal.

Owns the picture. Whatever comes from outside is shown as text, never as markup, so that no
candidate or provider can paint on the terminal. Below the panel stand rejects and notices as lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Lock
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batchrank.events import (
    CostStrayed,
    DayRefused,
    DayStarted,
    Event,
    GroupRejected,
    Noticed,
    ReporterFailed,
    RouteNow,
)
from batchrank.observe.pulse import Pulse
from batchrank.observe.report import FAILURE_WORDS, as_shown, in_words, with_unknown

REFRESHES_PER_S = 4
REJECTS_SHOWN = 20


class LivePanel:
    """
    Draws while it is entered. *now* is the wall clock, for "paused until".
    """

    def __init__(
        self,
        console: Console,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._pulse = Pulse(clock)
        self._lock = Lock()  # the picture is drawn by a thread of the library's
        self._console = console
        self._now = now
        self._rejects = 0
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """
        Leave the terminal to somebody else meanwhile, who asks a question.
        """
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def report(self, event: Event, /) -> None:
        """
        Take in *event*; what scrolls away is printed above the panel.
        """
        with self._lock:
            self._pulse.report(event)
        # Printing takes the library's lock, which the drawing thread holds while it waits for ours.
        match event:
            case DayStarted(day=day, number=number, total=total):
                self._console.print(Text(as_shown(f"{day}: {number:,} of {total:,}"), "bold"))
            case DayRefused(day=day, why=why):
                self._console.print(Text(as_shown(f"{day}: {why}"), "red"))
            case CostStrayed():
                self._console.print(Text(as_shown(f"note: {strayed(event)}"), "yellow"))
            case Noticed(message=message):
                self._console.print(Text(as_shown(f"note: {message}"), "yellow"))
            case ReporterFailed(reporter=reporter, error=error):
                words = f"{reporter} failed and is left out: {error}"
                self._console.print(Text(as_shown(words), "red"))
            case GroupRejected():
                self._rejected(event)

    def _rejected(self, event: GroupRejected) -> None:
        self._rejects += 1
        it = event.rejected
        if self._rejects <= REJECTS_SHOWN:
            line = f"rejected: query {it.query_id} ({it.kind.value}) {it.message}"
            self._console.print(Text(as_shown(line), "red", no_wrap=True, overflow="ellipsis"))
        if self._rejects == REJECTS_SHOWN:
            self._console.print(Text("more rejects are counted, not shown", "red"))

    # --- the picture ------------------------------------------------------------------------------

    def _picture(self) -> Panel | Text:
        with self._lock:
            return self._drawn(self._pulse)

    def _drawn(self, pulse: Pulse) -> Panel | Text:
        if pulse.started is None:
            staged = f"staging the source: {pulse.staged_rows:,} rows …"
            return Text(staged if pulse.staged_rows else "reading the source …")
        rows = Table.grid(padding=(0, 2))
        for name, value in lines(pulse, self._now()):
            rows.add_row(Text(name, "dim"), Text(as_shown(value)))
        # Padded by nothing, for the end of its line: bars have none of their own.
        bar = Padding(ProgressBar(total=max(1, pulse.target), completed=pulse.done), 0)
        title = Text(as_shown(f" {pulse.started.job} · {pulse.started.model} "), "bold")
        return Panel(Group(bar, rows), title=title, title_align="left", border_style=_mood(pulse))


def _mood(pulse: Pulse) -> str:
    if pulse.stopping:
        return "red"
    return "yellow" if pulse.paused else "green"


def lines(pulse: Pulse, now: datetime) -> list[tuple[str, str]]:
    """
    The panel's lines: name and value.
    """
    failures = in_words(dict(pulse.failures.most_common()), FAILURE_WORDS) or "none"
    shown = [
        ("groups", f"{pulse.done:,} of {pulse.target:,}{_rejects(pulse)}"),
        (
            "speed",
            f"{pulse.groups_per_s:,.1f} groups/s{_allowed(pulse)}, {pulse.in_flight} in flight",
        ),
        ("calls", f"{pulse.calls:,}, repeated {pulse.repeated:,}; failed: {failures}"),
        ("cost", _cost(pulse)),
        *_budget(pulse),
        ("left", _left(pulse, now)),
        *((route.route, _route(pulse, route)) for route in pulse.routes),
    ]
    if pulse.paused:
        reason, until_s = pulse.paused
        shown.append(("paused", f"until {_time(now, until_s)}, because: {reason}"))
    if pulse.stopping:
        shown.append(("stopping", f"{pulse.stopping}; {pulse.in_flight} calls come home"))
    return shown


def strayed(event: CostStrayed) -> str:
    """
    The warning that the estimate does not hold.
    """
    estimate = f"${event.low_usd:,.6f} to ${event.high_usd:,.6f}"
    return (
        f"a group costs ${event.usd:,.6f} on the average of the first {event.groups:,}, and was"
        f" estimated at {estimate}"
    )


def _allowed(pulse: Pulse) -> str:
    rate = pulse.started.rate_per_s if pulse.started else None
    if rate:
        return f" of {rate:,.1f} allowed"
    if pulse.pace_per_s is None:
        return ""
    return f", paced at {pulse.pace_per_s:,.1f} requests/s ({MODE_WORDS[pulse.mode]})"


def _route(pulse: Pulse, route: RouteNow) -> str:
    """
    One of several ways: what it has been asked, and what is in its way.
    """
    per_s = route.pace_per_s
    pace = "" if per_s is None else f", paced at {per_s:,.1f} requests/s"
    how = f"not taken: {route.why}" if route.why else f"open{pace}"
    return f"{pulse.calls_by_route[route.route]:,} calls, {route.in_flight} in flight, {how}"


def _cost(pulse: Pulse) -> str:
    """
    What is known of it; without a price that is nothing, which is not $0.
    """
    spent = f"${pulse.cost_usd_now:,.4f} so far, ${pulse.cost_usd_at_end:,.2f} at the end"
    known = pulse.cost_usd_now or pulse.lost_usd
    return with_unknown(spent if known else "", pulse.calls_cost_unknown) or spent


def _budget(pulse: Pulse) -> Iterator[tuple[str, str]]:
    """
    How far the output's cap is used up, and where it will end the run, if it will.
    """
    if pulse.cap_usd is None:
        return
    spent, covers = pulse.cost_usd_now + pulse.lost_usd, pulse.cap_covers
    lost = f" (${pulse.lost_usd:,.4f} perhaps lost)" if pulse.lost_usd else ""
    words = f"${spent:,.4f} spent{lost} and ${pulse.reserved_usd:,.4f} reserved"
    yield "budget", f"{words} of ${pulse.cap_usd:,.4f}"
    if covers is not None:
        yield "covers", f"about {covers:,} more groups, then the budget ends the run"


MODE_WORDS = {"ramp": "looking for the limit", "hold": "the limit found", "blocked": "paused"}


def _rejects(pulse: Pulse) -> str:
    parts = [f"{n:,} {name}" for name in ("rejected", "empty") if (n := pulse.outcomes[name])]
    return f" ({', '.join(parts)})" if parts else ""


def _left(pulse: Pulse, now: datetime) -> str:
    left_s = pulse.left_s
    if math.isinf(left_s):
        return "not known yet"
    return f"{duration(left_s)} (until {_time(now, left_s)})"


WEEK_S = 7 * 86_400.0


def _time(now: datetime, in_s: float) -> str:
    """
    What the clock shows then, with the weekday where that helps.
    """
    if in_s > WEEK_S:
        return "some week to come"
    return (now + timedelta(seconds=in_s)).strftime("%a %H:%M" if in_s > 3600 else "%H:%M:%S")


def duration(seconds: float) -> str:
    """
    A length of time as people say it: `42 s`, `3 m 20 s`, `5 h 02 m`.
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} m"
