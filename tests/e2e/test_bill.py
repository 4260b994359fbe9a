"""
The bill is the embedded server's own, to the last digit, whatever happened on the way.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from datetime import date
from hashlib import blake2b
from pathlib import Path

import pytest

from batchrank.domain import Positions, Price
from batchrank.examine.bill import Bill, bill
from batchrank.observe.report import Summary
from batchrank.policy.slicing import requests
from batchrank.rehearsal.bill import charge
from batchrank.rehearsal.faults import Fault
from batchrank.source.parquet import open_source
from tests.e2e.small_jobs import KEY, MODEL, SmallJob, cli, groups
from tests.rehearsing import Server, running

PRICE = Price(usd_per_million_tokens=0.05)

DAMAGED = "wrong-echo=subject 8?"
"""Group 8 is answered, billed and never believed: it ends as a reject that was paid for."""

FAULTS = ["429@3", "500@9", "garbage@14,15", "left-out@17", "drop@20", "400=subject 5?", DAMAGED]

UNTOLD = {Fault.SERVER, Fault.GARBAGE, Fault.DROP}
"""What is billed and does not say so: no JSON came back, or none with a bill."""


def rows(first: int, stop: int) -> list[dict[str, object]]:
    """
    Groups of ten candidates, which become three requests each.
    """
    made = groups(stop, candidates=10)[first:]
    for row in made:
        row["query"] = f"{row['query']}?"
    return made


def job_in(folder: Path, server: Server, **tables: Mapping[str, object]) -> SmallJob:
    """
    A job with slices, at the server's price.
    """
    folder.mkdir(exist_ok=True)
    asked = {
        "splits": True,
        "documents_max": 4,
        "price": {"usd_per_million_tokens": 0.05, "as_of": date(2026, 11, 1)},
    }
    return SmallJob(folder, server.port, KEY, provider=asked, **tables)


def charges(job: SmallJob) -> dict[str, int]:
    """
    What the server charges for each request of a job, by the digest that it notes.
    """
    loaded, vendor = job.job, job.job.vendor
    assert vendor is not None
    translation = vendor.make(loaded.settings())
    source = open_source(loaded.config.source, loaded.base)
    found = {}
    for batch in source.batches(Positions(source.total), source.total):
        for position in range(batch.position, batch.position + batch.rows):
            for request in requests(batch.group(position), loaded.bounds):
                digest = blake2b(translation.call(request).body, digest_size=8).hexdigest()
                texts = [text for text in request.documents if isinstance(text, str)]
                found[digest] = charge(request.query, texts, PRICE).nano_usd
    return found


def owed(server: Server) -> int:
    """
    The server's bill, in 10^-9 US dollars.
    """
    return sum(one["nano_usd"] for one in server.admin()["bill"].values())


def is_of(summary: Summary, found: Bill) -> None:
    """
    The summary at the end of a run has the totals of the bill.
    """
    total = found.total
    assert summary.cost_usd == total.nano_usd / 1e9
    assert summary.cost_usd_by_source == {
        "reported": total.nano_usd_reported / 1e9,
        "priced": total.nano_usd_priced / 1e9,
        "estimated": total.nano_usd_estimated / 1e9,
        "unknown": 0.0,
    }
    assert summary.calls == total.calls
    assert sum(summary.calls_failed.values()) == total.calls_failed
    assert summary.calls_repeated == total.calls_repeated
    assert summary.search_units == total.search_units
    assert summary.total_tokens == total.total_tokens
    assert summary.cost_usd_lost == found.lost_nano_usd / 1e9


def test_the_bill_is_the_servers_own(tmp_path: Path) -> None:
    """
    With retries, slices, rejects that were paid for, equal groups, and a second night that reuses
    the first: what was reported is what the server charged, and only calls without a bill in their
    reply are estimated, at no less than what they cost.
    """
    with running(price="0.05/mtok", faults=FAULTS, retry_after="absent") as server:
        first = job_in(tmp_path, server, output={"path": "one", "rejected_max": 2})
        first.change(source={"path": "one.parquet", "dedupe": True}, labels={"night": "one"})
        first.source([*rows(0, 20), *rows(2, 4)], "one.parquet")
        summary = first.run()
        told, untold, estimated = 0, 0, 0
        cost = charges(first)
        for call in server.arrivals():
            billed = call["status"] in (0, 200, 500)
            if billed and call["fault"] in UNTOLD:
                untold, estimated = untold + cost[call["digest"]], estimated + 1
            elif billed:
                told += cost[call["digest"]]
        found = bill([str(first.file)], {}, by=["day", "provider", "model"])
        total = found.total

        assert owed(server) == told + untold
        assert told == total.nano_usd_reported
        assert untold < total.nano_usd_estimated == total.nano_usd - told
        assert (4, 0) == (estimated, total.calls_unknown)
        assert Counter({"garbage": 2, "500": 1, "drop": 1}) == Counter(
            call["fault"] for call in server.arrivals() if call["fault"] in UNTOLD
        )
        assert total.nano_usd_rejected > 0
        assert (18, 2, 2) == (summary.ranked - 2, summary.rejected, summary.equal)
        is_of(summary, found)
        sums = sum(round(call["cost_usd"] * 1e9) for call in first.calls())
        assert sums == total.nano_usd == sum(a.nano_usd for a in found.rows.values())

        server.turn(faults=[])
        second = job_in(tmp_path, server, output={"path": "two", "reuse": ["one"]})
        second.change(source={"path": "two.parquet"}, labels={"night": "two"})
        second.source(rows(0, 24), "two.parquet")
        second.run()
        both = bill([str(tmp_path / ".batchrank")], {}, by=["label.night"])

        assert owed(server) == both.total.nano_usd - total.nano_usd_estimated + untold
        assert {("one",): total.calls, ("two",): 6 * 3} == {
            night: amounts.calls for night, amounts in both.rows.items()
        }
        assert 18 == both.saved["groups_reused"].count


def failing_over(folder: Path, first: Server, second: Server) -> SmallJob:
    """
    A job with slices that goes by the second server when the first one is spent. They charge by
    the search unit, each at a price of its own, so that what no reply told is known all the same.
    """
    as_of = {"as_of": date(2026, 11, 1)}
    other = {
        "name": "openrouter",
        "route": "other",
        "model": MODEL,
        "base_url": f"http://127.0.0.1:{second.port}/api/v1",
        "key_file": "key",
        "price": {"usd_per_search_unit": 0.003, **as_of},
        "splits": True,
        "documents_max": 4,
        "limits": {"unlimited": True, "concurrency_max": 4},
    }
    job = job_in(folder, first, limits={"unlimited": True, "concurrency_max": 4})
    price = {"usd_per_search_unit": 0.001, **as_of}
    return job.change(provider={"price": price, "fallbacks": [other]})


def test_the_bill_of_each_way_is_its_servers_own(tmp_path: Path) -> None:
    """
    One run with retries, failover, slices and reuse: what `bill` says of either way is what that
    server charged, and every call that arrived is in it.
    """
    with (
        running(price="0.001/unit", retry_after="absent") as first,
        running(price="0.003/unit", retry_after="absent") as second,
    ):
        job = failing_over(tmp_path, first, second).change(output={"path": "one"})
        job.source(rows(0, 10)).run()
        for server in (first, second):
            server.reset()
        # One bad reply only: a second one could meet the same slice, which would be rejected.
        faults = ["429@2", "garbage@4", "500@8", "drop@10", "402@16.."]
        assert 200 == first.turn(faults=faults).status
        assert 200 == second.turn(faults=["429@2", "drop@7"]).status
        job.change(output={"path": "two", "reuse": ["one"]}).source(rows(2, 26))
        summary = job.run()
        found = bill([str(job.file)], {}, by=["route"])
        charged = {"openrouter": owed(first), "other": owed(second)}
        arrived = {"openrouter": first.arrivals(), "other": second.arrivals()}
    by_route = {str(route): amounts for (route,), amounts in found.rows.items()}
    printed = job.cli("bill", "--by", "route", "--csv", "-").out
    told = {row["route"]: row for row in csv.DictReader(io.StringIO(printed))}

    assert (0, 24, 8) == (summary.exit_code, summary.ranked, summary.reused)
    assert charged == {route: amounts.nano_usd for route, amounts in by_route.items()}
    assert charged == {route: round(float(r["cost_usd"]) * 10**9) for route, r in told.items()}
    assert {route: len(calls) for route, calls in arrived.items()} == {
        route: amounts.calls for route, amounts in by_route.items()
    }
    # It was such a run: three slices a group, every failed call made again, and on either way some
    # that were paid for scores, some for nothing, and some of which no reply told what they cost.
    assert 16 * 3 == found.total.calls - found.total.calls_failed
    assert 6 < found.total.calls_failed == found.total.calls_repeated
    for purpose in ("nano_usd_scored", "nano_usd_failed", "nano_usd_estimated"):
        assert all(getattr(amounts, purpose) for amounts in by_route.values())
    assert {402} <= {call["status"] for call in arrived["openrouter"]}
    is_of(summary, found)


def test_what_was_paid_outlives_pruning_and_starting_anew(tmp_path: Path) -> None:
    """
    The calls stay, and what `--restart` has set aside stays on the bill of its job.
    """
    with running(price="0.002/unit") as server:
        job = job_in(tmp_path, server).source(rows(0, 4))
        job.run()
        before = cli("bill", job.file, "--json").json
        job.cli("prune")
        assert before == cli("bill", job.file, "--json").json
        summary = job.run(restart=True)
        after = cli("bill", job.file, "--by", "state", "--json").json

        assert owed(server) / 1e9 == after["total"]["cost_usd"]
        assert [False, True] == sorted(state["set_aside"] for state in after["states"])
        assert [summary.cost_usd] * 2 == [row["cost_usd"] for row in after["rows"]]


def test_a_bill_that_is_not_whole_leaves_with_4(tmp_path: Path) -> None:
    """
    What could be read is summed all the same; and two answers do not fit into one output.
    """
    job = SmallJob(tmp_path).source(groups(2))
    job.run()
    damaged = tmp_path / ".batchrank" / "damaged"
    damaged.mkdir()
    (damaged / "ledger.sqlite").write_bytes(b"no ledger" * 1000)
    found = cli("bill", tmp_path / ".batchrank", "--json", "--csv", tmp_path / "bill.csv")

    assert 4 == found.code
    assert (2, 1) == (found.json["total"]["calls"], len(found.json["unread"]))
    assert b"calls,calls_failed" == (tmp_path / "bill.csv").read_bytes()[:18]
    printed = cli("bill", tmp_path / ".batchrank", "--csv", "-")
    assert (4, (tmp_path / "bill.csv").read_bytes().decode()) == (printed.code, printed.out)
    assert printed.err.startswith(f"not in this bill: {damaged}: ")
    assert 2 == cli("bill", job.file, "--json", "--csv", "-").code


@pytest.mark.parametrize("usage", ["no-cost", "none"])
def test_a_bill_in_units_only_is_told_in_units(tmp_path: Path, usage: str) -> None:
    """
    Without a price nobody knows what it costs: no command says that it costs nothing.
    """
    with running(usage=usage) as server:
        job = SmallJob(tmp_path, server.port, provider={"model": "acme/of-its-own"})
        job.source(groups(3))
        summary = job.run()
    found = bill([str(job.file)], {})
    (row,) = csv.DictReader(io.StringIO(cli("bill", job.file, "--csv", "-").out))

    assert (3, None) == (found.total.calls_unknown, found.total.known_nano_usd)
    assert ("3", "") == (row["calls_unknown"], row["cost_usd"])
    assert [None] * 3 == [call["cost_usd"] for call in job.calls()]
    assert 3 == summary.calls_cost_unknown
    for words in (summary.as_text(), job.cli("status").out, job.cli("bill").out):
        assert "unknown" in words
        assert "$" not in words


def test_a_job_that_was_never_begun_has_no_bill(tmp_path: Path) -> None:
    """
    Alone it is refused; beside others it is told.
    """
    (tmp_path / "begun").mkdir()
    begun = SmallJob(tmp_path / "begun").source(groups(2))
    begun.run()
    unbegun = SmallJob(tmp_path)

    alone, both = cli("bill", unbegun.file), cli("bill", unbegun.file, begun.file)
    assert (2, 0) == (alone.code, both.code)
    assert f"{unbegun.file} was never begun" in alone.err
    assert f"note     {unbegun.file} was never begun" in both.out
