"""
A bill that a person has to agree to: on a terminal, without one, for one date and for many.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.small_jobs import SmallJob, groups
from tests.e2e.test_terminal import terminal
from tests.rehearsing import Server

PERSON = 3


@pytest.fixture
def job(tmp_path: Path, server: Server) -> SmallJob:
    """
    Twenty calls for two cents, where one cent is allowed unasked.
    """
    return SmallJob(tmp_path, server.port, budget={"confirm_usd": 0.01}).source(groups(20))


def test_without_a_terminal_nobody_is_called_unless_somebody_said_yes(
    job: SmallJob, server: Server
) -> None:
    """
    Exit 3, with the sum and what to do; nothing was paid.
    """
    refused = job.cli("run")

    assert PERSON == refused.code
    assert "what is left may cost $0.02 to $0.02 (20 of 20 groups looked at)" in refused.err
    assert "nobody was called" in refused.err
    assert "--yes" in refused.err
    assert 0 == server.admin()["calls"]
    assert 0 == job.cli("run", "--yes").code


def test_whoever_finds_it_too_dear_may_change_the_job(job: SmallJob, server: Server) -> None:
    """
    Nobody was called, so nothing holds the job to its settings; after a run that began, it does.
    """
    refused = job.cli("run")
    changed = job.change(source={"max_chars": 100}).cli("run", "--yes")
    held = job.change(source={"max_chars": 200}).cli("run", "--yes")

    assert PERSON == refused.code
    assert (0, 20) == (changed.code, server.admin()["calls"])
    assert 2 == held.code
    assert "max_chars" in held.err


def test_a_sample_is_asked_about_as_a_run_is(job: SmallJob, server: Server) -> None:
    """
    By what it may cost itself, not by what all of it may.
    """
    refused = job.cli("plan", "--sample", 11)
    few = job.cli("plan", "--sample", 10)
    more = job.cli("plan", "--sample", 20)
    agreed = job.change(budget={"confirm_usd": 0.005}).cli("plan", "--sample", 20, "--yes")

    assert (PERSON, 0) == (refused.code, few.code)
    assert "(11 of 11 groups looked at)" in refused.err
    assert (0, 0) == (more.code, agreed.code)
    assert 20 == server.admin()["calls"]


def test_whoever_starts_without_standard_input_is_nobody_to_ask(
    job: SmallJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As a service may, or a shell by `<&-`.
    """
    monkeypatch.setattr("sys.stdin", None)

    assert PERSON == job.cli("run").code


def test_what_is_done_is_not_asked_about_again(job: SmallJob, server: Server) -> None:
    """
    Only what is left counts; a finished job asks nobody.
    """
    assert 0 == job.cli("run", "--limit", 10).code
    assert PERSON == job.change(budget={"confirm_usd": 0.009}).cli("run").code
    assert 0 == job.change(budget={"confirm_usd": 0.01}).cli("run").code
    assert 0 == job.change(budget={"confirm_usd": 0}).cli("run").code
    assert 20 == server.admin()["calls"]


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param({"budget": {"cost_usd_max": 0.01}}, id="a cap that is nearer"),
        pytest.param(
            {"provider": {"price": {"as_of": "2026-11-01", "usd_per_search_unit": 0.0}}}, id="free"
        ),
        pytest.param({"provider": {"model": "own/model"}}, id="no price is known"),
    ],
)
def test_where_nothing_can_be_lost_nobody_is_asked(
    job: SmallJob, tables: dict[str, dict[str, object]]
) -> None:
    """
    The job begins; a cap ends it where it says.
    """
    price = tables.get("provider", {}).get("price")
    job.change(**{name: {k: v for k, v in t.items() if k != "price"} for name, t in tables.items()})
    if price:
        table = "[provider.price]\nas_of = 2026-11-01\nusd_per_search_unit = 0.0\n"
        job.file.write_text(job.file.read_text() + table)

    ran = job.cli("run", "--json")

    assert 0 < ran.json["calls_now"]


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", PERSON), (b"\x04", PERSON)])
def test_on_a_terminal_a_person_is_asked(
    job: SmallJob, server: Server, answer: bytes, code: int
) -> None:
    """
    No is the default, and the end of what is typed is no yes.
    """
    with terminal("run", job.file) as shown:
        shown.shows(r"more than budget\.confirm_usd \(\$0\.01\)\. Run it\? \[y/N\]")
        shown.press(answer)
        ended = shown.exit_code()

    assert code == ended, shown.text
    assert "Traceback" not in shown.text
    assert (0 if code else 20) == server.admin()["calls"]


def test_a_backfill_asks_once_for_the_sum(tmp_path: Path, server: Server) -> None:
    """
    Each date is below what is allowed unasked, and all together are not.
    """
    job = SmallJob(
        tmp_path,
        server.port,
        source={"path": "in/dt={date}"},
        output={"path": "out/dt={date}"},
        budget={"confirm_usd": 0.03},
    )
    for day in (1, 2, 3, 4):
        job.source(groups(10), f"in/dt=2026-11-0{day}/groups.parquet")
    days = ("--from", "2026-11-01", "--to", "2026-11-05")

    refused = job.cli("backfill", *days)
    some = job.cli("backfill", "--from", "2026-11-01", "--to", "2026-11-03")
    rest = job.cli("backfill", *days, "--yes")

    assert PERSON == refused.code
    assert "all dates together may cost $0.05 (3 dates of 5 looked at)" in refused.err
    assert 0 == some.code
    assert 40 == server.admin()["calls"]
    assert "nobody was called" not in rest.err


def test_an_old_price_is_told_by_run_and_plan(job: SmallJob) -> None:
    """
    In the same words, before anything is paid.
    """
    job.change(budget={"confirm_usd": 50})
    table = "[provider.price]\nas_of = 2020-01-01\nusd_per_search_unit = 0.001\n"
    job.file.write_text(job.file.read_text() + table)

    ran, planned = job.cli("run"), job.cli("plan")

    words = "check it, and state it in [provider.price]"
    assert 0 == ran.code
    assert words in ran.out
    assert words in ran.err
    assert words in planned.out


def test_a_rehearsal_counts_in_no_shared_budget(tmp_path: Path) -> None:
    """
    It costs nothing, and nobody else is kept from anything.
    """
    budget = {"shared": "team.budget", "day_usd_max": 0.001, "confirm_usd": 0}
    job = SmallJob(tmp_path, port=9, budget=budget).source(groups(4))

    ran = job.cli("rehearse")

    assert 0 == ran.code
    assert not (tmp_path / "team.budget").exists()
