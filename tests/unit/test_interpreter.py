"""
The garbage collector's rhythm while a run lasts.
"""

from __future__ import annotations

import gc

import pytest

from batchrank.job.interpreter import YOUNG_MAX, rare_collections


def test_collections_are_rare_meanwhile_and_as_before_afterwards() -> None:
    """
    Whoever calls us from a program of their own gets back what they had.
    """
    before, frozen = gc.get_threshold(), gc.get_freeze_count()

    with rare_collections():
        assert YOUNG_MAX == gc.get_threshold()[0]
        assert gc.get_freeze_count() > frozen

    assert before == gc.get_threshold()
    assert gc.get_freeze_count() <= frozen


def test_a_run_that_fails_sets_it_back_too() -> None:
    """
    A bug leaves no trace in the interpreter.
    """
    before = gc.get_threshold()

    with pytest.raises(ValueError, match="a bug"), rare_collections():
        raise ValueError("a bug")

    assert before == gc.get_threshold()


def test_one_within_another_changes_nothing() -> None:
    """
    What was set apart stays so until the outer one ends: each day of a backfill is one within.
    """
    before = gc.get_threshold()
    with rare_collections():
        held = gc.get_freeze_count()
        with rare_collections():
            pass
        assert YOUNG_MAX == gc.get_threshold()[0]
        assert 0 < gc.get_freeze_count() <= held

    assert (before, 0) == (gc.get_threshold(), gc.get_freeze_count())
