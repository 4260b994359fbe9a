"""
Servers that nobody looked at when the constants were chosen, held to the bounds of their kind.

Owns this table only. What breaks a bound here is told, not tuned: a model that constants are fitted
to moves to the other tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from batchrank.engine.waiting import ROUNDING_S, TOGETHER_S
from tests.sim.clients import Timers
from tests.sim.oracle import BUCKET, LATE, SHARED, UNHINTED, WINDOW_60S, Bounds, Model
from tests.sim.servers import Hint, Making, Outage, Rates, bucket, fixed, heavy, sliding

MARK = "held out: "
"""What the names of these models begin with."""

ENGINE = Timers(TOGETHER_S, ROUNDING_S)
"""The engine's requests leave some together, where the other models' leave one by one."""

WANDERING = (1.0, 1.3, 1.0, 0.7, 1.0, 1.3, 0.7, 1.0)
"""What a limit moves to, every three minutes."""

WANDERS_S = 180.0

OFTEN = frozenset({"bucket 45/s", "fixed 60 s of 600", "sliding 60 s of 600"})
"""Played with other latencies and hints, too."""

FAST = frozenset({"bucket 330/s", "bucket 2500/s", "bucket 100/s of one", "fixed 1 s of 40"})
"""Played with the engine's timers, too."""


def _steady() -> Iterator[Model]:
    """
    Other rates, bursts, windows and latencies than those that are published.
    """
    kinds: tuple[tuple[str, Making, float, int, Bounds], ...] = (
        ("bucket 7/s", bucket(), 7.0, 1200, BUCKET),
        ("bucket 45/s", bucket(), 45.0, 600, BUCKET),
        ("bucket 330/s", bucket(), 330.0, 400, BUCKET),
        ("bucket 2500/s", bucket(), 2500.0, 240, BUCKET),
        ("bucket 100/s of one", bucket(0.01), 100.0, 600, BUCKET),
        ("bucket 100/s of 200 ms", bucket(0.2), 100.0, 600, BUCKET),
        ("bucket 45/s of 5 s", bucket(5), 45.0, 900, BUCKET),
        ("bucket 20/s of 30 s", bucket(30), 20.0, 1800, BUCKET),
        ("fixed 1 s of 40", fixed(1), 40.0, 900, BUCKET),
        ("sliding 5 s of 200", sliding(5), 40.0, 900, BUCKET),
        ("sliding 10 s of 400", sliding(10), 40.0, 1200, BUCKET),
        ("fixed 10 s of 400", fixed(10), 40.0, 1200, BUCKET),
        ("fixed 60 s of 600", fixed(60), 10.0, 1800, WINDOW_60S),
        ("fixed 60 s of 5000", fixed(60), 5000 / 60, 1800, WINDOW_60S),
        ("sliding 60 s of 600", sliding(60), 10.0, 1800, WINDOW_60S),
    )
    for name, making, per_s, seconds, bounds in kinds:
        model = Model(name, making, ((0.0, per_s),), seconds, bounds=bounds)
        yield model
        if name in OFTEN:
            yield replace(model, name=f"{name}, slow tails", latency=heavy)


def _moving() -> Iterator[Model]:
    """
    Limits that wander, outages, and a key that three clients use.
    """
    for name, making, per_s in (("bucket 80/s", bucket(), 80.0), ("sliding 1 s", sliding(1), 20.0)):
        rates = tuple((WANDERS_S * i, share * per_s) for i, share in enumerate(WANDERING))
        name, seconds = f"{name} +-30 %", int(WANDERS_S * len(rates))
        yield Model(name, making, rates, seconds, bounds=_followed(rates))
    for start, stop, status in ((150, 180, None), (150, 750, 503)):
        name = f"outage of {stop - start} s ({status or 'refused'})"
        outage, back = Outage(start, stop, status), Bounds(0.0, 0.0, within_s={float(stop): 90.0})
        yield Model(name, bucket(), ((0.0, 45.0),), stop + 150, outage=outage, bounds=back)
    for apart_s in (0.0, 120.0):
        name, begin_at = f"three clients, {apart_s:.0f} s apart", (0.0, apart_s, 2 * apart_s)
        yield Model(name, bucket(), ((0.0, 75.0),), 1500, begin_at=begin_at, bounds=SHARED)


def _followed(rates: Rates) -> Bounds:
    """
    As other limits that move: nine tenths of a lower one within 15 s, of a higher one within 90 s.
    """
    within_s = {
        at: 15.0 if per_s < before else 90.0 for (_, before), (at, per_s) in pairwise(rates)
    }
    return Bounds(0.0, 0.0, 0.01, within_s=within_s)


def _told(model: Model, hint: Hint) -> Model:
    """
    The same with refusals that tell in this way when to come back.
    """
    bounds = model.bounds
    if hint is Hint.ABSENT:
        bounds = replace(bounds, throttled=LATE, larger=max(bounds.larger, UNHINTED.larger))
    return replace(model, name=f"{MARK}{model.name}, hint {hint.value}", hint=hint, bounds=bounds)


def _held_out() -> Iterator[Model]:
    steady, moving = tuple(_steady()), tuple(_moving())
    for hint in (Hint.SECONDS, Hint.ABSENT):
        yield from (_told(model, hint) for model in (*steady, *moving))
    for model in steady:
        if model.name in OFTEN:
            yield _told(model, Hint.JITTERED)
        if model.name in FAST:
            together = replace(model, name=f"{model.name}, together", timers=ENGINE)
            yield _told(together, Hint.SECONDS)


HELD_OUT = tuple(_held_out())
