"""
What a kill leaves behind in ledger and shared file, and how the next run makes it up: with real
files, and the functions that a run begins and ends with.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from batchrank.domain import UNSCORED, Call, CostSource, Positions, Slice, Usage
from batchrank.errors import JobError, OutputError
from batchrank.job import load
from batchrank.job.consent import left
from batchrank.job.loading import Job
from batchrank.job.money import money_of, shared_file
from batchrank.policy.amounts import Amount
from batchrank.policy.budget import Borrow
from batchrank.store.ledger import Ledger, Records
from tests.e2e.small_jobs import SmallJob, groups
from tests.edges.ledgers import ranked

DAY = "2026-11-21"

JOB = """
[source]
path = "groups.parquet"
[provider]
name = "openrouter"
model = "cohere/rerank-v3.5"
[output]
path = "{output}"
[limits]
concurrency_max = 16
[budget]
cost_usd_max = 10
shared = "team.budget"
day_usd_max = {day_usd_max}
"""


def job(folder: Path, output: str = "one", day_usd_max: float = 1.0) -> Job:
    """
    A job, loaded.
    """
    path = folder / f"{output}.toml"
    path.write_text(JOB.format(output=output, day_usd_max=day_usd_max))
    return load(path, with_key=False)


def made(*costs: int, day: str = DAY) -> Records:
    """
    Calls that ended on a day, one a group.
    """
    calls = [
        Call(
            Slice(0, 0, 1), 1, 0.0, 0.1, None, None, Usage(1.0), None, cost, CostSource.REPORTED,
            search_units=1, day=day,
        )
        for cost in costs
    ]  # fmt: skip
    return Records(calls=calls)


def borrow(least: int, wish: int) -> Borrow:
    """
    Money, and as many requests and units as anybody could want.
    """
    return Borrow(DAY, Amount(least, 1, 1), Amount(wish, 100, 100), {})


def killed(folder: Path, authorised: int, held: int, *costs: int) -> Job:
    """
    A run that was authorised and held so much, accounted for some calls, and is gone.
    """
    found = job(folder)
    with_ledger(folder).close()
    ledger = with_ledger(folder)
    with money_of(found, ledger) as money:
        ledger.commit(Records(authorised=Amount(authorised, 10, 10)))
        assert money.till is not None
        assert Amount(held, 100, 100) == money.till.borrow(borrow(1, held))
        ledger.commit(made(*costs))
    ledger.close()
    return found


def spend_in_order(found: Job, folder: Path, cost: int) -> None:
    """
    A run that makes one call, and ends.
    """
    ledger = with_ledger(folder)
    with money_of(found, ledger) as money:
        ledger.start_run(0.0, 42, "host", done_before=0, target=1)
        assert money.till is not None
        asked = borrow(1, 900)
        money.budget.reserve(Amount(0), DAY)
        money.budget.lent(asked, money.till.borrow(asked))
        ledger.commit(made(cost))
        money.close_account()
        ledger.end_run(1.0, 0, "")
    ledger.close()


def with_ledger(folder: Path) -> Ledger:
    """
    The ledger, as it is.
    """
    return Ledger.create_or_open(folder / "ledger.sqlite")


def begun(found: Job, folder: Path) -> tuple[dict[str, Amount], Amount, Amount]:
    """
    What is held, spent, and spent today, when the next run has begun and was killed at once.
    """
    ledger = with_ledger(folder)
    with money_of(found, ledger) as money:
        assert money.till is not None
        assert money.budget.days is not None
        result = money.till.held(), money.budget.spent, money.budget.days[DAY].spent
    ledger.close()
    return result


def test_what_a_kill_left_held_becomes_what_may_have_been_spent(tmp_path: Path) -> None:
    """
    Held were 900, authorised 400, accounted for are 100: 300 may be lost, and 500 surely are not.
    Whoever begins once more comes to the same.
    """
    found = killed(tmp_path, 400, 900, 60, 40)

    for _ in range(2):
        held, spent, today = begun(found, tmp_path)
        assert {DAY: Amount(400, 10, 10)} == held
        assert Amount(400, 10, 10) == spent == today


def test_no_more_is_lost_on_a_day_than_was_held_for_it(tmp_path: Path) -> None:
    """
    Of what was lost the rest was on another day, of which another file may tell.
    """
    held, spent, today = begun(killed(tmp_path, 400, 250, 60, 40), tmp_path)

    assert 250 == held[DAY].nano_usd == today.nano_usd
    assert 400 == spent.nano_usd


def test_an_orderly_end_gives_back_all_that_was_not_spent(tmp_path: Path) -> None:
    """
    To the ledger and to the file; the next run finds nothing to make up for.
    """
    found, ledger = job(tmp_path), with_ledger(tmp_path)
    with money_of(found, ledger) as money:
        assert money.till is not None
        assert money.budget.days is not None
        asked = borrow(1, 900)
        money.budget.reserve(Amount(0), DAY)
        money.budget.lent(asked, money.till.borrow(asked))
        ledger.commit(Records(authorised=Amount(400, 10, 10)))
        ledger.commit(made(60, 40))
        money.close_account()
        assert {DAY: Amount(100, 2, 2)} == money.till.held()
    ledger.close()

    assert ({DAY: Amount(100, 2, 2)}, Amount(100, 2, 2), Amount(100, 2, 2)) == begun(
        found, tmp_path
    )


def test_what_a_restored_ledger_has_forgotten_stays_spent(tmp_path: Path) -> None:
    """
    It is the copy of an orderly end; a later run has spent 500 more, and nothing was in flight.
    """
    found = job(tmp_path)
    spend_in_order(found, tmp_path, 100)
    shutil.copy(tmp_path / "ledger.sqlite", tmp_path / "copy")
    spend_in_order(found, tmp_path, 500)
    (tmp_path / "copy").replace(tmp_path / "ledger.sqlite")

    for _ in range(2):
        held, spent, today = begun(found, tmp_path)
        assert {DAY: Amount(600, 2, 2)} == held
        assert Amount(600, 2, 2) == spent == today


def test_a_copy_of_an_output_shares_as_another_one(tmp_path: Path) -> None:
    """
    Both may run at once: what one of them gives back is its own.
    """
    killed(tmp_path, 400, 900, 60, 40)
    other, ledger = job(tmp_path, "two"), with_ledger(tmp_path)
    with money_of(other, ledger) as money:
        assert money.till is not None
        assert {} == money.till.held()
    ledger.close()


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        pytest.param({"XDG_STATE_HOME": "/state"}, "/state/batchrank/budget.sqlite", id="told"),
        pytest.param(
            {"XDG_STATE_HOME": "no/root", "HOME": "/home/me"},
            "/home/me/.local/state/batchrank/budget.sqlite",
            id="told wrongly",
        ),
        pytest.param(
            {"XDG_STATE_HOME": "", "HOME": "/home/me"},
            "/home/me/.local/state/batchrank/budget.sqlite",
            id="not told",
        ),
    ],
)
def test_without_a_name_it_lies_in_the_users_own_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], path: str
) -> None:
    """
    Where the XDG specification says.
    """
    monkeypatch.setattr("sys.platform", "linux")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = tmp_path / "usual.toml"
    text = JOB.format(output="one", day_usd_max=1).replace('shared = "team.budget"\n', "")
    found.write_text(text)

    assert Path(path) == shared_file(load(found, with_key=False))


def test_without_a_home_a_name_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    As in a container whose user is in no list.
    """

    def nobody(*_args: Any) -> Path:
        raise RuntimeError("could not determine home directory")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    found = tmp_path / "usual.toml"
    text = JOB.format(output="one", day_usd_max=1).replace('shared = "team.budget"\n', "")
    found.write_text(text)

    with pytest.raises(JobError, match=r"budget\.shared.*name a file"):
        shared_file(load(found, with_key=False))


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        pytest.param({"day_usd_max": 1}, "budget.day_usd_max: cannot be kept: no price", id="day"),
        pytest.param({"month_usd_max": 1}, "budget.month_usd_max: cannot be kept", id="month"),
        pytest.param({"requests_max": 1}, "", id="requests need no price"),
    ],
)
def test_a_cap_on_money_needs_a_price(tmp_path: Path, budget: dict[str, float], words: str) -> None:
    """
    Before anything else is looked at.
    """
    ((key, value),) = budget.items()
    path = tmp_path / "job.toml"
    text = JOB.format(output="one", day_usd_max=1).partition("[budget]")[0]
    path.write_text(text.replace("cohere/rerank-v3.5", "own/model") + f"[budget]\n{key} = {value}")

    if not words:
        load(path, with_key=False)
        return
    with pytest.raises(JobError) as refused:
        load(path, with_key=False)
    assert words in refused.value.message


def test_the_shared_file_lies_neither_in_a_store_nor_among_the_scores(tmp_path: Path) -> None:
    """
    The former has no locks, the latter are all that readers of the output want to find.
    """
    path = tmp_path / "job.toml"
    text = JOB.format(output="one", day_usd_max=1)
    path.write_text(text.replace("team.budget", "s3://bucket/team.budget"))
    with pytest.raises(JobError, match=r"line 13: budget\.shared: is not on this machine"):
        load(path, with_key=False)

    path.write_text(text.replace("team.budget", "one/team.budget"))
    ledger = with_ledger(tmp_path)
    opening = money_of(load(path, with_key=False), ledger)
    with pytest.raises(OutputError, match=r"lies in output\.path"), opening:
        pass
    ledger.close()


def test_a_cap_on_search_units_needs_a_model_that_has_some(tmp_path: Path) -> None:
    """
    Where tokens are billed it would bound nothing.
    """
    path = tmp_path / "job.toml"
    text = JOB.format(output="one", day_usd_max=1).replace("rerank-v3.5", "rerank-5-fast")
    path.write_text(text + "search_units_max = 3\n")

    with pytest.raises(JobError, match=r"search_units_max: cannot be kept: .* billed by tokens"):
        load(path, with_key=False)


def test_only_what_is_left_is_asked_about(tmp_path: Path) -> None:
    """
    Known documents of groups that are done, or left for later, make nothing cheaper; what a killed
    run was allowed leaves less of the cap.
    """
    found = SmallJob(tmp_path, 1, budget={"cost_usd_max": 1}).source(groups(4)).job
    source, ledger = found.open_source(), with_ledger(tmp_path)
    known = [ranked(0, [0.5, 0.5]), ranked(3, [UNSCORED, 0.5])]
    ledger.commit(Records(known=known, authorised=Amount(400_000_000)))
    abouts = [
        left(found, source, ledger, Positions(4, done), target)
        for done, target in (((), 4), ((0,), 4), ((), 3), ((0,), 3))
    ]
    ledger.close()

    assert [3, 1, 2, 0] == [about.known for about in abouts]
    assert [0, 1, 1, 2] == [len(about.done) for about in abouts]
    assert {0.6} == {about.cap_left_usd for about in abouts}
