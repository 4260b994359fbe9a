"""
The estimate of tokens: cautious at first, soon right, and never led astray.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.policy.billing import Sizes, tokens_most
from batchrank.policy.tokens import (
    BYTES_PER_TOKEN_FIRST,
    BYTES_PER_TOKEN_MAX,
    BYTES_PER_TOKEN_MIN,
    FRAME_TOKENS_MAX,
    TokenGauge,
)
from tests.laws import law

SIZES = Sizes(30, (270, 570))
"""Nine hundred bytes: the query's thirty count twice."""

sizes = st.builds(
    Sizes, st.integers(0, 5000), st.lists(st.integers(0, 50_000), max_size=20).map(tuple)
)


def taught(size: float, replies: int = 60) -> TokenGauge:
    """
    A gauge that has seen so many replies of a provider with such tokens.
    """
    gauge = TokenGauge()
    for _ in range(replies):
        gauge.correct(SIZES, 0.0, round(tokens_most(SIZES) / size))
    return gauge


def bytes_per_token(gauge: TokenGauge) -> float:
    """
    The ratio that it estimates with now.
    """
    return tokens_most(SIZES) / gauge.estimate(SIZES)


def test_the_first_estimate_is_cautious() -> None:
    """
    Three bytes a token, the query once for every document.
    """
    assert 300.0 == pytest.approx(TokenGauge().estimate(SIZES))
    assert BYTES_PER_TOKEN_FIRST == pytest.approx(bytes_per_token(TokenGauge()))


@pytest.mark.parametrize(
    ("document_bytes", "expected"),
    [((), 0.0), ((0,), 1.0), ((0, 0, 0), 3.0), ((1, 1), 2.0)],
)
def test_a_document_is_a_token_at_least(document_bytes: tuple[int, ...], expected: float) -> None:
    """
    An image has no bytes that count, and is not free for that.
    """
    assert expected == TokenGauge().estimate(Sizes(0, document_bytes))


@pytest.mark.parametrize("size", [1.0, 2.5, 4.0, 4.7, 12.0, 30.0])
def test_it_learns_what_a_token_is(size: float) -> None:
    """
    After some dozen replies the estimate is what the next reply says.
    """
    gauge = taught(size)

    assert size == pytest.approx(bytes_per_token(gauge), rel=0.02)
    assert 900 / size == pytest.approx(gauge.estimate(SIZES), rel=0.02)


def test_it_follows_when_texts_change() -> None:
    """
    English first, then Chinese.
    """
    gauge = taught(4.0)
    for _ in range(60):
        gauge.correct(SIZES, 0.0, 600)

    assert 1.5 == pytest.approx(bytes_per_token(gauge), rel=0.02)


def test_one_reply_changes_little() -> None:
    """
    A tenth of the way.
    """
    gauge = TokenGauge()

    gauge.correct(SIZES, 300.0, 900)

    assert 300 + 0.1 * 600 == pytest.approx(gauge.estimate(SIZES))


@pytest.mark.parametrize(
    ("told", "left"),
    [
        pytest.param(250, -50.0, id="less than was booked"),
        pytest.param(300, 0.0, id="just that"),
        pytest.param(420, 120.0, id="more"),
        pytest.param(None, 0.0, id="not told"),
        pytest.param(0, 0.0, id="tokens are not counted"),
        pytest.param(-5, 0.0, id="nonsense"),
        pytest.param(10**9, 900 + 2 * FRAME_TOKENS_MAX - 300.0, id="more than can be"),
    ],
)
def test_what_the_estimate_was_wrong_by_is_booked_late(told: int | None, left: float) -> None:
    """
    It may be negative: then the next ones leave sooner.
    """
    assert left == pytest.approx(TokenGauge().correct(SIZES, 300.0, told))


@pytest.mark.parametrize("told", [None, 0, -1])
def test_who_says_nothing_teaches_nothing(told: int | None) -> None:
    """
    Providers that bill by search units count no tokens.
    """
    gauge = taught(4.0)
    before = bytes_per_token(gauge)

    gauge.correct(SIZES, 0.0, told)

    assert before == bytes_per_token(gauge)


@law(60)
@given(st.lists(st.tuples(sizes, st.none() | st.integers(-(10**18), 10**18)), max_size=30))
def test_nothing_that_is_told_leads_it_astray(replies: list[tuple[Sizes, int | None]]) -> None:
    """
    Every estimate stays within what a token can be, every correction within what a call can be.
    """
    gauge = TokenGauge()
    for asked, told in replies:
        booked = gauge.estimate(asked)
        left = gauge.correct(asked, booked, told)

        most = tokens_most(asked) + FRAME_TOKENS_MAX * max(1, len(asked.document_bytes))
        assert math.isfinite(booked)
        assert booked >= 0
        assert -booked <= left <= most - booked + 1e-6 * most
        low, high = BYTES_PER_TOKEN_MIN, BYTES_PER_TOKEN_MAX
        assert low * (1 - 1e-9) <= bytes_per_token(gauge) <= high * (1 + 1e-9)


@law(60)
@given(st.lists(st.tuples(sizes, st.integers(1, 10_000)), min_size=1, max_size=30))
def test_all_that_is_booked_is_all_that_was_counted(replies: list[tuple[Sizes, int]]) -> None:
    """
    However wrong the estimates are: with the corrections the sum is what the replies said.
    """
    gauge = TokenGauge()
    believed = [
        min(told, tokens_most(asked) + FRAME_TOKENS_MAX * max(1, len(asked.document_bytes)))
        for asked, told in replies
    ]
    booked = 0.0
    for asked, told in replies:
        estimated = gauge.estimate(asked)
        booked += estimated + gauge.correct(asked, estimated, told)

    assert sum(believed) == pytest.approx(booked)
