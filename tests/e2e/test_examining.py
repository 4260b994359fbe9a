"""
What `plan`, `status`, `verify` and `prune` say of jobs in every state.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from batchrank.domain import FailureKind
from batchrank.errors import ChangedError, OutputError
from batchrank.examine.bill import bill
from batchrank.examine.plan import plan
from batchrank.examine.status import status
from batchrank.examine.verify import verify
from batchrank.policy.amounts import Amount
from batchrank.policy.budget import SharedCaps
from batchrank.store.disk import Lock
from batchrank.store.ledger import Ledger, Records
from batchrank.store.shared import SharedBudget
from tests.e2e.small_jobs import MODEL, Liar, SmallJob, groups, http
from tests.edges.ledgers import call


def refuse(*subjects: int) -> Any:
    """
    An answer that scores, but for questions about these subjects.
    """
    queries = {f"what is known of subject {n}" for n in subjects}

    def answer(heard: Any) -> bytes:
        if heard.asked["query"] in queries:
            return http({"error": {"code": 400, "message": "no"}}, 400)
        return http(heard.reply())

    return answer


@pytest.fixture
def unasked(tmp_path: Path) -> SmallJob:
    """
    A job of ten groups at an address where nobody listens.
    """
    return SmallJob(tmp_path, 1).source(groups(10))


@contextmanager
def being_written(job: SmallJob, ago_s: float, target: int = 10) -> Iterator[Ledger]:
    """
    The ledger of a run that began so long ago and is under way.
    """
    state = job.job.state
    ledger = Ledger.create_or_open(state.ledger)
    done = len(ledger.done(10))
    with Lock(state.lock, job.output, "2026-11-20T02:00:00+00:00"):
        ledger.start_run(time.time() - ago_s, 42, "host", done_before=done, target=target)
        yield ledger
    ledger.close()


# --- plan -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
def test_what_is_done_is_left_out_of_a_plan(tmp_path: Path, full: bool) -> None:
    """
    All groups that need no call are among those that are done: the rest needs one each.
    """
    rows = groups(10)
    for row in rows[:4]:
        row["documents"] = []
    with Liar(refuse()) as liar:
        job = SmallJob(tmp_path, liar.port).source(rows)
        job.run(limit=4)
        found = plan(job.job, full=full)
        job.run()
        finished = plan(job.job, full=full)

    assert (4, (6, 6), (6, 6)) == (found.done, found.requests, found.search_units)
    assert "4 of 10 groups: what follows is about the rest" in found.as_text()
    assert (10, (0, 0), (0.0, 0.0)) == (finished.done, finished.requests, finished.cost_usd)
    assert "nothing is left" in finished.as_text()


def test_a_sample_says_how_far_it_may_be_off(tmp_path: Path) -> None:
    """
    Less than half of the groups was looked at: in the others may stand whatever could be.
    """
    rows = groups(600)
    for row in rows[100:]:
        row["documents"] = []
    job = SmallJob(tmp_path, 1).source(rows)
    sampled, whole = plan(job.job, sample_s_max=0.0), plan(job.job, full=True)

    assert (256, 600) == (sampled.sampled, whole.sampled)
    assert (100, 100) == whole.requests == whole.search_units
    for low, high in (sampled.requests, sampled.search_units):
        assert low <= 100 < high
    assert sampled.requests[1] <= 600
    assert sampled.cost_usd is not None
    assert sampled.cost_usd[0] < sampled.cost_usd[1]


def test_a_sample_without_any_call_excludes_none(tmp_path: Path) -> None:
    """
    What one batch does not hold may stand in all others.
    """
    rows = groups(600)
    for row in rows[:300]:
        row["documents"] = []
    found = plan(SmallJob(tmp_path, 1).source(rows).job, sample_s_max=0.0)

    assert (0, 600 - 256) == found.requests == found.search_units


def test_a_sample_is_of_what_is_left(tmp_path: Path) -> None:
    """
    However far behind what is done it begins.
    """
    rows = groups(600)
    for row in rows[:300]:
        row["documents"] = []
    job = SmallJob(tmp_path).source(rows)
    job.run(limit=300)

    found = plan(job.job, sample_s_max=0.0)

    assert (300, 212, 3.0) == (found.done, found.sampled, found.candidates.least)


def test_plan_says_what_run_would_refuse(tmp_path: Path) -> None:
    """
    In the same words; what is done counts for nothing then, and what was spent neither.
    """
    with Liar(refuse()) as liar:
        job = SmallJob(tmp_path, liar.port).source(groups(10))
        job.run(limit=4)
        job.change(provider={"model": "cohere/rerank-4-pro"}, budget={"cost_usd_max": 0.025})
        found = plan(job.job)
        with pytest.raises(ChangedError) as refused:
            job.run()

    change = f"provider.model was '{MODEL}', now it is 'cohere/rerank-4-pro'"
    (warning,) = (w for w in found.warnings if "`run` refuses" in w)
    assert change in warning
    assert change in refused.value.message
    assert refused.value.message.splitlines()[0] in warning
    assert refused.value.hint in warning
    assert (0, (10, 10)) == (found.done, found.requests)
    assert not any("budget" in w for w in found.warnings)


def test_plan_says_what_lies_where_a_run_would_begin(tmp_path: Path) -> None:
    """
    Nobody should hear at night that there was no room for the scores.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.output.mkdir()
    empty = plan(job.job)
    (job.output / "part-00000.parquet").write_bytes(b"of somebody else")
    found = plan(job.job)
    with pytest.raises(OutputError) as refused:
        job.run()

    assert not any("`run` refuses" in warning for warning in empty.warnings)
    (warning,) = (w for w in found.warnings if "`run` refuses" in w)
    assert refused.value.message in warning
    assert refused.value.hint in warning


def test_plan_refuses_an_output_in_the_source_as_run_does(tmp_path: Path) -> None:
    """
    There are no figures of what can never begin.
    """
    job = SmallJob(tmp_path, source={"path": "."}, output={"path": "data/out"})
    job.source(groups(2))

    with pytest.raises(OutputError) as told:
        plan(job.job)
    with pytest.raises(OutputError) as refused:
        job.run()

    assert str(refused.value) == str(told.value)


def test_plan_survives_a_source_that_shrank(tmp_path: Path) -> None:
    """
    Positions that are done and are not there any more are no bug.
    """
    job = SmallJob(tmp_path).source(groups(30))
    job.run()
    found = plan(job.source(groups(2)).job)

    assert (0, (2, 2)) == (found.done, found.requests)
    assert "groups.parquet changed" in found.warnings[0]


@pytest.mark.parametrize(
    ("cap", "words"),
    [
        pytest.param(0.009, "($0.0090) is not enough: it can take $0.0100", id="too low"),
        pytest.param(0.01, None, id="enough"),
    ],
)
def test_plan_warns_of_a_budget_that_does_not_do(
    unasked: SmallJob, cap: float, words: str | None
) -> None:
    """
    Before the run stops for it.
    """
    found = plan(unasked.change(budget={"cost_usd_max": cap}).job)

    warned = [w for w in found.warnings if "budget" in w]
    assert [] == warned if words is None else words in warned[0]


@pytest.mark.parametrize(
    ("caps", "words"),
    [
        pytest.param(
            {"requests_max": 9}, "requests_max (9 requests) is not enough: it can take 10 requests,"
            " and the run stops", id="requests",
        ),
        pytest.param(
            {"search_units_max": 9}, "search_units_max (9 search units) is not enough: it can take"
            " 10 search units, and", id="units",
        ),
        pytest.param(
            {"day_usd_max": 0.015}, "day_usd_max ($0.0150) is not enough: it can take $0.0160, with"
            " $0.0060 taken today by all", id="a day",
        ),
        pytest.param(
            {"month_requests_max": 16}, "month_requests_max (16 requests) is not enough: it can"
            " take 17 requests, with 7 requests taken this month by all", id="a month",
        ),
        pytest.param(
            {"day_usd_max": 0.016, "month_usd_max": 0.017, "day_requests_max": 16,
             "requests_max": 10, "search_units_max": 10}, None, id="just enough",
        ),
    ],
)  # fmt: skip
def test_plan_tells_each_cap_that_binds(
    unasked: SmallJob, caps: dict[str, float], words: str | None
) -> None:
    """
    The output's own, and what the others have left of those that are shared; nothing is written.
    """
    today = unasked.job.now.date()
    earlier = (today - timedelta(1) if today.day > 1 else today + timedelta(1)).isoformat()
    file = unasked.base / "team.budget"
    till = SharedBudget.open(file, "another", SharedCaps())
    till.settle({today.isoformat(): Amount(6_000_000, 6, 6), earlier: Amount(1_000_000, 1, 1)})
    till.close()
    before = file.read_bytes()

    found = plan(unasked.change(budget={"shared": "team.budget", **caps}).job)

    warned = [w for w in found.warnings if "budget" in w]
    assert [] == warned if words is None else words in warned[0]
    assert len(warned) == len(found.caps)
    assert before == file.read_bytes()


def test_plan_makes_no_shared_budget(unasked: SmallJob) -> None:
    """
    Where there is none, nothing has been taken.
    """
    found = plan(unasked.change(budget={"shared": "team.budget", "day_usd_max": 0.009}).job)

    (cap,) = found.caps
    assert ("budget.day_usd_max", "day", 0) == (cap.name, cap.period, cap.before)
    assert (9_000_000, (10_000_000, 10_000_000)) == (cap.cap, cap.needs)
    assert not (unasked.base / "team.budget").exists()


def test_plan_counts_what_was_spent_against_the_budget(tmp_path: Path) -> None:
    """
    The cap is the output's, over all runs.
    """
    with Liar(refuse()) as liar:
        job = SmallJob(tmp_path, liar.port).source(groups(10))
        job.run(limit=4)
        found = plan(job.change(budget={"cost_usd_max": 0.008}).job)

    (warning,) = (w for w in found.warnings if "budget" in w)
    assert "it can take $0.0100, with $0.0040 spent before" in warning


def test_plan_of_a_scorer_in_process_speaks_of_no_calls(tmp_path: Path) -> None:
    """
    Neither of prices nor of latencies.
    """
    rows = [*groups(5), {**groups(1, 120)[0], "query_id": "x"}]
    rows[0]["documents"] = [{"id": "a", "text": "same"}, {"id": "b", "text": "same"}]
    job = SmallJob(tmp_path).source(rows)
    text = plan(job.job).as_text()
    limited = plan(job.change(limits={"requests_per_minute": 6}).job).as_text()

    assert "none: 6 groups are scored in process" in text
    assert "cost        nothing" in text
    assert "as fast as this machine is" in text
    assert "1 document stood in the same group before: scored twice" in text
    assert [] == [word for word in ("$", "search unit", "0.25", "sent", "call") if word in text]
    assert "held by the limit of 6 requests a minute" in limited


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"requests_per_hour": 60}, "the limit of 60 requests an hour"),
        ({"requests": {"count": 30, "per_s": 90}}, "the limit of 30 requests in 90 s"),
        ({"documents_per_minute": 3}, "the limit of 3 documents a minute"),
        ({"concurrency_max": 1}, "concurrency: 1 call at once, taken to last 0.25 s each"),
    ],
)
def test_plan_names_the_limit_that_holds(
    unasked: SmallJob, limits: dict[str, Any], words: str
) -> None:
    """
    As people say it.
    """
    text = plan(unasked.change(limits=limits).job).as_text()

    assert f"held by {words}" in text
    assert "groups.parquet: 1 file, 10 groups" in text


# --- status ---------------------------------------------------------------------------------------


def test_status_says_how_fast_a_run_is(tmp_path: Path) -> None:
    """
    From this run alone; earlier runs do not make it faster.
    """
    with Liar(refuse()) as liar:
        job = SmallJob(tmp_path, liar.port, limits={"requests_per_minute": 600})
        job.source(groups(10)).run(limit=4)
        with being_written(job, 120.0):
            early = status(job.job)
    job.source(groups(10))
    with being_written(job, 120.0) as ledger:
        _rank(ledger, range(4, 6))
        found = status(job.job)
        text = found.as_text()

    assert early.pace is not None
    assert (0, 6, None) == (early.pace.done_now, early.pace.left, early.pace.left_s)
    assert "6 groups: not known yet" in early.as_text()
    assert found.pace is not None
    assert (2, 4, 10.0) == (found.pace.done_now, found.pace.left, found.pace.limit_per_s)
    assert 2 / 120 == pytest.approx(found.pace.groups_per_s, rel=0.1)
    assert 240 == pytest.approx(found.pace.left_s, rel=0.1)
    assert found.cost_usd * 10 / 6 == pytest.approx(found.pace.cost_usd_at_end)
    assert "2 groups in 2 m 00 s); the limit is 10.0 requests/s" in text
    assert "left     4 groups: 4 m 0" in text
    assert f"about ${found.pace.cost_usd_at_end:.4f} at the end" in text
    assert "running (process " in text
    assert "since 2026-11-20 02:00:00 UTC)" in text
    assert "is under way; no sign of life yet" not in text


def _rank(ledger: Ledger, positions: range) -> None:
    from batchrank.domain import Ranked, Share
    from tests.edges.ledgers import BY

    outcomes = [Ranked(p, (0.5, 0.4, 0.3), (Share(3, BY),)) for p in positions]
    calls = [call(p, sent_at=time.time(), cost=1_000_000) for p in positions]
    ledger.commit(Records(at=time.time(), calls=calls, outcomes=list(outcomes)))


def test_status_of_rejects_that_are_asked_about_again(tmp_path: Path) -> None:
    """
    Those that wait for their turn are not done.
    """
    with Liar(refuse(1, 2, 3)) as liar:
        job = SmallJob(tmp_path, liar.port).source(groups(10))
        job.run()
    with being_written(job, 60.0) as ledger:
        ledger.connection.execute("UPDATE runs SET done_before = 7 WHERE ended_at IS NULL")
        ledger.connection.execute("UPDATE rejects SET rejected_at = rejected_at - 3600")
        ledger.set_meta({"retries_rejects": True})
        _rank(ledger, range(1, 2))
        found = status(job.job)

    assert found.pace is not None
    assert (1, 2) == (found.pace.done_now, found.pace.left)


def test_a_run_notes_whether_it_asks_about_rejects_again(tmp_path: Path) -> None:
    """
    The status of a run that is under way depends on it.
    """
    with Liar(refuse(1)) as liar:
        job = SmallJob(tmp_path, liar.port).source(groups(3))
        noted = []
        for wish in (False, True):
            job.run(retry_rejects=wish)
            ledger = Ledger.create_or_open(job.job.state.ledger)
            noted.append(ledger.meta()["retries_rejects"])
            ledger.close()

    assert [False, True] == noted


def test_status_says_what_to_do_about_rejects(tmp_path: Path) -> None:
    """
    And so does another run, that calls nobody.
    """
    with Liar(refuse(1, 2)) as liar:
        job = SmallJob(tmp_path, liar.port).source(groups(10))
        first, again = job.cli("run"), job.cli("run")
    text = status(job.job).as_text()

    assert (1, 1) == (first.code, again.code)
    for said in (first.out, again.out, text):
        assert "finished, but 2 groups are rejected where 0 are allowed" in said
        assert "next     `batchrank run --retry-rejects` asks about them again" in said
        assert "nothing to do" not in said
        assert "bad_group" not in said
        assert "2 refused by the provider for the content" in said
    assert "nobody was called now" in again.out
    assert {"bad_group": 2} == status(job.job).as_data()["calls_failed"]
    assert "in the last minute" not in text


def test_status_keeps_the_reason_of_an_outage(tmp_path: Path) -> None:
    """
    In the first line, where it is looked for; calls that never left are told in words.
    """
    with Liar(lambda heard: http({})) as liar:
        port = liar.port
    job = SmallJob(tmp_path, port, run={"outage_s_max": 0.3}, limits={"concurrency_max": 30})
    job.source(groups(30)).run()
    first, *lines = status(job.job).as_text().splitlines()

    assert "stopped early, run it again: nothing has succeeded for" in first
    assert " never sent" in next(line for line in lines if line.startswith("calls"))


def test_status_tells_a_kill_and_a_limit(tmp_path: Path) -> None:
    """
    Each with the same form of time.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.run(limit=4)
    limited = status(job.job).as_text()
    with being_written(job, 60.0) as ledger:
        ledger.commit(Records(at=1_800_000_000.0, note="no route"))
        under_way = status(job.job).as_text()
    killed = status(job.job).as_text()

    assert "did what --limit asked for" in limited
    assert "is under way; last sign of life 2027-01-15 08:00:00 UTC" in under_way
    assert "the last run was killed (it was waiting: no route): run it again" in killed
    assert "was killed; last sign of life 2027-01-15 08:00:00 UTC" in killed


def test_status_and_bill_agree_on_what_a_killed_run_may_have_spent(tmp_path: Path) -> None:
    """
    Also before the next run writes it down; what a living one may spend is not lost.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.run(limit=4)
    with being_written(job, 60.0) as ledger:
        ledger.commit(Records(at=time.time(), authorised=Amount(9_000_000, 3, 3)))
        under_way = status(job.job)
    killed = status(job.job)

    assert 0.0 == under_way.cost_usd_lost
    assert 0.009 == killed.cost_usd_lost
    assert 9_000_000 == bill([str(job.file)], {}).lost_nano_usd
    assert "$0.0090 perhaps lost" in killed.as_text()


def test_status_of_a_missing_success(tmp_path: Path) -> None:
    """
    The next run writes it.
    """
    job = SmallJob(tmp_path).source(groups(3))
    job.run()
    (job.output / "_SUCCESS").unlink()

    assert "_SUCCESS is missing: run it again" in status(job.job).as_text()


def test_the_ledger_is_measured_without_its_log(tmp_path: Path) -> None:
    """
    And of a few groups nothing is said of one.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.run()
    file = job.job.state.ledger
    with being_written(job, 1.0):
        (found, wal) = status(job.job), file.with_name(f"{file.name}-wal").stat().st_size
    text = found.as_text()

    assert file.stat().st_size == found.ledger_bytes
    assert 0 < wal == found.log_bytes
    assert "of its log" in text
    assert "bytes a group" not in text


# --- verify ---------------------------------------------------------------------------------------


def checks(job: SmallJob) -> dict[str, tuple[bool | None, str]]:
    """
    Each check: whether it holds, and what it found.
    """
    return {check.name: (check.holds, check.found) for check in verify(job.job).checks}


def test_each_check_says_what_it_counted(tmp_path: Path) -> None:
    """
    In both layouts the same; a document without a score has no rank.
    """
    rows = groups(5)
    rows[0]["documents"][1]["text"] = None
    rows[1]["documents"] = []
    job = SmallJob(tmp_path).source(rows)
    for layout in ("candidates", "groups"):
        job.change(output={"layout": layout}).run()
        found = checks(job)

        assert {True} == {holds for holds, _ in found.values()}
        assert "11 ranks, from 1 and without a gap" == found["ranks"][1]
        assert "7 scores not above the one before" == found["order"][1]
        assert "11 numbers beside ranks, 1 null beside none" == found["finite scores"][1]
        assert "4 begin with a first rank, of 4 ranked" == found["groups"][1]
        assert "1 part, nothing foreign" == found["files"][1]


def test_what_could_not_be_looked_at_is_not_ok(tmp_path: Path) -> None:
    """
    A part that is missing is told once, as that, and with what mends it.
    """
    job = SmallJob(tmp_path).source(groups(5))
    job.run()
    job.parts()[0].unlink()
    found = checks(job)
    text = verify(job.job).as_text()

    assert (False, "missing: part-00000.parquet (run it again)") == found["files"]
    assert [None] * 5 == [
        found[name][0] for name in ("checksums", "ranks", "order", "finite scores", "groups")
    ]
    assert "IO Error" not in text
    assert "-- " in text
    assert "1 of 10 checks fails" in text


def test_a_missing_success_is_said_to_be_missing(tmp_path: Path) -> None:
    """
    And one that should not be there, why.
    """
    job = SmallJob(tmp_path).source(groups(5))
    job.run()
    (job.output / "_SUCCESS").unlink()
    missing = checks(job)["_SUCCESS"]

    (tmp_path / "other").mkdir()
    unfinished = SmallJob(tmp_path / "other").source(groups(5))
    unfinished.run(limit=2)
    absent = checks(unfinished)["_SUCCESS"]
    (unfinished.output / "_SUCCESS").touch()
    strange = checks(unfinished)["_SUCCESS"]

    assert (False, "is missing: run it again") == missing
    assert (True, "is not there: the output is not finished") == absent
    assert (False, "is there although the output is not finished: run it again") == strange


def test_an_output_that_is_not_finished_is_said_to_be_so(tmp_path: Path) -> None:
    """
    Whether or not somebody works on it.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.run(limit=4)
    left = checks(job)
    with being_written(job, 1.0):
        under_way = checks(job)

    assert (False, "not finished yet: run it again") == left["manifest"]
    for name in ("manifest", "every position once"):
        assert "not finished yet" in left[name][1]
        assert "a run is under way (process " in under_way[name][1]


def test_a_part_that_is_not_published_is_not_called_foreign(tmp_path: Path) -> None:
    """
    It has another layout than the job by now, and the run that was to render it anew was killed.
    """
    job = SmallJob(tmp_path, output={"part_groups": 5}).source(groups(10))
    job.run()
    ledger = Ledger.create_or_open(job.job.state.ledger)
    ledger.relayout({}, None, lambda: None)
    ledger.close()
    found = checks(job)
    job.run()

    names = "part-00000.parquet, part-00001.parquet"
    assert (False, f"not published: {names} (run it again)") == found["files"]
    assert verify(job.job).holds


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "is missing: run it again", id="missing"),
        pytest.param(b"{", "is damaged: delete it, then run it again", id="damaged"),
        pytest.param(b'{"parts": []}', "lists other parts: delete it, then", id="another"),
    ],
)
def test_a_wrong_manifest_is_told_with_its_remedy(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    """
    Which then mends it.
    """
    job = SmallJob(tmp_path).source(groups(5))
    job.run()
    file = job.job.state.manifest
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    holds, found = checks(job)["manifest"]
    file.unlink(missing_ok=True)
    job.run()

    assert holds is False
    assert words in found
    assert "Errno" not in found
    assert verify(job.job).holds


# --- prune ----------------------------------------------------------------------------------------


def test_prune_says_what_it_freed(tmp_path: Path) -> None:
    """
    In units that fit; a second time there is nothing.
    """
    job = SmallJob(tmp_path).source(groups(500))
    job.run()
    first, second = job.cli("prune").out, job.cli("prune").out

    assert first.startswith("pruned 500 groups: ")
    assert " kB freed, the ledger takes " in first
    assert second.startswith("nothing to prune; the ledger takes ")


def test_prune_names_the_parts_that_are_damaged(tmp_path: Path) -> None:
    """
    As their files are called.
    """
    job = SmallJob(tmp_path).source(groups(5))
    job.run()
    job.parts()[0].unlink()
    ran = job.cli("prune")

    assert 2 == ran.code
    assert "part-00000.parquet: damaged or missing" in ran.err


def test_no_kind_is_shown_to_people_as_it_is_called_inside(tmp_path: Path) -> None:
    """
    Whatever became of calls.
    """
    job = SmallJob(tmp_path).source(groups(10))
    job.run(limit=1)
    with being_written(job, 1.0) as ledger:
        failed = [call(n, kind) for n, kind in enumerate(FailureKind, 1)]
        ledger.commit(Records(at=time.time(), calls=failed))
        text = status(job.job).as_text()

    assert "1 perhaps billed (no clear answer)" in text
    assert [] == [kind for kind in FailureKind if f" {kind}" in text and "_" in kind]
    assert " unknown" not in text
