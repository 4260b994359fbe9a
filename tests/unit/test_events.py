"""
Events and whoever listens: names that are stable, a chorus that no listener can stop.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import threading

import pytest

from batchrank import events
from batchrank.events import Chorus, Event, GateOpened, ReporterFailed, Silence, SuccessWritten
from batchrank.testing import RecordingReporter

KINDS = [
    kind
    for _, kind in inspect.getmembers(events, inspect.isclass)
    if issubclass(kind, Event) and kind is not Event
]


class Breaking:
    """
    A listener that raises at every event, and counts them.
    """

    def __init__(self) -> None:
        self.heard = 0

    def report(self, event: Event, /) -> None:
        """
        Raise.
        """
        self.heard += 1
        raise ValueError("out of paper")


class SameAsAll(Breaking):
    """
    A listener that claims to be equal to everybody.
    """

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment] # whoever equals all has no hash


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in KINDS])
def test_every_event_has_a_stable_name_and_is_frozen(kind: type[Event]) -> None:
    """
    Names are `noun.verb_past`, fields cannot be changed by a listener.
    """
    assert re.fullmatch(r"[a-z]+\.[a-z_]+", kind.name)
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined] # dataclass's own mark
    assert all(field.name != "name" for field in dataclasses.fields(kind))


def test_no_two_events_share_a_name() -> None:
    """
    Who filters logs by name gets one kind of event.
    """
    names = [kind.name for kind in KINDS]

    assert sorted(set(names)) == sorted(names)


def test_silence_hears_everything_and_says_nothing() -> None:
    """
    The reporter that does nothing raises nothing either.
    """
    Silence().report(GateOpened())


def test_everybody_in_a_chorus_hears_everything_in_order() -> None:
    """
    Several reporters are told the same.
    """
    one, other = RecordingReporter(), RecordingReporter()
    chorus = Chorus([one, other])

    chorus.report(GateOpened())
    chorus.report(SuccessWritten())

    assert [GateOpened(), SuccessWritten()] == one.events == other.events


def test_a_listener_that_fails_is_reported_once_and_left_out() -> None:
    """
    The others hear that it failed, whatever order they stand in, and hear everything else.
    """
    before, broken, after = RecordingReporter(), Breaking(), RecordingReporter()
    chorus = Chorus([before, broken, after])

    chorus.report(GateOpened())
    chorus.report(GateOpened())

    failed = ReporterFailed("Breaking", "ValueError('out of paper')")
    assert [GateOpened(), failed, GateOpened()] == before.events
    assert [failed, GateOpened(), GateOpened()] == after.events
    assert 1 == broken.heard


@pytest.mark.parametrize("broken", [1, 2, 5], ids=["one", "two", "all of five"])
def test_any_number_of_failing_listeners_stops_nobody(broken: int) -> None:
    """
    Listeners that fail over the news that another one failed are left out as well.
    """
    held = [Breaking() for _ in range(broken)]
    sound = RecordingReporter()
    chorus = Chorus([*held, sound])

    chorus.report(GateOpened())
    chorus.report(GateOpened())

    assert 2 == len(sound.of(GateOpened))
    assert broken == len(sound.of(ReporterFailed))
    assert broken <= sum(listener.heard for listener in held) <= 2 * broken


def test_who_fails_is_told_by_identity_not_by_equality() -> None:
    """
    A listener that equals all others takes none of them along when it leaves.
    """
    sound = RecordingReporter()
    chorus = Chorus([sound, SameAsAll()])

    chorus.report(GateOpened())
    chorus.report(GateOpened())

    assert 2 == len(sound.of(GateOpened))
    assert 1 == len(sound.of(ReporterFailed))


def test_two_threads_may_find_the_same_listener_broken() -> None:
    """
    The event loop and the publishing thread report at once; neither is hurt.
    """
    both = threading.Barrier(2)

    class BreakingTogether:
        def report(self, event: Event, /) -> None:
            both.wait(5)
            raise ValueError("at once")

    chorus = Chorus([BreakingTogether(), sound := RecordingReporter()])
    hurt: list[Exception] = []

    def tell() -> None:
        try:
            chorus.report(GateOpened())
        except Exception as error:  # noqa: BLE001 - whatever it is, the test is to show it
            hurt.append(error)

    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    assert [] == hurt
    assert 2 == len(sound.of(GateOpened))
