"""
`plan --sample N` pays for N groups, keeps their scores, and says what they teach about the rest.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

import batchrank
from batchrank.errors import ChangedError, JobError
from batchrank.examine.plan import plan
from tests.e2e.small_jobs import SmallJob, groups
from tests.rehearsing import Server


@pytest.fixture
def job(server: Server, tmp_path: Path) -> SmallJob:
    """
    A job of a hundred groups, billed by tokens.
    """
    server.turn(price="0.05/mtok")
    return by_tokens(SmallJob(tmp_path, server.port).source(groups(100, 20)), 0.05)


def by_tokens(job: SmallJob, usd: float) -> SmallJob:
    """
    The same with a price.
    """
    price = {"usd_per_million_tokens": usd, "as_of": date(2026, 11, 20)}
    return job.change(provider={"price": price})


def test_what_a_sample_has_paid_for_is_not_paid_again(job: SmallJob, server: Server) -> None:
    """
    A second time nobody is called, a larger one adds what is missing, a run does the rest, and its
    rows are those of a job that was never sampled.
    """
    calls = []
    for count in (10, 10, 25):
        assert 0 == job.cli("plan", "--sample", count).code
        calls.append(server.admin()["calls"])
    before = job.cli("plan", "--json").json
    summary = job.run()
    whole = SmallJob(_beside(job), server.port).source(groups(100, 20))
    whole.run()

    assert [10, 10, 25] == calls
    assert (25, [75, 75]) == (before["done"], before["requests"])
    assert (0, 100, 75, True) == (
        *(summary.exit_code, summary.calls, summary.calls_now),
        summary.success,
    )
    assert whole.rows() == job.rows()


def _beside(job: SmallJob) -> Path:
    (folder := job.base / "beside").mkdir()
    return folder


def test_a_sample_is_spread_over_the_source(job: SmallJob) -> None:
    """
    And always the same one.
    """
    job.run(sample=10)
    asked = sorted(call["position"] for call in job.calls())

    assert 10 == len(asked)
    assert asked[0] < 30
    assert asked[-1] > 70


def test_a_sample_narrows_down_what_is_left(job: SmallJob, server: Server) -> None:
    """
    To what the server will bill.
    """
    wide = job.cli("plan", "--json").json["cost_usd"]
    said = job.cli("plan", "--sample", 30, "--json").json
    text = job.cli("plan", "--sample", 30).out
    paid = job.run(sample=30).cost_usd
    job.run()
    (bill,) = server.admin()["bill"].values()
    low, high = said["cost_usd"]

    assert paid + low <= bill["nano_usd"] / 1e9 <= paid + high
    assert high - low < (wide[1] - wide[0]) / 4
    assert low < said["cost_likely_usd"] < high
    assert (30, 30, 30, True) == tuple(
        said["sample"][name] for name in ("wanted", "groups", "told", "by_rule")
    )
    assert pytest.approx(paid) == said["sample"]["cost_usd"]
    assert "30 groups asked about at random, for $" in text
    assert "probably about $" in text


def test_bills_that_leave_the_rule_are_followed(job: SmallJob, server: Server) -> None:
    """
    The server takes three times the price that the job states: so will the rest, and that is said.
    """
    by_tokens(job, 0.05 / 3)
    said = job.cli("plan", "--sample", 30).out
    found = job.cli("plan", "--sample", 30, "--json").json
    paid = job.run(sample=30).cost_usd
    job.run()
    (bill,) = server.admin()["bill"].values()
    low, high = found["cost_usd"]

    assert paid + low <= bill["nano_usd"] / 1e9 <= paid + high
    assert not found["sample"]["by_rule"]
    assert "billed otherwise than the rule says" in said


def test_a_sample_tells_what_nobody_knew_the_price_of(job: SmallJob) -> None:
    """
    Replies say what they cost.
    """
    job.change(provider={"price": None, "model": "own/model"})

    assert job.cli("plan", "--json").json["cost_usd"] is None
    low, high = job.cli("plan", "--sample", 20, "--json").json["cost_usd"]
    assert 0 < low < high
    assert "as the sample was billed" in job.cli("plan", "--sample", 20).out


def test_bills_that_nobody_tells_teach_nothing(job: SmallJob, server: Server) -> None:
    """
    What is booked is our own estimate then.
    """
    server.turn(usage="none")
    wide = job.cli("plan", "--json").json
    found = job.cli("plan", "--sample", 20, "--json").json
    text = job.cli("plan", "--sample", 20).out

    assert (20, 0) == (found["sample"]["groups"], found["sample"]["told"])
    assert "too few bills are known" in text
    assert wide["cost_usd"] == pytest.approx([cost * 100 / 80 for cost in found["cost_usd"]], 0.05)


def test_a_sample_sees_what_a_hurried_look_does_not(job: SmallJob) -> None:
    """
    Only the first of two thousand groups are short, and a look that has no time sees no others.
    """
    rows = groups(2000, 4)
    for row in rows[300:]:
        for document in row["documents"]:
            document["text"] *= 20
    job.source(rows, row_group_size=2000).run(sample=40)
    hurried, whole = (plan(job.job, sample_s_max=s, sample=40) for s in (0.0, 600.0))

    assert hurried.sampled < 300
    assert 1960 == whole.sampled
    assert [True, False] == [
        any("groups at random places are estimated at" in warning for warning in found.warnings)
        for found in (hurried, whole)
    ]


def test_a_sample_binds_nobody(job: SmallJob, server: Server) -> None:
    """
    Who asked for an estimate, and then changes a setting or the source, is not refused: what was
    paid for is set aside. After a run that meant it, it is.
    """
    job.run(sample=10)
    job.change(source={"template": "{text}!"})
    warned = job.cli("plan", "--json").json
    again = job.run(sample=5)
    job.source(groups(40))
    whole = job.run()
    job.change(source={"template": "{text}?"})

    assert "`run` sets what was only tried aside" in warned["warnings"][0]
    assert (0, [100, 100]) == (warned["done"], warned["requests"])
    assert (5, 5) == (again.calls, again.done)
    assert any("are kept in" in note for note in again.notes)
    assert (0, 40, 40) == (whole.exit_code, whole.calls, whole.done)
    assert 10 + 5 + 40 == server.admin()["calls"]
    with pytest.raises(ChangedError):
        job.run()
    with pytest.raises(ChangedError):
        job.run(sample=5)


def test_a_sample_keeps_to_the_budget(job: SmallJob, server: Server) -> None:
    """
    As any run: it stops before, and leaves with 3; the plan is told all the same.
    """
    job.change(budget={"cost_usd_max": 0.0005})
    ran = job.cli("plan", "--sample", 90, "--json")
    (bill,) = server.admin()["bill"].values()

    assert 3 == ran.code
    assert 0 < bill["nano_usd"] <= 500_000
    assert 0 < ran.json["sample"]["groups"] < 90
    assert "budget.cost_usd_max" in ran.err


def test_a_sample_asks_whom_a_run_would_ask(job: SmallJob, server: Server) -> None:
    """
    Groups without candidates need no call, and equal ones take the outcome of the one that does:
    the next plan makes up for the first, nobody is asked twice.
    """
    rows: list[dict[str, Any]] = groups(30, 20)
    for n in range(10, 30):
        rows[n] = (
            {**rows[n % 5], "query_id": f"twin {n}"} if n % 2 else {**rows[n], "documents": []}
        )
    job.source(rows).change(source={"dedupe": True})
    found = [job.cli("plan", "--sample", 6, "--json").json for _ in range(4)][-1]
    calls = server.admin()["calls"]
    summary = job.run()

    assert 6 == calls == found["sample"]["groups"]
    assert (0, 10, 20, 10, 10) == (
        *(summary.exit_code, summary.calls, summary.ranked),
        *(summary.empty, summary.equal),
    )


def test_a_sample_of_everything_is_the_job(job: SmallJob) -> None:
    """
    Nothing is left then, and what is finished is not set aside unasked.
    """
    ran = job.cli("plan", "--sample", 1000, "--json")
    done = job.run()
    job.change(source={"template": "{text}!"})
    with pytest.raises(ChangedError):
        job.run()

    assert (0, 100, [0.0, 0.0]) == (ran.code, ran.json["done"], ran.json["cost_usd"])
    assert (0, 0, True) == (done.exit_code, done.calls_now, done.success)


def test_status_tells_a_sample(job: SmallJob) -> None:
    """
    It is no run that failed.
    """
    job.run(sample=10)

    assert "asked for, or was `plan --sample`" in job.cli("status").out
    assert "10 of 100 done" in job.cli("status").out


def test_a_sample_that_makes_no_sense_is_refused(tmp_path: Path, job: SmallJob) -> None:
    """
    Before anybody is called.
    """
    (folder := tmp_path / "free").mkdir()
    free = SmallJob(folder).source(groups(3))

    assert 2 == free.cli("plan", "--sample", 2).code
    assert 2 == job.cli("plan", "--sample", 0).code
    with pytest.raises(JobError):
        batchrank.run(job.file, sample=0)
    with pytest.raises(JobError):
        batchrank.run(job.file, sample=2, limit=2)
