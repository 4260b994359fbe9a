"""
Several routes, on virtual time: traffic moves on, comes back, and nothing is lost or paid twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import (
    Answer,
    CostSource,
    FailureKind,
    Price,
    RateLimit,
    RerankRequest,
    Served,
    Usage,
)
from batchrank.errors import Exit
from batchrank.events import AttemptFailed, GateShut, Noticed
from batchrank.policy.gate import AWAY_OUTAGE_S, AWAY_THROTTLED_S
from batchrank.policy.routing import SPENT_PROBE_S, Strategy
from batchrank.testing import Script, ScriptedScorer, always_good, failure, groups, reply
from tests.flow.stage import Stage, Way
from tests.laws import law

K = FailureKind

SECOND = Served("test/model", "Second")
OTHER = Served("test/other", "Second")


def second(request: RerankRequest, _attempt: int, _now: float) -> Answer:
    """
    The script of another way to the same model.
    """
    return reply(request, served=SECOND)


def other_model(request: RerankRequest, _attempt: int, _now: float) -> Answer:
    """
    The script of a way to another model.
    """
    return reply(request, served=OTHER)


def down(start: float, stop: float, kind: FailureKind = K.UNKNOWN, **known: Any) -> Script:
    """
    The script of a way that fails in `start <= time < stop`.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return failure(kind, **known) if start <= now < stop else reply(request)

    return script


def chain(count: int, script: Script, other: Script = second, **known: Any) -> Stage:
    """
    A job whose first way follows *script*, with another one behind it.
    """
    stage = Stage(groups(count), ScriptedScorer(script), **known)
    stage.fallbacks = (Way("second", ScriptedScorer(other)),)
    return stage


def by_route(stage: Stage, what: str) -> dict[str, int]:
    """
    What the ledger has counted of each route.
    """
    prefix = f"route.{what}."
    tally = stage.ledger.tally().items()
    return {name.removeprefix(prefix): int(n) for name, n in tally if name.startswith(prefix)}


def asked(scorer: ScriptedScorer, start: float, stop: float = float("inf")) -> int:
    """
    How often a route was asked in `start <= time < stop`.
    """
    return sum(start <= at < stop for at in scorer.sent_at)


def scored_twice(stage: Stage) -> list[tuple[int, int]]:
    """
    Slices that more than one good reply was paid for.
    """
    rows = stage.ledger.connection.execute(
        "SELECT position, start FROM calls WHERE failure IS NULL"
    )
    return [one for one, count in Counter(rows.fetchall()).items() if count > 1]


def models_of(stage: Stage) -> list[set[str]]:
    """
    For each ranked group, the models that have scored it.
    """
    who = stage.ledger.served()
    rows = stage.ledger.ranked(0, len(stage.held))
    return [{share.served.model for share in row.outcome(who).shares} for row in rows]


# --- moving on ------------------------------------------------------------------------------------


def test_a_second_route_carries_on_when_the_first_is_overloaded_and_then_without_credit() -> None:
    """
    529 for twenty seconds, then 402: every group has scores once, and both routes are counted.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        if 2 <= now < 22:
            return failure(K.THROTTLED, status=529)
        return failure(K.FATAL, status=402) if now >= 22 else reply(request)

    stage = chain(2_000, script)

    ending = stage.run()

    assert ending.stop is None
    assert list(range(2_000)) == stage.endings() == stage.ranked()
    assert [] == scored_twice(stage)
    first, other = stage.scorer, stage.fallbacks[0].scorer
    assert {"first": len(first.sent), "second": len(other.sent)} == by_route(stage, "calls")
    assert 2_000 == sum(by_route(stage, "groups").values())
    assert stage.spent == sum(by_route(stage, "cost_nano_usd").values())
    assert not asked(other, 0, 2 + AWAY_THROTTLED_S)
    assert asked(other, 2 + AWAY_THROTTLED_S, 22)
    assert asked(first, 2 + AWAY_THROTTLED_S + 0.1) <= 4
    assert ["first is given up for this run, and asked again every 10 minutes: 402: scripted"] == [
        note.message for note in stage.reporter.of(Noticed)
    ]


def test_traffic_returns_when_the_first_route_does() -> None:
    """
    While it is down it is asked by single probes; afterwards nobody takes the other way.
    """
    stage = chain(4_000, down(5, 65, status=502))

    ending = stage.run()

    assert ending.stop is None
    assert list(range(4_000)) == stage.ranked()
    first, other = stage.scorer, stage.fallbacks[0].scorer
    assert 1 <= asked(first, 5 + AWAY_OUTAGE_S + 2, 65) <= 6
    assert not asked(other, 0, 5 + AWAY_OUTAGE_S)
    back = next(at for at in first.sent_at if at >= 65)
    assert asked(first, back + 1) > 500
    assert not asked(other, back + 1)
    assert not stage.ledger.rejected_positions()


@pytest.mark.parametrize("hint_s", [None, 3.0])
def test_a_mere_throttle_is_waited_for(hint_s: float | None) -> None:
    """
    Refusals for some seconds, with a hint or without, move nobody.
    """
    stage = chain(400, down(2, 6, K.THROTTLED, status=429, retry_after_s=hint_s))

    assert stage.run().stop is None
    assert list(range(400)) == stage.ranked()
    assert [] == stage.fallbacks[0].scorer.sent


def test_whoever_asks_for_a_long_wait_is_not_waited_for() -> None:
    """
    A Retry-After of a minute moves traffic at once.
    """
    stage = chain(1_000, down(2, 40, K.THROTTLED, status=429, retry_after_s=60.0))

    assert stage.run().stop is None
    assert list(range(1_000)) == stage.ranked()
    assert asked(stage.fallbacks[0].scorer, 2, 3)


def test_a_route_whose_key_is_refused_is_never_asked_again() -> None:
    """
    What was under way there goes the other way, and a person is told.
    """
    stage = chain(100, down(1, 1e9, K.FATAL, status=401))

    ending = stage.run()

    assert ending.stop is None
    assert list(range(100)) == stage.ranked()
    assert not asked(stage.scorer, 1.2)
    assert ("first is given up for this run: 401: scripted",) == ending.notes
    assert {"goes another way"} == {one.next_step for one in stage.reporter.of(AttemptFailed)}


def test_the_job_stops_when_no_route_is_left_with_the_words_of_the_last() -> None:
    """
    First one key is refused, then the other's credit is spent.
    """
    stage = chain(400, down(1, 1e9, K.FATAL, status=401), down(5, 1e9, K.FATAL, status=402))

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert "402: scripted" == ending.stop.reason
    assert [] == stage.ledger.rejected_positions()


def test_a_credit_that_is_filled_up_brings_its_route_back() -> None:
    """
    One call in ten minutes asks; when it is answered all traffic returns.
    """
    refilled = 2 * SPENT_PROBE_S - 100
    stage = chain(4_000, down(1, refilled, K.FATAL, status=402))
    for way in (stage, stage.fallbacks[0]):
        way.scorer.latency_s = 2.0

    ending = stage.run()

    assert ending.stop is None
    first, other = stage.scorer, stage.fallbacks[0].scorer
    assert 1 == asked(first, 4, 2 * SPENT_PROBE_S)
    back = next(at for at in first.sent_at if at >= refilled)
    assert asked(first, back + 3) > 100
    assert not asked(other, back + 3)
    assert "first is back: it scores again" in ending.notes


def test_another_model_after_the_first_reply_gives_up_the_route_and_not_the_job() -> None:
    """
    Each route keeps to the model of its own first reply.
    """

    def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
        return reply(request, served=Served("test/model-20260101")) if now > 1 else reply(request)

    stage = chain(100, script)

    assert stage.run().stop is None
    assert list(range(100)) == stage.ranked()
    assert {"test/model"} == set().union(*models_of(stage))


def test_a_route_that_refuses_every_group_is_given_up_before_the_night_is_lost() -> None:
    """
    Twenty in a row are its own fault, whoever else scores meanwhile.
    """

    def wrong(_request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return failure(K.BAD_GROUP, "no such field", status=400)

    stage = chain(400, always_good, wrong, strategy=Strategy.SPREAD)

    ending = stage.run()

    assert ending.stop is None
    assert 20 <= len(stage.ledger.rejected_positions()) <= 24
    assert any("second is given up for this run: 20 groups in a row" in n for n in ending.notes)


# --- both down ------------------------------------------------------------------------------------


def test_when_all_routes_are_down_the_run_waits_and_then_leaves() -> None:
    """
    Patience counts while no route gets through; the next run carries on.
    """
    stage = chain(1_600, down(3, 1e9), down(20, 1e9), outage_s_max=300.0)

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.LATER == ending.stop.exit_code
    assert 250 <= max(stage.scorer.sent_at + stage.fallbacks[0].scorer.sent_at) <= 330
    assert [] == stage.ledger.rejected_positions()

    stage.scorer.script, stage.fallbacks[0].scorer.script = always_good, second
    assert stage.run().stop is None
    assert list(range(1_600)) == stage.ranked()


def test_a_route_that_is_down_all_night_takes_nobody_s_patience() -> None:
    """
    As long as another one gets through, nothing is over.
    """
    stage = chain(4_000, down(3, 1e9, K.NEVER_SENT), outage_s_max=30.0, concurrency=2)

    assert stage.run().stop is None
    assert list(range(4_000)) == stage.ranked()


def test_a_group_is_not_blamed_for_an_outage_of_one_route_by_what_another_one_answers() -> None:
    """
    Out of tries on a route that never answers, while another one answers everybody: that convicts
    nobody.
    """
    stage = chain(600, down(2, 60, status=500), strategy=Strategy.SPREAD)

    assert stage.run().stop is None
    assert [] == stage.ledger.rejected_positions()
    assert list(range(600)) == stage.ranked()


def test_a_poisonous_group_is_rejected_while_another_route_is_down() -> None:
    """
    Whoever is given up, or away, keeps nobody from being convicted where others are answered.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return failure(K.UNKNOWN, status=500) if request.slice.position == 200 else reply(request)

    for away in (K.NEVER_SENT, K.UNKNOWN, K.FATAL):
        stage = chain(400, down(1, 1e9, away), script)

        assert stage.run().stop is None
        assert [200] == stage.ledger.rejected_positions()


def test_a_group_that_no_route_can_score_is_rejected() -> None:
    """
    A poisonous group is asked three times in all, by whichever routes.
    """

    def script(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return failure(K.UNKNOWN, status=500) if request.slice.position == 7 else reply(request)

    stage = chain(400, script, script, strategy=Strategy.SPREAD)

    assert stage.run().stop is None
    assert [7] == stage.ledger.rejected_positions()
    sent = stage.scorer.sent + stage.fallbacks[0].scorer.sent
    assert 3 == sum(request.slice.position == 7 for _, request in sent)


# --- carrying on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("deadline_s", [27.0, 33.0, 60.0])
def test_a_run_that_ends_on_either_route_is_carried_on_by_the_next(deadline_s: float) -> None:
    """
    Nothing is asked twice, and what each route has served so far holds in the next run.
    """
    stage = chain(3_000, down(4, 20, status=502), deadline_s=deadline_s, drain_s_max=25.0)

    first = stage.run()
    assert first.stop is not None
    stage.deadline_s = None

    assert stage.run().stop is None
    assert list(range(3_000)) == stage.ranked()
    assert [] == scored_twice(stage)
    assert 3_000 == sum(by_route(stage, "groups").values())


def test_slices_are_cut_again_for_a_route_that_takes_fewer_documents() -> None:
    """
    Each slice goes by whichever route, in requests that it takes; none is paid twice.
    """
    stage = Stage(groups(40, candidates=10), ScriptedScorer(down(0, 60)), documents_max=5)
    stage.fallbacks = (Way("second", ScriptedScorer(second), documents_max=3),)

    assert stage.run().stop is None
    assert list(range(40)) == stage.ranked()
    assert [] == scored_twice(stage)
    other = stage.fallbacks[0].scorer
    assert {3, 2} == {len(request.documents) for _, request in other.sent}
    whole = [1.0 / (1 + n) for n in range(10)]
    rows = stage.ledger.ranked(0, 40)
    assert all(whole == list(row.outcome(stage.ledger.served()).scores) for row in rows)


# --- spread ---------------------------------------------------------------------------------------


def test_spread_reaches_the_sum_of_the_limits() -> None:
    """
    30 a second and 10 a second are 40, each within its own.
    """
    stage = Stage(groups(2_000), limit=RateLimit(30, 1), concurrency=32, strategy=Strategy.SPREAD)
    slow = Way("second", ScriptedScorer(second), limit=RateLimit(10, 1), concurrency=32)
    stage.fallbacks = (slow,)

    assert stage.run().stop is None
    first, other = stage.scorer, slow.scorer
    took_s = max(first.sent_at[-1], other.sent_at[-1])
    assert 2_000 / took_s >= 0.97 * 40
    assert asked(first, 10, 40) <= 30 * 30 + 2
    assert asked(other, 10, 40) <= 10 * 30 + 2
    assert list(range(2_000)) == stage.ranked()


def test_spread_without_limits_fills_both_routes_slots() -> None:
    """
    What holds back then is how many may be under way.
    """
    stage = Stage(groups(200), concurrency=3, strategy=Strategy.SPREAD)
    stage.fallbacks = (Way("second", ScriptedScorer(second), concurrency=5),)

    ending = stage.run()

    assert ending.stop is None
    assert (3, 5) == (stage.scorer.in_flight_max, stage.fallbacks[0].scorer.in_flight_max)
    assert 8 == ending.in_flight_max


def test_spread_goes_on_with_what_is_left() -> None:
    """
    One route is down for a while: the other one takes what it can, and both share again.
    """
    stage = chain(4_000, down(2, 40, status=503), strategy=Strategy.SPREAD)

    assert stage.run().stop is None
    assert list(range(4_000)) == stage.ranked()
    assert asked(stage.scorer, 45) > 100


# --- money ----------------------------------------------------------------------------------------


def test_the_cap_is_over_all_routes_at_each_one_s_own_price() -> None:
    """
    What is set aside is the most on the way that is taken, and what is spent never passes the cap.
    """

    def unbilled(request: RerankRequest, _attempt: int, _now: float) -> Answer:
        return reply(request, served=SECOND, usage=Usage())

    stage = chain(100, down(1, 1e9, K.FATAL, status=401), unbilled, cap=60_000_000)
    stage.fallbacks[0].price = Price(usd_per_search_unit=0.002)

    ending = stage.run()

    assert ending.stop is not None
    assert "cost_usd_max" in ending.stop.reason
    assert 58_000_000 < stage.spent <= 60_000_000
    costs = stage.ledger.connection.execute(
        "SELECT DISTINCT name, cost_nano_usd, cost_source FROM calls"
        " JOIN routes ON routes.id = route WHERE failure IS NULL ORDER BY name"
    ).fetchall()
    estimated = CostSource.ESTIMATED.value
    assert [("first", 1_000_000, "reported"), ("second", 2_000_000, estimated)] == costs


# --- other models ---------------------------------------------------------------------------------


def mixed(count: int, script: Script, other: Script = other_model, **known: Any) -> Stage:
    """
    A job of groups with five slices, whose other way is to another model.
    """
    stage = Stage(groups(count, candidates=5), ScriptedScorer(script), documents_max=1, **known)
    stage.fallbacks = (Way("second", ScriptedScorer(other), kind="other", documents_max=1),)
    return stage


def test_no_group_has_scores_of_two_models() -> None:
    """
    The first route's model fails in the middle of groups; these wait for it, others go on.
    """
    stage = mixed(400, down(0.85, 40, status=502))

    assert stage.run().stop is None
    assert list(range(400)) == stage.ranked()
    assert {("test/model",), ("test/other",)} == {tuple(one) for one in models_of(stage)}


@pytest.mark.parametrize("status", [401, 402])
def test_a_group_begun_by_a_model_waits_for_it_in_the_next_run_too(status: int) -> None:
    """
    Its durable slices decide; where that model's route is given up the run says so in the end.
    """
    stage = mixed(40, down(0.85, 1e9, K.FATAL, status=status))
    ending = stage.run()
    begun = 40 - len(stage.ranked())
    assert ending.stop is not None
    assert Exit.PERSON == ending.stop.exit_code
    assert f"{status}: " in ending.stop.reason
    assert 1 <= begun <= 4

    stage.scorer.script = always_good
    assert stage.run().stop is None
    assert list(range(40)) == stage.ranked()
    assert [1] * 40 == [len(one) for one in models_of(stage)]
    assert [] == scored_twice(stage)


def test_a_group_whose_model_is_away_for_too_long_is_left_for_another_run() -> None:
    """
    The others are done by then.
    """
    stage = mixed(40, down(0.85, 1e9, K.NEVER_SENT), outage_s_max=60.0)

    ending = stage.run()

    assert ending.stop is not None
    assert Exit.LATER == ending.stop.exit_code
    assert 36 <= len(stage.ranked()) < 40


# --- laws -----------------------------------------------------------------------------------------


KINDS = st.lists(
    st.sampled_from(
        [None, None, None, K.THROTTLED, K.UNKNOWN, K.BAD_REPLY, K.NEVER_SENT, K.BAD_GROUP]
    ),
    min_size=1,
    max_size=30,
)


@law(30)
@given(
    seed=st.integers(0, 10_000),
    failing=st.lists(KINDS, min_size=3, max_size=3),
    fatal_at=st.lists(st.floats(0.0, 20.0) | st.none(), min_size=3, max_size=3),
    strategy=st.sampled_from(Strategy),
    kinds=st.sampled_from([("model", "model"), ("other", "model"), ("other", "other")]),
)
def test_every_group_ends_once_and_has_one_model_whatever_fails_on_whatever_route(
    seed: int,
    failing: Sequence[Sequence[FailureKind | None]],
    fatal_at: Sequence[float | None],
    strategy: Strategy,
    kinds: tuple[str, str],
) -> None:
    """
    Three routes, to one model or two, each failing in its own way and perhaps given up: no group
    ends twice, none has scores of two models, no slice is paid for twice.
    """
    calls = iter(range(10**9))

    def script_of(place: int, model: str) -> Script:
        def script(request: RerankRequest, _attempt: int, now: float) -> Answer:
            dead_at = fatal_at[place]
            if dead_at is not None and now >= dead_at:
                return failure(K.FATAL, status=402 if place else 401)
            kind = failing[place][next(calls) % len(failing[place])]
            served = Served(model, f"p{place}")
            return reply(request, served=served) if kind is None else failure(kind)

        return script

    scorers = [ScriptedScorer(script_of(n, k)) for n, k in enumerate(("model", *kinds))]
    stage = Stage(groups(20, candidates=3), scorers[0], seed=seed, strategy=strategy)
    stage.documents_max, stage.outage_s_max, stage.throttled_s_max = 2, 300.0, 300.0
    stage.fallbacks = [
        Way(f"way {n}", scorer, kind=kind, documents_max=n)
        for n, (scorer, kind) in enumerate(zip(scorers[1:], kinds, strict=True), 1)
    ]

    for _ in range(4):
        if stage.run().stop is None:
            break

    endings = stage.endings()
    assert sorted(set(endings)) == endings
    assert all(len(models) == 1 for models in models_of(stage))
    assert [] == scored_twice(stage)
    assert len(stage.reporter.of(GateShut)) < 1_000
