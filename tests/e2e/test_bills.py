"""
What a plan says a job will cost is what the embedded server bills.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from batchrank.examine.plan import plan
from tests.e2e.bills import compared, drawn, figures
from tests.e2e.small_jobs import SmallJob, groups
from tests.rehearsing import running


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param(range(12), id="a dozen", marks=pytest.mark.campaign),
        pytest.param(
            range(100), id="a hundred", marks=[pytest.mark.long, pytest.mark.timeout(1800)]
        ),
    ],
)
def test_the_bill_lies_within_what_was_foretold(
    tmp_path: Path, jobs: range, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    In 95 of 100 jobs of all kinds, before anything is paid and after a sample. After it the
    interval is not wider than a quarter of the bill, as a rule; before, that holds where search
    units are billed: nobody can say how a vendor counts tokens before it has.
    """
    with running() as server:
        found = [compared(drawn(n), tmp_path / str(n), server) for n in jobs]
    with capsys.disabled():
        print(f"\n{figures(found)}")  # noqa: T201 - figures are what it is for
    outside = [one for one in found if not one.holds(one.by_rule)]
    outside_after = [one for one in found if not one.holds(one.by_sample)]

    assert len(outside) <= 0.05 * len(found), outside
    assert len(outside_after) <= 0.05 * len(found), outside_after
    assert median(one.width(one.by_sample) for one in found) <= 0.25
    by_units = [one for one in found if not one.job.by_tokens]
    assert median(one.width(one.by_rule) for one in by_units) <= 0.25


def priced(base: Path, rows: list[dict[str, Any]], **price: float) -> SmallJob:
    """
    A job at a price of its own, where nobody listens.
    """
    told = {**price, "as_of": date(2026, 11, 20)}
    return SmallJob(base, 1, provider={"price": told}, output={"top_n": 10}).source(rows)


def test_a_plan_says_what_drives_the_cost_in_search_units(tmp_path: Path) -> None:
    """
    In dollars, each for itself; what would save it stands beside.
    """
    rows = [*groups(10, 12), *groups(4, 250), *groups(2, 60)]
    for row in rows[-2:]:
        for n, document in enumerate(row["documents"]):
            document["text"] = f"{n}" + "x" * 4000
    found = plan(priced(tmp_path, rows, usd_per_search_unit=0.001).job)
    text = found.as_text()

    assert (26, 26) == found.search_units
    said = {driven.name: (driven.usd, driven.groups) for driven in found.drivers}
    assert (0.008, 4) == pytest.approx(said["candidates_beyond_100"])
    assert (0.002, 2) == pytest.approx(said["long_documents"])
    assert (0.0124, 16) == pytest.approx(said["places_unused"], rel=0.01)
    assert "about $0.0080 (31 %): candidates beyond 100, of 4 groups" in text
    assert "(output.top_n keeps 10)" in text
    assert "saved if they were cut (source.max_chars = 2100)" in text
    assert "up to 100 candidates cost the same as one" in text


def test_a_plan_says_what_drives_the_cost_in_tokens(tmp_path: Path) -> None:
    """
    What the query costs again for each document, and what stands twice in a group.
    """
    rows = groups(5, 30)
    for row in rows:
        row["documents"][1]["text"] = row["documents"][0]["text"]
    job = priced(tmp_path, rows, usd_per_million_tokens=0.05)
    found = plan(job.job)
    text = found.as_text()

    assert ["queries_repeated", "documents_repeated"] == [d.name for d in found.drivers]
    assert "saved by source.dedupe_documents = true" in text
    assert f"tokens      {found.tokens[0]:,} to {found.tokens[1]:,} tokens" in text
    assert "search unit" not in text
    assert found.cost_usd == pytest.approx([tokens * 0.05e-6 for tokens in found.tokens], rel=0.01)


@pytest.mark.parametrize("bound", [{"bytes_max": 3000}, {"tokens_max": 900}], ids=str)
def test_a_plan_counts_what_bytes_and_tokens_cut(tmp_path: Path, bound: dict[str, int]) -> None:
    """
    Calls and units are those of the server; a group that no request can hold is told, and is free.
    """
    rows = groups(12, 30)
    for n, row in enumerate(rows):
        for document in row["documents"]:
            document["text"] = f"{document['text']} " * (n + 1)
    rows[3]["documents"][7]["text"] = "x" * 9000
    with running(price="0.001/unit") as server:
        job = SmallJob(tmp_path, server.port, output={"rejected_max": 1}).source(rows)
        price = {"usd_per_search_unit": 0.001, "as_of": date(2026, 11, 20)}
        found = plan(job.change(provider={"price": price, **bound}).job)
        assert 0 == job.run().exit_code
        (bill,) = server.admin()["bill"].values()
        calls = server.admin()["calls"]
    billed = bill["nano_usd"] / 1e9

    assert 2 * 12 < calls
    assert (calls, calls) == found.requests
    assert (billed, billed) == pytest.approx(found.cost_usd)
    assert (round(billed * 1000),) * 2 == found.search_units
    (told,) = [warning for warning in found.warnings if "rejected without a call" in warning]
    assert "1 of 12 groups with texts that are more than one request may hold" in told


def test_what_nobody_pays_for_is_driven_by_nothing(tmp_path: Path) -> None:
    """
    Neither in process nor where no group needs a call.
    """
    (inner := tmp_path / "inner").mkdir()
    empty = [{**row, "documents": []} for row in groups(2)] + groups(1)
    empty[-1]["query"] = " "
    asked = plan(priced(tmp_path, empty, usd_per_search_unit=1).job)
    free = plan(SmallJob(inner).source(groups(3, 120)).job)

    assert ((), (0.0, 0.0), 0.0) == (asked.drivers, asked.cost_usd, asked.cost_likely_usd)
    assert ((), (0.0, 0.0)) == (free.drivers, free.cost_usd)
