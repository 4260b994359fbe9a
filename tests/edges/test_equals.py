"""
Equal groups: found by digest, and one's outcome made another's, on real DuckDB and SQLite.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import UNSCORED, Outcome, Positions, Ranked, Rejected, RejectKind, Served
from batchrank.job.equals import equals_of
from batchrank.job.reusing import ended_in
from batchrank.policy.digest import digest_of
from batchrank.store import equals as equals_
from batchrank.store.equals import copies
from batchrank.store.ledger import Ledger, Records
from batchrank.store.reuse import Comparison, Wanted, comparing
from tests.edges.ledgers import BY, Held, begun, filled, ranked
from tests.laws import law

MEMORY = 100_000_000
OTHER = Served("v/m", None)


def digest(what: int) -> bytes:
    """
    The digest of a question.
    """
    return digest_of(b"", b"%d" % what)


@contextmanager
def compared(
    waiting: Sequence[tuple[int, int]], ended: Sequence[tuple[int, int, bool]]
) -> Iterator[Comparison]:
    """
    A comparison of groups, as (position, question), with those that ended, some with scores.
    """
    wanted = Wanted()
    for position, what in waiting:
        wanted.add(position, digest(what), 1, 1, position)
    with tempfile.TemporaryDirectory() as folder, comparing(Path(folder) / "x", MEMORY) as it:
        it.want(wanted)
        it.ended((position, digest(what), scored) for position, what, scored in ended)
        it.match()
        yield it


@law(25)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["open", "rejected", "scored"]))))
def test_each_group_follows_the_first_of_its_equals_or_one_with_scores(
    groups: list[tuple[int, str]],
) -> None:
    """
    Whoever leads follows nobody; nobody follows a group that asks something else.
    """
    waiting = [(p, what) for p, (what, state) in enumerate(groups) if state == "open"]
    ended = [(p, what, state == "scored") for p, (what, state) in enumerate(groups)
             if state != "open"]  # fmt: skip

    with compared(waiting, ended) as comparison:
        count = comparison.match_equal()
        found = {position: leader for position, leader, _ in comparison.equals()}

    expected = {}
    for position, what in waiting:
        equal = [p for p, (other, _) in enumerate(groups) if other == what]
        scored = [p for p in equal if groups[p][1] == "scored"]
        leader = min(scored or equal)
        if leader != position:
            expected[position] = leader
    assert expected == found
    assert len(expected) == count


def test_what_was_cut_is_told_of_the_group_itself() -> None:
    """
    Two texts may be the same only because one of them was cut.
    """
    with compared([(3, 0), (5, 0)], []) as comparison:
        comparison.match_equal()
        assert [(5, 3, 5)] == list(comparison.equals())


def test_what_was_asked_about_before_leads_and_what_was_flawed_does_not() -> None:
    """
    By the texts that were asked about; a flaw is a group's own, a refusal is of what it asks.
    """
    ledger = begun(None)
    refused = Rejected(1, "q1", RejectKind.BAD_GROUP, "no")
    flawed = Rejected(2, "q2", RejectKind.FLAWED, "no match")
    filled(ledger, Held([1] * 8), [ranked(0, (0.5,)), refused, flawed, ranked(6, (0.5,))])
    asked = {p: digest_of(b"who", b"%016d" % p) for p in (0, 1, 6)}

    found = list(ended_in(ledger, ledger.done(8), b"who"))

    assert [(0, asked[0], True), (1, asked[1], False), (6, asked[6], True)] == found


# --- handed on ------------------------------------------------------------------------------------


def made(ledger: Ledger, leaders: Sequence[int], *wanted: int) -> list[Outcome]:
    """
    All copies.
    """
    return [o for some in copies(ledger, leaders, Positions(24, wanted)) for o in some]


def test_scores_are_handed_on_as_they_are() -> None:
    """
    To the last bit and with whoever gave them; what is not wanted is left out.
    """
    ledger = begun(None)
    scores = (0.1, UNSCORED, 1e-300, -0.0)
    filled(ledger, Held([4] * 8), [ranked(1, scores, (2, BY), (4, OTHER)), ranked(2, (0.5,))])
    ledger.put_equals([(4, 1, 0), (5, 1, 3), (6, 2, 0), (7, 1, 0)])

    first, second, third = made(ledger, (1, 2, 3), 5, 6, 7)

    shares = ranked(0, scores, (2, BY), (4, OTHER)).shares
    assert repr(Ranked(5, scores, shares, 3)) == repr(first)
    assert repr(Ranked(7, scores, shares)) == repr(second)
    assert ranked(6, (0.5,)) == third


def test_a_rejection_is_handed_on_with_ids_of_its_own() -> None:
    """
    And says that nobody was asked.
    """
    ledger = begun(None)
    refused = Rejected(1, "q1", RejectKind.BAD_GROUP, "no", 400, "code", 2)
    filled(ledger, Held([4] * 8), [refused])
    ledger.put_equals([(4, 1, 0), (7, 1, 0)])

    told = "no (told of an equal group, at position 1)"
    assert [
        Rejected(4, "q4", RejectKind.BAD_GROUP, told, 400, "code", 0),
        Rejected(7, "q7", RejectKind.BAD_GROUP, told, 400, "code", 0),
    ] == made(ledger, [1], 4, 7)


@law(20)
@given(st.data())
def test_what_a_run_has_not_handed_on_the_next_one_does(data: st.DataObject) -> None:
    """
    Whichever of the outcomes were durable: each group has one or waits for its leader, once.
    """
    leaders = data.draw(st.lists(st.integers(-1, 7), min_size=8, max_size=24))
    leaders = [
        lead if 0 <= lead < p and leaders[lead] < 0 else -1 for p, lead in enumerate(leaders)
    ]
    over = data.draw(st.sets(st.integers(0, len(leaders) - 1)))
    stop = data.draw(st.integers(1, len(leaders)))
    ledger, total = begun(None), len(leaders)
    ledger.put_equals((p, lead, 0) for p, lead in enumerate(leaders) if lead >= 0)
    ledger.commit(Records(outcomes=[ranked(p, (float(p),)) for p in over]))
    done = ledger.done(total)

    waiting = equals_of(ledger, done, stop)

    followers = {p for p, lead in enumerate(leaders[:stop]) if lead >= 0 and p not in over}
    copied = {p for p in followers if leaders[p] in over}
    assert over | copied == {p for p in range(total) if p in done}
    assert {row.position for row in ledger.ranked(0, total)} == over | copied
    assert all(p in over or o == float(leaders[p]) for p, o in scores_in(ledger, total).items())
    assert followers - copied == {p for p in range(total) if p in waiting.followers}
    assert {leaders[p] for p in followers - copied} <= {
        p for p in range(total) if p in waiting.leaders
    }
    assert len(copied) == ledger.tally().get("equal", 0)


def scores_in(ledger: Ledger, total: int) -> dict[int, float]:
    """
    The one score of each group.
    """
    found = {}
    for row in ledger.ranked(0, total):
        (found[row.position],) = memoryview(row.scores).cast("d")
    return found


def test_a_group_that_very_many_follow_is_handed_on_some_at_a_time() -> None:
    """
    So that no commit and no list is as long as the source.
    """
    ledger, count = begun(None), 2 * equals_.TOGETHER + 7
    ledger.put_equals((p, 0, 0) for p in range(1, count + 1))
    ledger.commit(Records(outcomes=[ranked(0, (0.5,))]))
    everybody = Positions(count + 1)
    everybody.add_range(0, count + 1)

    pages = [[o.position for o in page] for page in copies(ledger, [0], everybody)]

    assert [equals_.TOGETHER, equals_.TOGETHER, 7] == list(map(len, pages))
    assert list(range(1, count + 1)) == [position for page in pages for position in page]
