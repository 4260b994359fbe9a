"""
What a run came to: for people, for programs, and for nobody's terminal to obey.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import FailureKind, RejectKind
from batchrank.observe.report import (
    FAILURE_WORDS,
    REJECT_WORDS,
    RouteShare,
    Summary,
    as_shown,
    size,
)
from tests.laws import law

BARE = Summary(
    job="nightly", exit_code=0, ended="done", reason="", output="out", state=".batchrank/out"
)

FULL = Summary(
    job="nightly",
    exit_code=75,
    ended="stopped early, run it again",
    reason="stopped by SIGTERM",
    output="/data/out",
    state="/data/.batchrank/out-1234",
    labels={"team": "search"},
    groups=12_000,
    done=10_000,
    ranked=9_990,
    rejected=7,
    empty=3,
    candidates=199_800,
    documents_cut=1_200,
    rejects_by_kind={"bad_group": 5, "flawed": 2},
    models=("v/m",),
    providers=("Acme", "Other"),
    calls=10_100,
    calls_now=5_000,
    calls_repeated=103,
    calls_failed={"throttled": 90, "unknown": 13},
    search_units=10_000.0,
    total_tokens=123,
    cost_usd=10.0123456,
    cost_usd_now=5.0,
    cost_usd_by_source={"reported": 10.0, "estimated": 0.0123456, "priced": 0.0},
    cost_usd_lost=0.016,
    routes={"one": RouteShare(10_000, 9_900, 10.0), "two": RouteShare(100, 90, 0.0123456)},
    parts=1,
    rows=199_800,
    done_now=5_000,
    elapsed_s=100.0,
    groups_per_s=50.0,
    in_flight_max=64,
    accepted=("a.parquet",),
    notes=("one thing", "another thing"),
)


def test_the_summary_for_people() -> None:
    """
    One line a thing, aligned, with what there is to say.
    """
    assert """\
job      nightly: stopped early, run it again (stopped by SIGTERM)
groups   10,000 of 12,000 done: 9,990 ranked (199,800 candidates), 7 rejected, 3 empty
rejects  5 refused by the provider for the content, 2 flawed in the source
texts    1,200 documents cut, as source.max_chars says
calls    5,000 now, 10,100 in all, 103 repeated; failed: 90 told to slow down, \
13 perhaps billed (no clear answer)
cost     $5.0000 now, $10.0123 in all ($10.0000 reported, $0.0123 estimated)
route    one: 10,000 calls, 9,900 groups, $10.0000
route    two: 100 calls, 90 groups, $0.0123
lost     $0.0160 may have been spent by runs that were killed
served   v/m, by Acme, by Other
time     100.0 s, 50.0 groups/s, 64 in flight at most
output   /data/out: 1 part, 199,800 rows, no _SUCCESS
state    /data/.batchrank/out-1234
accepted a.parquet
note     one thing
note     another thing""" == FULL.as_text()


def test_too_many_rejects_are_told_with_what_to_do() -> None:
    """
    So is a second run over them, that called nobody: it says no more than that.
    """
    ended = replace(BARE, exit_code=1, rejected=3, rejected_max=2, calls_now=5)
    again = replace(
        ended, rejected=1, rejected_max=0, calls_now=0, reason="it was finished before; nothing"
    )

    first, then = ended.as_text().splitlines(), again.as_text().splitlines()
    assert "job      nightly: finished, but 3 groups are rejected where 2 are allowed" == first[0]
    assert first[1].startswith("next     `batchrank run --retry-rejects` asks about them again")
    assert (
        "job      nightly: finished, but 1 group is rejected where 0 are allowed;"
        " nobody was called now"
    ) == then[0]


def test_every_kind_has_its_words() -> None:
    """
    People read no identifiers; programs do.
    """
    assert set(FailureKind) == FAILURE_WORDS.keys()
    assert set(RejectKind) == REJECT_WORDS.keys()
    assert not any("_" in words for words in (*FAILURE_WORDS.values(), *REJECT_WORDS.values()))


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (57_344, "57.3 kB"),
        (1.3e6, "1.3 MB"),
        (5e15, "5,000.0 TB"),
    ],
)
def test_a_size_has_the_unit_that_fits(size_bytes: float, shown: str) -> None:
    """
    Never "0.1 MB" of something small.
    """
    assert shown == size(size_bytes)


def test_what_there_is_nothing_to_say_of_is_left_out() -> None:
    """
    No reason, no rejects, nothing lost, nobody served: no line.
    """
    lines = BARE.as_text().splitlines()

    assert ["job", "groups", "calls", "cost", "time", "output", "state"] == [
        line.split()[0] for line in lines
    ]
    assert "job      nightly: done" == lines[0]


def test_the_summary_for_programs_is_one_line() -> None:
    """
    Every key, always, in one line of JSON that reads back as the same data.
    """
    line = FULL.as_json()

    assert "\n" not in line
    assert json.loads(json.dumps(FULL.as_data())) == json.loads(line)
    assert set(BARE.as_data()) == set(FULL.as_data())


STABLE = [
    "accepted",
    "calls",
    "calls_cost_unknown",
    "calls_failed",
    "calls_now",
    "calls_repeated",
    "candidates",
    "cost_usd",
    "cost_usd_by_source",
    "cost_usd_lost",
    "cost_usd_now",
    "cost_usd_rejected",
    "documents_cut",
    "documents_reused",
    "done",
    "done_now",
    "elapsed_s",
    "empty",
    "ended",
    "equal",
    "exit_code",
    "groups",
    "groups_per_s",
    "in_flight_max",
    "job",
    "labels",
    "models",
    "notes",
    "output",
    "parts",
    "providers",
    "ranked",
    "reason",
    "rejected",
    "rejected_max",
    "rejects_by_kind",
    "reused",
    "routes",
    "rows",
    "search_units",
    "state",
    "success",
    "total_tokens",
]


def test_the_keys_are_stable() -> None:
    """
    Somebody's schedule reads them: none goes away, and a new one is added here.
    """
    assert STABLE == sorted(BARE.as_data())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("Straße 日本 🙂", "Straße 日本 🙂", id="any script"),
        pytest.param("[red]x[/red]", "[red]x[/red]", id="markup is text"),
        pytest.param("\x1b[31mred", "�[31mred", id="an escape sequence"),
        pytest.param("\x9b31mred", "�31mred", id="an escape sequence of eight bits"),
        pytest.param("a\rb", "a b", id="back to the beginning of the line"),
        pytest.param("a\nb\tc", "a b c", id="lines and tabs"),
        pytest.param("a\x08\x07\x00b", "a���b", id="backspace, bell, nothing"),
        pytest.param("a\u202eb", "a�b", id="from right to left"),
        pytest.param("a\u2028b", "a b", id="a line separator"),
        pytest.param("\ud800", "�", id="half a surrogate pair"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_what_comes_from_outside_is_shown_as_text(text: str, shown: str) -> None:
    """
    Nothing in a message, an id or a label steers a terminal.
    """
    assert shown == as_shown(text)
    assert shown == as_shown(shown)


@law(100)
@given(st.text(st.characters(), max_size=30))
def test_whatever_is_shown_is_one_line_that_any_terminal_takes(text: str) -> None:
    """
    No control character is left, and what is left can be written.
    """
    shown = as_shown(text)

    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert len(shown.splitlines()) <= 1
    shown.encode()


def test_a_reason_from_outside_cannot_paint_the_summary() -> None:
    """
    A provider's words stand in the reason.
    """
    summary = Summary(
        "j", 3, "stopped", "\x1b]0;owned\x07 gone\ncost     $0", "o", "s", notes=("\x1b[2J",)
    )

    assert "\x1b" not in summary.as_text()
    assert 1 == sum(line.startswith("cost") for line in summary.as_text().splitlines())
