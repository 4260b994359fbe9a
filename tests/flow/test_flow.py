"""
The engine, whole, on virtual time.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Answer,
    CostSource,
    FailureKind,
    Group,
    RateLimit,
    RerankRequest,
    Served,
    Usage,
)
from batchrank.engine.dispatcher import AHEAD
from batchrank.engine.runner import Ending
from batchrank.errors import Exit, StorageError
from batchrank.events import (
    AttemptFailed,
    Committed,
    Event,
    GateOpened,
    GateShut,
    Noticed,
    PartPublished,
)
from batchrank.policy.amounts import Amount
from batchrank.policy.budget import Allowance, Borrow, Full, SharedCaps, day_of
from batchrank.policy.retry import SENDS_MAX
from batchrank.testing import (
    RecordingReporter,
    Script,
    ScriptedScorer,
    failure,
    groups,
    reply,
    run_virtually,
    windows_max,
)
from tests.flow.stage import Drawer, SlowLane, Stage
from tests.laws import law

K = FailureKind


def test_every_group_ends_once_and_every_part_is_published() -> None:
    """
    A run without trouble ranks every group and publishes every range once.
    """
    stage = Stage(groups(20))

    ending = stage.run()

    assert ending.stop is None
    assert list(range(20)) == stage.ranked()
    assert sorted(stage.parts.published) == [(0, 8), (1, 16), (2, 20)]


def test_a_part_is_told_as_published_when_the_ledger_has_it() -> None:
    """
    What a person was told of is not rendered again after a kill.
    """
    known: list[bool] = []

    class Witness(RecordingReporter):
        def report(self, event: Event, /) -> None:
            if isinstance(event, PartPublished):
                known.append(event.part in [part.number for part in stage.ledger.parts()])

    stage = Stage(groups(20), reporter=Witness())

    assert stage.run().stop is None
    assert [True] * 3 == known


def test_a_finished_job_is_not_asked_again() -> None:
    """
    A second run of a finished job sends nothing and publishes nothing.
    """
    stage = Stage(groups(20))
    stage.run()
    sent, published = len(stage.scorer.sent), list(stage.parts.published)

    ending = stage.run()

    assert ending.stop is None
    assert sent == len(stage.scorer.sent)
    assert published == stage.parts.published


@law(30)
@given(
    seed=st.integers(0, 10_000),
    kinds=st.lists(
        st.sampled_from([None, None, None, K.THROTTLED, K.UNKNOWN, K.BAD_REPLY, K.NEVER_SENT]),
        min_size=1,
        max_size=40,
    ),
    bad=st.sets(st.integers(0, 29)),
    concurrency=st.integers(1, 9),
)
def test_every_group_ends_exactly_once_whatever_happens(
    seed: int, kinds: list[FailureKind | None], bad: set[int], concurrency: int
) -> None:
    """
    Whatever fails in whatever order, each group ends once, and nobody runs above the concurrency.
    """
    calls = iter(range(10**9))

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        if request.slice.position in bad:
            return failure(K.BAD_GROUP)
        kind = kinds[next(calls) % len(kinds)]
        return reply(request) if kind is None else failure(kind)

    held = [*groups(30), Group(30, "e", "query", ()), Group(31, "w", "  ", ("x",))]
    stage = Stage(held, ScriptedScorer(script), concurrency=concurrency, seed=seed)
    stage.outage_s_max = stage.throttled_s_max = 300.0

    ending = stage.run()
    for _ in range(10):
        if ending.stop is None:
            break
        ending = stage.run()

    endings = stage.endings()
    assert sorted(set(endings)) == endings
    assert stage.scorer.in_flight_max <= concurrency
    if ending.stop is None:
        assert list(range(32)) == endings


def test_a_slot_is_free_only_when_its_record_is_durable() -> None:
    """
    Paid replies that are not durable, and calls under way, are together never more than the slots,
    though each commit takes a second.
    """
    stage = Stage(groups(60), ledger_lane=SlowLane(1.0))
    not_durable: list[int] = []

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        durable = sum(len(event.calls) for event in stage.reporter.of(Committed))
        not_durable.append(len(stage.scorer.sent) - durable)
        return reply(request)

    stage.scorer.script = script

    assert stage.run().stop is None
    assert list(range(60)) == stage.ranked()
    assert max(not_durable) == stage.concurrency


def test_a_stop_by_value_loses_no_paid_reply() -> None:
    """
    A key that is refused in mid-run stops the job; every call under way comes home and is kept.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return failure(K.FATAL, status=401) if request.slice.position == 25 else reply(request)

    stage = Stage(
        groups(60), ScriptedScorer(script, latency_s=lambda r: 0.1 + r.slice.position % 5)
    )

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.PERSON
    assert len(stage.scorer.sent) - 1 == len(stage.ranked())


@pytest.mark.parametrize("concurrency", [1, 4, 32])
def test_an_outage_of_five_minutes_rejects_nothing(concurrency: int) -> None:
    """
    A server that is away for five minutes costs nobody their group, and hardly any calls.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.UNKNOWN, status=502) if 5 < now < 305 else reply(request)

    stage = Stage(groups(400), ScriptedScorer(script, latency_s=0.2), concurrency=concurrency)

    ending = stage.run()

    assert ending.stop is None
    assert list(range(400)) == stage.ranked()
    during = sum(5 < at < 305 for at in stage.scorer.sent_at)
    assert during <= 60 + 2 * concurrency
    assert stage.source.read <= 400


def test_what_waits_is_bounded_during_an_outage() -> None:
    """
    During an outage the source is not read beyond four times the concurrency.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.NEVER_SENT) if now > 1 else reply(request)

    stage = Stage(groups(4_000), ScriptedScorer(script), concurrency=4, outage_s_max=300)

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.LATER
    assert stage.source.read <= len(stage.ranked()) + 4 * 4 + 2 * 16


def test_what_waits_is_bounded_while_nothing_is_wrong_with_the_server() -> None:
    """
    When every group has to be asked again after a while, no more than four times the concurrency
    are begun and not ended.
    """
    stage = Stage(groups(200), ScriptedScorer(latency_s=0.001))
    open_groups: list[int] = []

    def script(request: RerankRequest, attempt: int, _now: float) -> Answer:
        ended = sum(len(event.outcomes) for event in stage.reporter.of(Committed))
        begun = {request.slice.position for _, request in stage.scorer.sent}
        open_groups.append(len(begun) - ended)
        return failure(K.BAD_REPLY) if attempt == 1 else reply(request)

    stage.scorer.script = script

    assert stage.run().stop is None
    assert list(range(200)) == stage.ranked()
    assert stage.concurrency < max(open_groups) <= 4 * stage.concurrency


def test_a_poisonous_group_is_rejected_while_others_are_answered() -> None:
    """
    A group on which the server always fails gets three attempts, then the run goes on without it.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        poisonous = request.slice.position == 7
        return failure(K.UNKNOWN, status=500) if poisonous else reply(request)

    stage = Stage(groups(400), ScriptedScorer(script))

    ending = stage.run()

    assert ending.stop is None
    assert stage.ledger.rejected_positions() == [7]
    assert sum(request.slice.position == 7 for _, request in stage.scorer.sent) == 3


def test_a_last_group_that_never_answers_is_not_blamed_for_an_outage() -> None:
    """
    When nobody else is left to compare with, the run leaves with "later", and one day gives up.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        poisonous = request.slice.position == 19
        return failure(K.UNKNOWN, status=500) if poisonous else reply(request)

    stage = Stage(groups(20), ScriptedScorer(script))

    first = stage.run()
    assert first.stop is not None
    assert first.stop.exit_code == Exit.LATER
    assert stage.ledger.rejected_positions() == []

    last = first
    for _ in range(4):
        last = stage.run()

    assert last.stop is None
    assert stage.ledger.rejected_positions() == [19]
    assert sum(request.slice.position == 19 for _, request in stage.scorer.sent) == SENDS_MAX


def test_the_last_group_of_an_outage_is_asked_by_probes_and_kept() -> None:
    """
    Somebody whose call had left before the outage comes home in it, and convicts nobody.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        down = request.slice.position == 1 and now < 600
        return failure(K.UNKNOWN, status=500) if down else reply(request)

    scorer = ScriptedScorer(script, latency_s=lambda r: 0.1 if r.slice.position else 30.0)
    stage = Stage(groups(2), scorer)

    ending = stage.run()

    assert ending.stop is None
    assert [0, 1] == stage.ranked()
    assert len(stage.scorer.sent) <= 20


def test_nobody_sends_while_the_gate_is_shut() -> None:
    """
    After a 429 with Retry-After everybody waits; then one probe goes first.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.THROTTLED, retry_after_s=30.0) if 3 < now < 33 else reply(request)

    stage = Stage(groups(400), ScriptedScorer(script), concurrency=8)

    stage.run()

    assert list(range(400)) == stage.ranked()
    shut = stage.reporter.of(GateShut)
    assert len(shut) == 1
    assert len(stage.reporter.of(GateOpened)) == 1
    assert [at for at in stage.scorer.sent_at if 3.2 < at < 33] == []


def test_who_waits_for_a_turn_while_the_gate_shuts_does_not_send() -> None:
    """
    The gate is asked again when the turn has come: for as long as a 429 says nobody calls.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.THROTTLED, retry_after_s=30.0) if 3 < now < 33 else reply(request)

    scorer = ScriptedScorer(script, latency_s=0.3)
    stage = Stage(groups(40), scorer, concurrency=8, limit=RateLimit(60, 60))

    ending = stage.run()

    assert ending.stop is None
    assert list(range(40)) == stage.ranked()
    heard_at = next(at for at in scorer.sent_at if at > 3) + 0.3
    assert [] == [at for at in scorer.sent_at if heard_at < at < heard_at + 30]


def test_an_absurd_retry_after_costs_a_minute_not_the_night() -> None:
    """
    A hint of an hour is believed, but asked about once a minute.
    """

    def script(request: RerankRequest, attempt: int, now: float) -> Answer:
        return failure(K.THROTTLED, retry_after_s=3600.0) if 1 < now < 2 else reply(request)

    stage = Stage(groups(200), ScriptedScorer(script))

    stage.run()

    assert list(range(200)) == stage.ranked()
    assert max(stage.scorer.sent_at) < 90


def test_throttling_without_a_hint_is_asked_about_rarely() -> None:
    """
    When everything is throttled and nobody says for how long, probes come every 15 seconds.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.THROTTLED, status=429) if 1 < now < 601 else reply(request)

    stage = Stage(groups(400), ScriptedScorer(script), concurrency=8)

    ending = stage.run()

    assert ending.stop is None
    assert list(range(400)) == stage.ranked()
    assert sum(1 < at < 601 for at in stage.scorer.sent_at) <= 600 / 15 + 20
    assert max(stage.scorer.sent_at) < 640


@pytest.mark.parametrize(
    ("limit", "count", "window"),
    [
        pytest.param(RateLimit(10, 60), 25, 60.0, id="10 a minute"),
        pytest.param(RateLimit(20, 1), 400, 1.0, id="20 a second"),
        pytest.param(RateLimit(1000, 60), 2500, 60.0, id="1,000 a minute"),
        pytest.param(RateLimit(1000, 1), 4000, 1.0, id="1,000 a second"),
    ],
)
def test_no_window_holds_more_than_the_limit_and_two_percent(
    limit: RateLimit, count: int, window: float
) -> None:
    """
    However a window of the limit's length lies, it holds at most limit + max(1, 2 %); and the mean
    rate is within 3 % of the limit.
    """
    stage = Stage(
        groups(count, 1), concurrency=256, limit=limit, part_groups=10_000, scorer=ScriptedScorer()
    )

    stage.run()

    times = stage.scorer.sent_at
    assert windows_max(times, window) <= limit.count + max(1, 0.02 * limit.count)
    assert (count - 1) / (times[-1] - times[0]) >= 0.97 * limit.per_s


def test_documents_are_paced_too() -> None:
    """
    With a limit of documents, large groups leave more slowly, in order.
    """
    stage = Stage(
        groups(30, candidates=50), documents=RateLimit(600, 60), concurrency=16, part_groups=100
    )

    stage.run()

    times = stage.scorer.sent_at
    assert 29 * 50 / (times[-1] - times[0]) == pytest.approx(9.8, rel=0.05)


def taking(most: int, **told: Any) -> Script:
    """
    The script of a server that takes so many documents in a request, and refuses more with a
    failure that is as *told*.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        too_large = len(request.documents) > most
        return failure(K.BAD_GROUP, too_large=True, **told) if too_large else reply(request)

    return script


def test_a_group_that_is_too_large_is_split_and_put_together_again() -> None:
    """
    A 413 halves the slice until it fits; the scores come back to their candidates.
    """
    stage = Stage(groups(1, candidates=100), ScriptedScorer(taking(30)))

    ending = stage.run()

    assert ending.stop is None
    (row,) = stage.ledger.ranked(0, 1)
    assert len(row.scores) == 100 * 8
    assert len(stage.scorer.sent) == 1 + 2 + 4
    assert list(stage.ledger.slices()) == []


@pytest.mark.parametrize(
    ("told", "refused_max", "noted"),
    [
        pytest.param({"documents_max": 30}, 8, "kept to 30 documents from", id="with its limit"),
        pytest.param({"too_many": True}, 20, " documents from", id="for its number"),
        pytest.param({}, 20, " bytes from", id="for whatever reason"),
    ],
)
def test_what_is_too_large_is_learned_and_told_once(
    told: dict[str, Any], refused_max: int, noted: str
) -> None:
    """
    Later groups are cut to it before they are sent, in no more than twice the pieces; the summary
    says what it came to.
    """
    stage = Stage(groups(60, candidates=100), ScriptedScorer(taking(30, **told)))

    ending = stage.run()

    assert list(range(60)) == stage.ranked()
    assert len(stage.reporter.of(AttemptFailed)) <= refused_max
    assert len(stage.scorer.sent) <= 60 * 8 + refused_max
    (word,) = ending.notes
    assert noted in word
    assert 1 == len(stage.reporter.of(Noticed))


@pytest.mark.parametrize("told", [{"too_many": True}, {}])
def test_nothing_is_learned_from_one_group(told: dict[str, Any]) -> None:
    """
    One that is refused whatever its size is for its texts; the others leave whole.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        bad = request.slice.position == 0 and 0 in request.indices
        return failure(K.BAD_GROUP, too_large=True, **told) if bad else reply(request)

    stage = Stage(groups(40, candidates=20), ScriptedScorer(script))

    ending = stage.run()

    assert () == ending.notes
    assert 39 == sum(len(request.documents) == 20 for _, request in stage.scorer.sent[1:])


def test_what_may_not_be_cut_is_rejected_for_its_size() -> None:
    """
    With nobody asked where the limit is known, and with the server's words where it was not.
    """
    known = Stage(groups(2, candidates=5), documents_max=4, can_split=False)
    met = Stage(groups(2, candidates=5), ScriptedScorer(taking(4)), can_split=False)

    known.run()
    met.run()

    assert [0, 2] == [len(known.scorer.sent), len(met.scorer.sent)]
    for stage in (known, met):
        assert ["too_large"] == [kind for kind, _, _, _ in stage.ledger.reject_counts()]


def test_what_comes_home_for_a_rejected_group_is_kept() -> None:
    """
    It was paid for, and `--retry-rejects` need not ask for it again.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        bad = request.slice.start == 0
        return failure(K.BAD_GROUP, status=400) if bad else reply(request)

    scorer = ScriptedScorer(script, latency_s=lambda r: 1.0 if r.slice.start else 0.1)
    stage = Stage(groups(1, candidates=4), scorer, documents_max=2)

    stage.run()

    assert [0] == stage.ledger.rejected_positions()
    assert [(2, 4)] == [(kept.slice.start, kept.slice.stop) for kept in stage.ledger.slices()]


def refusing(position: int, *starts: int) -> Script:
    """
    The script of a server that refuses the slices of one group that begin there.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        refused = request.slice.position == position and request.slice.start in starts
        return failure(K.BAD_GROUP, status=400) if refused else reply(request)

    return script


def test_a_group_of_which_two_slices_are_refused_ends_once() -> None:
    """
    The second refusal is booked, and is no second outcome.
    """
    scorer = ScriptedScorer(refusing(1, 2, 4))
    stage = Stage(groups(6, candidates=6), scorer, documents_max=2, concurrency=8)

    ending = stage.run()

    assert ending.stop is None
    assert [1] == stage.ledger.rejected_positions()
    assert list(range(6)) == stage.endings()
    assert 2 == len(stage.reporter.of(AttemptFailed))


def test_what_is_left_of_a_refused_group_is_no_outage() -> None:
    """
    One slice of the last group is out of tries, then another is refused: the run is over.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return failure(K.BAD_GROUP if request.slice.start else K.UNKNOWN)

    slow = ScriptedScorer(script, latency_s=lambda r: 60.0 if r.slice.start else 0.1)
    stage = Stage(groups(1, candidates=4), slow, documents_max=2)

    assert stage.run().stop is None
    assert [0] == stage.endings()
    assert [] == stage.reporter.of(GateShut)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_left_of_a_refused_group_keeps_nobody_waiting(seed: int) -> None:
    """
    It filled all that may wait, and is not due for some time.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        if request.slice.position:
            return reply(request)
        return failure(K.BAD_GROUP if request.slice.start == AHEAD else K.NEVER_SENT)

    scorer = ScriptedScorer(script, latency_s=0.01)
    stage = Stage(groups(3, AHEAD + 1), scorer, concurrency=1, documents_max=1, seed=seed)

    assert stage.run().stop is None
    assert [0, 1, 2] == stage.endings()
    assert min(at for at, request in scorer.sent if request.slice.position) < 0.2


def test_what_waits_behind_a_refused_slice_of_its_group_is_not_sent() -> None:
    """
    Nor does it keep the money that was set aside for it: the others need all there is.
    """
    scorer = ScriptedScorer(refusing(1, 0))
    held = groups(3, candidates=20)
    stage = Stage(held, scorer, documents_max=2, concurrency=1, cap=20 * 10**6)

    ending = stage.run()

    assert ending.stop is None
    assert [0] == [request.slice.start for _, request in scorer.sent if request.slice.position == 1]
    assert [0, 2] == stage.ranked()
    assert stage.spent == stage.cap


def test_twenty_rejections_in_a_row_stop_the_job() -> None:
    """
    When every group is refused the job is at fault, and no more is tried.
    """
    stage = Stage(groups(400), ScriptedScorer(lambda r, a, n: failure(K.BAD_GROUP, status=400)))

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.PERSON
    assert 20 <= len(stage.ledger.rejected_positions()) <= 24


def test_another_model_in_mid_run_stops_the_job_and_is_not_written() -> None:
    """
    The first reply fixes the model; scores of another one are booked and thrown away.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        served = Served("test/model-20260101" if now > 1 else "test/model", "Test")
        return reply(request, served=served)

    stage = Stage(groups(200), ScriptedScorer(script))

    ending = stage.run()
    again = stage.run()

    assert ending.stop is not None
    assert again.stop is not None
    assert ending.stop.exit_code == Exit.PERSON
    models = {served.model for served in stage.ledger.served().values()}
    kept = {row.served for row in stage.ledger.ranked(0, 200)}
    assert len(models) == 2
    assert len(kept) == 1


def test_another_model_is_paid_for_even_if_it_names_no_price() -> None:
    """
    Who scored has worked: the call is booked at the price that we know.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        served = Served("test/other" if now > 1 else "test/model", "Test")
        return reply(request, served=served, usage=Usage())

    stage = Stage(groups(200), ScriptedScorer(script))

    stage.run()

    assert stage.spent == len(stage.scorer.sent) * 10**6


def test_the_budget_is_never_passed_and_a_raised_one_finishes() -> None:
    """
    With a cap the run stops before it; what unknown outcomes may have cost is counted.
    """

    def script(request: RerankRequest, attempt: int, _now: float) -> Answer:
        unknown = request.slice.position % 5 == 0 and attempt == 1
        return failure(K.UNKNOWN) if unknown else reply(request, usage=Usage(1.0))

    stage = Stage(groups(100), ScriptedScorer(script), concurrency=16, cap=30 * 10**6)

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.PERSON
    assert stage.spent == 30 * 10**6
    assert len(stage.scorer.sent) == 30

    stage.cap = 10**9
    assert stage.run().stop is None
    assert stage.spent == 120 * 10**6


def test_no_more_requests_are_made_than_the_output_may_make() -> None:
    """
    Over all its runs, failed ones included, but for those that never left.
    """

    def script(request: RerankRequest, attempt: int, _now: float) -> Answer:
        kind = {1: K.NEVER_SENT, 2: K.THROTTLED}.get(attempt)
        return failure(kind) if kind else reply(request)

    stage = Stage(groups(8), ScriptedScorer(script), requests_max=10)

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert "budget.requests_max does not cover another call" == ending.stop.reason
    assert "raise budget.requests_max and run again" in ending.stop.hint
    kinds = Counter(k for (k,) in stage.ledger.connection.execute("SELECT failure FROM calls"))
    assert 10 == kinds[None] + kinds["throttled"]


MIDNIGHT = 1_790_035_200.0
"""The first second of 2026-09-22, UTC."""


def money(nano: int) -> Amount:
    """
    A cap on money alone.
    """
    return Amount(nano, 2**62, 2**62)


def test_a_call_counts_for_the_day_on_which_it_leaves() -> None:
    """
    A day's cap ends the run on that day; a new one begins at midnight, and the month has both.
    """
    sent_by_day: Counter[str] = Counter()

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        sent_by_day[day_of(stage.began_at + now)] += 1
        return reply(request)

    caps = SharedCaps(money(30 * 10**6), money(35 * 10**6))
    scorer = ScriptedScorer(script, latency_s=1.0)
    drawer = Drawer(caps)
    stage = Stage(groups(100), scorer, till=drawer, limit=RateLimit(10, 1))
    stage.began_at = MIDNIGHT - 2.0

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert "budget.month_usd_max does not cover another call" in ending.stop.reason
    assert "wait until 2026-10-01 00:00 UTC" in ending.stop.hint
    first, second = (sent_by_day[day] for day in ("2026-09-21", "2026-09-22"))
    assert 0 < first < 30
    assert 35 == first + second
    tally = stage.ledger.tally()
    assert first * 10**6 == tally["2026-09-21_nano_usd"]
    assert second * 10**6 == tally["2026-09-22_nano_usd"]


def test_a_day_that_others_have_spent_stops_the_run_before_a_call() -> None:
    """
    With until when to wait.
    """
    drawer = Drawer(SharedCaps(day=money(10**6)), elsewhere={"2026-09-21": Amount(1)})
    stage = Stage(groups(4), till=drawer, began_at=MIDNIGHT - 100)

    ending = stage.run()

    assert ending.stop is not None
    assert "budget.day_usd_max does not cover another call" in ending.stop.reason
    assert "wait until 2026-09-22 00:00 UTC" in ending.stop.hint
    assert "$0.0000 of it went to other outputs" in ending.stop.reason
    assert [] == stage.scorer.sent


def test_a_clock_that_jumps_back_makes_no_day_new() -> None:
    """
    Yesterday's account is the one that it was.
    """
    jumps = iter([0.0] * 20 + [86_400.0] * 20)
    drawer = Drawer(SharedCaps(day=money(12 * 10**6)))
    stage = Stage(groups(60), till=drawer, concurrency=1)
    stage.jump = lambda: next(jumps, 0.0)

    ending = stage.run()

    assert ending.stop is not None
    assert all(held.within(money(12 * 10**6)) for held in drawer.held.values())
    assert len(stage.scorer.sent) <= 24


def test_a_shared_file_that_fails_stops_the_run_and_loses_nothing() -> None:
    """
    Nobody sends without knowing what is held; what is under way comes home.
    """

    class Broken(Drawer):
        def borrow(self, asked: Borrow, /) -> Amount | Full:
            if len(self.told) == 1:
                raise StorageError("the disk is gone")
            return super().borrow(asked)

    stage = Stage(groups(100), till=Broken(SharedCaps(day=money(10**9))))

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.STORAGE == ending.stop.exit_code
    assert 0 < len(stage.scorer.sent) == len(stage.ranked())


def test_no_more_calls_are_made_than_are_allowed() -> None:
    """
    Failed ones are calls, too; what was begun comes home, and runs share what they may do.
    """

    def script(request: RerankRequest, attempt: int, _now: float) -> Answer:
        return failure(K.UNKNOWN) if attempt == 1 else reply(request)

    stage = Stage(groups(8), ScriptedScorer(script), allowance=Allowance(10))

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert 10 == len(stage.scorer.sent)
    assert 2 <= len(stage.ranked())
    assert stage.run().stop is not None
    assert 10 == len(stage.scorer.sent)

    stage.allowance.calls_left = 6
    assert stage.run().stop is None
    assert 16 == len(stage.scorer.sent)


def test_a_run_that_needs_just_what_is_allowed_is_done() -> None:
    """
    Nothing is left that could be refused.
    """
    stage = Stage(groups(8), allowance=Allowance(8))

    assert stage.run().stop is None
    assert 0 == stage.allowance.calls_left


def test_what_may_be_spent_is_durable_before_it_is_sent() -> None:
    """
    At no moment has more been sent than the ledger durably allows.
    """
    stage = Stage(groups(100), concurrency=8, cap=10**9)
    allowed: list[int] = []

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        allowed.append(stage.ledger.meta()["authorised_nano_usd"])
        return reply(request)

    stage.scorer.script = script

    assert stage.run().stop is None
    assert len(allowed) == 100
    assert all(money >= 10**6 * sent for sent, money in enumerate(allowed, 1))


def test_a_bug_in_one_attempt_cancels_no_other() -> None:
    """
    An exception out of a scorer stops the job by value; everything under way is kept.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        if request.slice.position == 10:
            raise ZeroDivisionError
        return reply(request)

    stage = Stage(groups(60), ScriptedScorer(script, latency_s=lambda r: r.slice.position % 5 + 1))

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.BUG
    assert isinstance(ending.stop.error, ZeroDivisionError)
    assert len(stage.scorer.sent) - 1 == len(stage.ranked())


def test_a_bill_that_cannot_be_reckoned_with_is_booked_as_the_most_it_can_be() -> None:
    """
    A scorer of one's own may say anything: that call was made, and is in the ledger.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        if request.slice.position == 3:
            return reply(request, usage=Usage(cost_usd=float("inf")))
        return reply(request)

    stage = Stage(groups(20), ScriptedScorer(script), concurrency=1)

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.BUG
    assert 4 == len(stage.scorer.sent)
    assert 4 * 10**6 == stage.spent


def test_the_deadline_leaves_time_to_drain() -> None:
    """
    Sending ends early enough; a call that takes longer than the drain is left behind and booked.
    """
    stage = Stage(
        groups(500),
        ScriptedScorer(latency_s=lambda r: 500.0 if r.slice.position == 1 else 1.0),
        deadline_s=60.0,
        drain_s_max=20.0,
    )

    async def timed() -> float:
        await stage.run_here()
        return anyio.current_time()

    ended_at = run_virtually(timed)

    assert ended_at == pytest.approx(60, abs=1)
    assert max(stage.scorer.sent_at) <= 41
    left = list(stage.ledger.connection.execute("SELECT code, cost_source FROM calls"))
    assert ("left_behind", CostSource.ESTIMATED) in left
    assert len(stage.scorer.sent) == len(left)


def test_who_has_stopped_for_another_reason_leaves_by_the_deadline_too() -> None:
    """
    A key is refused while a call hangs: what came home is published, the call is left behind.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(K.FATAL, status=401) if now >= 1.0 else reply(request)

    stage = Stage(
        groups(100),
        ScriptedScorer(script, latency_s=lambda r: 500.0 if r.slice.position == 20 else 0.1),
        deadline_s=60.0,
        drain_s_max=20.0,
    )

    async def timed() -> tuple[Ending, float]:
        return await stage.run_here(), anyio.current_time()

    ending, ended_at = run_virtually(timed)

    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert ended_at <= 61
    left = stage.ledger.connection.execute("SELECT position FROM calls WHERE code = 'left_behind'")
    assert [(20,)] == left.fetchall()
    assert [(0, 8), (1, 16)] == stage.parts.published[:2]


def test_who_runs_it_in_a_thread_can_stop_it() -> None:
    """
    No signal reaches it there: it is asked once a second, and its calls come home.
    """
    stage = Stage(groups(500), ScriptedScorer(latency_s=1.5))
    stage.interrupted = lambda: len(stage.scorer.sent) >= 8

    ending = stage.run()

    assert ending.stop is not None
    assert ending.stop.exit_code == Exit.LATER
    assert len(stage.scorer.sent) == len(stage.ranked()) <= 16


def test_the_first_groups_only_then_the_rest() -> None:
    """
    A limited run does the first N and publishes the part that N lies in as far as it goes.
    """
    stage = Stage(groups(20), target=10)

    assert stage.run().stop is None
    assert list(range(10)) == stage.ranked()
    assert stage.parts.published == [(0, 8), (1, 10)]

    stage.target = None
    assert stage.run().stop is None
    assert list(range(20)) == stage.ranked()
    assert stage.parts.published == [(0, 8), (1, 10), (1, 16), (2, 20)]


def test_a_job_over_no_groups_publishes_one_empty_part() -> None:
    """
    A day without groups succeeds.
    """
    stage = Stage([])

    assert stage.run().stop is None
    assert stage.parts.published == [(0, 0)]


def test_a_failed_attempt_tells_what_comes_next() -> None:
    """
    Each failure is reported with its class and the next step, in words.
    """

    def script(request: RerankRequest, attempt: int, _now: float) -> Answer:
        return failure(K.BAD_REPLY) if attempt == 1 else reply(request)

    stage = Stage(groups(1), ScriptedScorer(script))

    stage.run()

    told = stage.reporter.of(AttemptFailed)
    assert len(told) == 1
    assert told[0].next_step.startswith("again in ")
    assert told[0].call.failure is not None
    assert K.BAD_REPLY is told[0].call.failure.kind
