"""
Scores that fall strictly for every reader, and stay what they were wherever they may.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.store.formats.trec import LARGEST, STEP_MIN, falling
from tests.laws import law


def as_float32(scores: Sequence[float]) -> list[float]:
    """
    What trec_eval holds.
    """
    return list(array("f", scores))


SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 0.5 + 1e-9, 1.0, 1.0 - 1e-8, -1.0, 2.0**-100, 1e-38, 5e-324]),
    st.floats(-1e3, 1e3),
    st.floats(allow_nan=False),
)


@law(120)
@given(st.lists(SCORES, max_size=40).map(lambda scores: sorted(scores, reverse=True)))
def test_scores_fall_for_readers_of_either_width(scores: list[float]) -> None:
    """
    As float64 and as float32, none of them infinite, also as they are read back from text.
    """
    written = [float(repr(score)) for score in falling(scores)]

    assert all(math.isfinite(score) for score in as_float32(written))
    assert all(before > after for before, after in pairwise(written))
    assert all(before > after for before, after in pairwise(as_float32(written)))


@law(100)
@given(st.lists(st.floats(-1e6, 1e6, width=32), unique=True, max_size=40))
def test_scores_without_ties_are_written_as_they_are(scores: list[float]) -> None:
    """
    Every digit of them.
    """
    ranked = sorted({abs(score) if score == 0 else score for score in scores}, reverse=True)

    assert ranked == falling(ranked)


@law(100)
@given(st.lists(st.sampled_from([0.25, 0.5, 0.75, 1.0]), max_size=60))
def test_a_tie_is_lowered_by_no_more_than_it_takes(scores: list[float]) -> None:
    """
    One step of a float32 for each score that is tied with it.
    """
    ranked = sorted(scores, reverse=True)

    differences = (score - written for score, written in zip(ranked, falling(ranked), strict=True))
    assert all(0 <= difference <= 60 * 2.0**-23 for difference in differences)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([0.1], [0.1], id="not rounded"),
        pytest.param([0.5, 0.5], [0.5, 0.49999994], id="a tie"),
        pytest.param([0.5 + 1e-9, 0.5], [0.5 + 1e-9, 0.49999994], id="a tie as float32 only"),
        pytest.param([0.5, 0.5, 0.4], [0.5, 0.49999994, 0.4], id="what follows a tie"),
        pytest.param([0.0, 0.0], [0.0, float(f"{-STEP_MIN:.9g}")], id="around zero"),
        pytest.param([math.inf, 1.0], [LARGEST, 1.0], id="too large for a float32"),
    ],
)
def test_examples(scores: list[float], expected: list[float]) -> None:
    """
    Worked out by hand.
    """
    assert expected == falling(scores)
