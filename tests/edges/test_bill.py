"""
The bill of ledgers that are made by hand.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Call, CostSource, FailureKind, Rejected, RejectKind, Served, Usage
from batchrank.errors import Exit, JobError, OutputError
from batchrank.examine.bill import KEYS, Bill, Days, Saved, bill, write_csv
from batchrank.examine.figures import COLUMNS
from batchrank.job.account import Account
from batchrank.policy.accounting import Amounts
from batchrank.store.disk import Lock
from batchrank.store.ledger import Ledger, Records
from batchrank.store.reading import LedgerReader
from tests.edges.ledgers import call, ranked
from tests.laws import law

DAY_S = 86_400.0
FIRST = 20_000
"""The day that the calls here begin at, 2024-10-04, counted from 1970."""

META = {
    "fingerprint": "f",
    "part_groups": 8,
    "total": 24,
    "job": "night",
    "labels": {"team": "search"},
    "score_settings": {"provider.name": "openrouter", "provider.model": "v/asked"},
}


def state(folder: Path, calls: Iterable[Call] = (), **more: Any) -> Path:
    """
    A state folder with a ledger of these calls; *more* is of what the output began with, or of the
    commit.
    """
    folder.mkdir(parents=True)
    records = {name: more.pop(name) for name in ("outcomes", "reused", "equal") if name in more}
    ledger = Ledger.create_or_open(folder / "ledger.sqlite")
    ledger.begin({**META, **more}, [])
    ledger.commit(Records(calls=list(calls), **records))
    ledger.close()
    return folder


def billed(*named: Path, by: str = "", **how: Any) -> Bill:
    """
    The bill of folders.
    """
    return bill([str(path) for path in named], {}, by=by.split(",") if by else (), **how)


def rejected(position: int) -> Rejected:
    """
    A group that was refused.
    """
    return Rejected(position, "q", RejectKind.BAD_GROUP, "no")


# --- sums -----------------------------------------------------------------------------------------

WHO = st.sampled_from([None, Served("m", "Acme"), Served("m", None), Served("n", "=Acme")])


@st.composite
def any_calls(draw: st.DrawFn) -> list[Call]:
    """
    Calls of any kind, at any moment of four days; what has no price is booked at nothing.
    """
    made = []
    for position in range(draw(st.integers(0, 30))):
        source = draw(st.sampled_from(list(CostSource)))
        cost = 0 if source is CostSource.UNKNOWN else draw(st.integers(0, 10**13))
        made.append(
            call(
                position % 7,
                draw(st.sampled_from([None, *FailureKind])),
                attempt=draw(st.integers(1, 3)),
                stop=draw(st.integers(1, 100)),
                sent_at=draw(st.floats(FIRST * DAY_S, (FIRST + 4) * DAY_S, exclude_max=True)),
                cost=cost,
                source=source,
                usage=Usage(
                    draw(st.none() | st.integers(0, 9).map(float)),
                    draw(st.none() | st.integers(0, 99)),
                ),
                served=draw(WHO),
                route=draw(st.sampled_from(["first", "=other"])),
            )
        )
    return made


@law(60)
@given(any_calls(), st.sets(st.integers(0, 6)))
def test_the_bill_is_the_sum_of_the_calls(
    tmp_path_factory: pytest.TempPathFactory, calls: list[Call], refused: set[int]
) -> None:
    """
    To the last unit of 10^-9 dollars, over all and by every key.
    """
    folder = state(
        tmp_path_factory.mktemp("law") / "s", calls, outcomes=[rejected(p) for p in refused]
    )
    found = billed(folder, by="day,month,job,state,provider,model,label.team,label.none,route")
    by_day: Counter[str] = Counter()
    by_route: Counter[str] = Counter()
    for one in calls:
        by_route[one.route] += one.cost_nano_usd
        by_day[date.fromordinal(719163 + int(one.sent_at // DAY_S)).isoformat()] += (
            one.cost_nano_usd
        )

    total = found.total
    with LedgerReader.open(folder / "ledger.sqlite") as ledger:
        account = Account.of(ledger)
    assert (account.calls, account.cost_nano_usd) == (total.calls, total.nano_usd)
    assert account.calls_cost_unknown == total.calls_unknown
    assert sum(account.calls_failed.values()) == total.calls_failed
    assert len(calls) == total.calls
    assert sum(one.cost_nano_usd for one in calls) == total.nano_usd
    assert total.nano_usd == (
        total.nano_usd_reported + total.nano_usd_priced + total.nano_usd_estimated
    )
    assert total.nano_usd_rejected == sum(
        one.cost_nano_usd for one in calls if one.slice.position in refused
    )
    assert total.nano_usd_scored == sum(
        one.cost_nano_usd
        for one in calls
        if one.failure is None and one.slice.position not in refused
    )
    assert sum(one.usage.total_tokens or 0 for one in calls) == total.total_tokens
    assert sum(one.usage.search_units or 0 for one in calls) == total.search_units
    days: Counter[str] = Counter()
    routes: Counter[str] = Counter()
    for keys, amounts in found.rows.items():
        days[str(keys[0])] += amounts.nano_usd
        routes[str(keys[8])] += amounts.nano_usd
        assert ("night", str(folder), "search", None) == (keys[2], keys[3], *keys[6:8])
    assert (by_day, by_route) == (days, routes)
    assert total == sum(found.rows.values(), Amounts())


def test_calls_are_summed_some_at_a_time(tmp_path: Path) -> None:
    """
    The sums are the same, however many are looked at at once.
    """
    folder = state(tmp_path / "s", [call(n, sent_at=DAY_S * n, cost=n) for n in range(10)])
    with LedgerReader.open(folder / "ledger.sqlite") as ledger:
        for together in (1, 3, 10, 1000):
            rows = list(ledger.booked(-math.inf, math.inf, together))
            assert (10, 45) == (sum(r.calls for r in rows), sum(r.nano_usd for r in rows))


def test_what_is_committed_meanwhile_is_left_out(tmp_path: Path) -> None:
    """
    A bill of a running job is that of one moment.
    """
    folder = state(tmp_path / "s", [call(n) for n in range(3)])
    ledger = Ledger.create_or_open(folder / "ledger.sqlite")
    with LedgerReader.open(folder / "ledger.sqlite") as reader:
        rows = reader.booked(-math.inf, math.inf, together=1)
        first = next(rows)
        ledger.commit(Records(calls=[call(9)]))
        assert 3 == first.calls + sum(row.calls for row in rows)
    ledger.close()


def test_days_are_those_of_utc_and_both_are_included(tmp_path: Path) -> None:
    """
    A call belongs to the day at which it was sent.
    """
    at = [FIRST * DAY_S - 0.001, FIRST * DAY_S, (FIRST + 1) * DAY_S - 0.001, (FIRST + 1) * DAY_S]
    folder = state(tmp_path / "s", [call(n, sent_at=at[n], cost=10**n) for n in range(4)])
    day = date(2024, 10, 4)

    assert ["2024-10-03", "2024-10-04", "2024-10-05"] == [
        key for (key,) in billed(folder, by="day").rows
    ]
    spans = {Days(day, day): 110, Days(day, None): 1110, Days(None, day): 111}
    assert spans == {days: billed(folder, days=days).total.nano_usd for days in spans}
    told = billed(folder, days=Days(day, day)).as_data()
    assert (None, None) == (told["saved"], told["cost_usd_lost"])


def test_who_failed_is_who_was_asked(tmp_path: Path) -> None:
    """
    Calls that nobody has served stand under the model and the vendor that the job names.
    """
    lost = call(1, FailureKind.UNKNOWN, served=None, usage=Usage(), source=CostSource.ESTIMATED)
    folder = state(tmp_path / "s", [call(0), lost])

    assert [("Acme", "v/m"), ("openrouter", "v/asked")] == list(
        billed(folder, by="provider,model").rows
    )


# --- what is not known ----------------------------------------------------------------------------


def test_units_without_a_price_are_told_as_units(tmp_path: Path) -> None:
    """
    Their cost is unknown and never 0: in words, in JSON, in CSV and in the table.
    """
    free = call(0, cost=0, source=CostSource.UNKNOWN, usage=Usage(3.0, 70))
    found = billed(state(tmp_path / "s", [free, free]), by="job")
    (row,) = csv.DictReader(io.StringIO(found.as_csv()))

    assert found.total.known_nano_usd is None
    assert "\ncost     unknown\n" in found.as_text()
    assert "what 2 calls (6 search units, 140 tokens) cost: no price is known" in found.as_text()
    assert "$0" not in found.as_text()
    assert found.as_text().splitlines()[-1].split() == [
        "night",
        "2",
        "0",
        "6",
        "140",
        "unknown",
        "2",
    ]
    assert (None, 2, 6.0) == tuple(
        found.as_data()["total"][k] for k in ("cost_usd", "calls_unknown", "search_units_unknown")
    )
    assert ("", "2") == (row["cost_usd"], row["calls_unknown"])


def test_beside_what_is_unknown_stands_what_is_known(tmp_path: Path) -> None:
    """
    The sum is not told as if it were all.
    """
    calls = [call(0, cost=0, source=CostSource.UNKNOWN), call(1, cost=1_000_000)]
    found = billed(state(tmp_path / "s", calls))

    assert "cost     $0.0010 ($0.0010 reported), and what is unknown" in found.as_text()


def test_runs_that_were_killed_are_told(tmp_path: Path) -> None:
    """
    What they may have spent beyond what is written down is beside the sums, not in them.
    """
    folder = state(tmp_path / "s", [call(0, cost=5)])
    ledger = Ledger.create_or_open(folder / "ledger.sqlite")
    ledger.start_run(1.0, 42, "host", done_before=0, target=24)
    killed = billed(folder)
    ledger.set_meta({"authorised_nano_usd": 2_000_005})
    lost = billed(folder)
    with Lock(folder / "lock", tmp_path, "2026-11-20T02:00:00+00:00"):
        running = billed(folder)
    ledger.close()

    assert (
        "lost     1 run was killed: what was in flight then stands in no ledger" in killed.as_text()
    )
    assert "lost     $0.0020 may have been spent beside this: 1 run was killed" in lost.as_text()
    assert (5, 0.002) == (lost.total.nano_usd, lost.as_data()["cost_usd_lost"])
    assert "1 ledger, 1 of them running" in running.as_text()
    assert (0, 0) == (running.parts[0].killed, running.lost_nano_usd)


# --- what was saved -------------------------------------------------------------------------------


def test_what_was_saved_is_told_at_the_mean_of_what_was_paid(tmp_path: Path) -> None:
    """
    Groups that were paid for cost 3 a group, calls without scores and refused groups left aside.
    """
    calls = [
        call(0, cost=2_000_000),
        call(1, cost=4_000_000),
        call(1, FailureKind.UNKNOWN, cost=9_000_000),
        call(2, cost=9_000_000),
    ]
    outcomes = [ranked(n, [0.5]) for n in (0, 1, 3, 4, 5)]
    folder = state(tmp_path / "s", calls, outcomes=[*outcomes, rejected(2)], reused=2, equal=1)
    found = billed(folder)

    saved = found.as_data()["saved"]
    assert {"count": 2, "cost_usd": 0.006} == saved["groups_reused"]
    assert {"count": 1, "cost_usd": 0.003} == saved["groups_equal"]
    assert "saved    about $0.0060: 2 groups whose scores earlier outputs had" in found.as_text()
    assert (
        "of it    $0.0060 for scores, $0.0090 for calls without scores,"
        " $0.0090 for groups that are rejected" in found.as_text()
    )


def test_nobody_knows_what_was_saved_where_nothing_was_paid(tmp_path: Path) -> None:
    """
    It is said so, and not told as nothing.
    """
    found = billed(state(tmp_path / "s", outcomes=[ranked(0, [0.5])], reused=1))

    assert {"count": 1, "cost_usd": None} == found.as_data()["saved"]["groups_reused"]
    assert "saved    nobody knows what: 1 group whose" in found.as_text()


def test_a_night_that_paid_for_nothing_is_measured_by_the_others(tmp_path: Path) -> None:
    """
    By those of this bill with the same model.
    """
    other = {"provider.model": "v/another"}
    first = [call(0, cost=2_000_000)]
    dear = [call(0, cost=9_000_000)]
    state(tmp_path / "one", first, outcomes=[ranked(0, [0.5])])
    state(tmp_path / "dear", dear, outcomes=[ranked(0, [0.5])], score_settings=other)
    state(tmp_path / "two", outcomes=[ranked(n, [0.5]) for n in range(3)], reused=3)

    assert Saved(3, 6_000_000) == billed(tmp_path).saved["groups_reused"]


# --- which ledgers --------------------------------------------------------------------------------


def test_a_folder_of_states_is_all_of_them_and_no_rehearsal(tmp_path: Path) -> None:
    """
    Each counts once, however often it is named; what lies deeper is a rehearsal's.
    """
    states = tmp_path / ".batchrank"
    one = state(states / "one", [call(0, cost=1)], labels={"team": "=cmd"}, job="a")
    state(states / "one.aside-20261120T020000Z", [call(0, cost=10)], job="a")
    state(states / "two", [call(0, cost=100)], job="b")
    state(states / "rehearsal-one" / "state" / "one", [call(0, cost=1000)])
    (states / "learned.json").write_text("{}")

    every = billed(states, one, Path(f"{states}/t*"))
    assert (3, 111) == (len(every.parts), every.total.nano_usd)
    assert {("a",): 11, ("b",): 100} == {
        keys: amounts.nano_usd for keys, amounts in billed(states, by="job").rows.items()
    }
    assert "aside    $0.00000001" in every.as_text()


def test_a_ledger_that_cannot_be_read_is_told_and_the_others_are_summed(tmp_path: Path) -> None:
    """
    The command leaves with 4: the sum is not whole.
    """
    state(tmp_path / "good", [call(0, cost=7)])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "ledger.sqlite").write_bytes(b"not a ledger" * 100)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "ledger.sqlite").touch()
    found = billed(tmp_path)

    assert (7, Exit.STORAGE) == (found.total.nano_usd, found.exit_code)
    assert ["bad"] == [Path(unread.partition(":")[0]).name for unread in found.unread]
    assert "not in this bill: " in found.as_text()


def test_what_names_no_ledger_is_refused(tmp_path: Path) -> None:
    """
    Before anything is summed, and with what there could have been.
    """
    made = state(tmp_path / "s")
    wrong: list[Callable[[], Bill]] = [
        lambda: billed(made, by="dya"),
        lambda: billed(made, by="label."),
        lambda: billed(made, days=Days(date(2026, 1, 2), date(2026, 1, 1))),
        lambda: billed(tmp_path / "*.toml"),
        lambda: billed(tmp_path / "none.toml"),
        lambda: bill([str(made)], {"date": "2026-11-20"}),
    ]
    for asked in wrong:
        with pytest.raises(JobError):
            asked()
    (tmp_path / "empty").mkdir()
    with pytest.raises(OutputError, match="holds no ledger"):
        billed(tmp_path / "empty")


# --- CSV ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\0x", "＝1", 'a"b,c\r\nd']
)
def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path: Path, text: str) -> None:
    """
    Whatever a label or a provider is called; what is no formula comes back as it was.
    """
    who = Served("m", text)
    made = state(tmp_path / "s", [call(0, served=who, cost=12_345)], labels={text: text})
    content = bill([str(made)], {}, by=["provider", f"label.{text}"]).as_csv()
    header, row = csv.reader(io.StringIO(content, newline=""))

    safe = text if text[0] == "a" else f"'{text}"
    assert [safe, safe] == row[:2]
    assert ["provider", f"label.{text}", *COLUMNS] == header
    assert "0.000012345" == row[2 + COLUMNS.index("cost_usd")]
    assert all(float(cell) >= 0 for cell in row[2:])
    assert content.endswith("\r\n")
    assert 2 == content.count("\r\n") - content.count("\r\nd")


def test_a_csv_file_is_whole_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    """
    Least of all a ledger, or what lies beside parts.
    """
    found = billed(state(tmp_path / "s", [call(0)]), by="model")
    to = tmp_path / "bill.csv"
    write_csv(found, to, force=False)
    assert found.as_csv().encode() == to.read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        write_csv(found, to, force=False)
    write_csv(found, to, force=True)

    before = (tmp_path / "s" / "ledger.sqlite").read_bytes()
    with pytest.raises(OutputError, match="batchrank itself has written"):
        write_csv(found, tmp_path / "s" / "ledger.sqlite", force=True)
    assert before == (tmp_path / "s" / "ledger.sqlite").read_bytes()


def test_json_and_csv_have_the_same_columns(tmp_path: Path) -> None:
    """
    And JSON says it in plain data.
    """
    found = billed(state(tmp_path / "s", [call(0, cost=12_345)]), by=",".join(KEYS))
    data = json.loads(json.dumps(found.as_data()))

    assert [*KEYS, *COLUMNS] == list(data["rows"][0])
    assert 0.000012345 == data["total"]["cost_usd"]
