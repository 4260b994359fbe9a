"""
What a controller must reach against each server: the models, the figures of a run, the bounds.

Owns the table of models, and how a run is measured: from the first HOLD on, against the hidden
limit. A run is a function of model and seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from statistics import median

from batchrank.policy.control import Adaptive, Known
from tests.sim.clients import PUNCTUAL, Client, Diary, Timers, UnderWay, run
from tests.sim.servers import (
    Hint,
    Latency,
    Making,
    Outage,
    Rates,
    Server,
    bucket,
    even,
    fixed,
    sliding,
)

Search = Callable[[Known], Adaptive]

NINE_TENTHS = 0.9
SMOOTHED_S = 10


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What a model's runs must reach: median and 5th percentile of the utilisation, the share of 429s,
    the seconds from each step (by its time) to nine tenths of the limit, and the larger share of
    any two clients.
    """

    median: float = 0.97
    fifth: float = 0.93
    throttled: float = 0.005
    within_s: dict[float, float] = field(default_factory=dict)
    larger: float = 1.0


@dataclass(frozen=True, slots=True)
class Model:
    """
    A server, its clients and for how long they send. *begin_at*: when each client does.
    """

    name: str
    making: Making
    rates: Rates
    seconds: int
    hint: Hint = Hint.SECONDS
    outage: Outage | None = None
    noise: float = 0.0
    learned_per_s: float | None = None
    begin_at: tuple[float, ...] = (0.0,)
    latency: Latency = even
    timers: Timers = PUNCTUAL
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True, slots=True)
class Figures:
    """
    What came of one run.
    """

    utilisation: float
    throttled: float
    within_s: dict[float, float]
    larger: float
    through_shut_gate: int


def play(model: Model, seed: int, search: Search = Adaptive) -> Figures:
    """
    One run.
    """
    chance = Random(f"{model.name} {seed}")
    server = Server(
        model.making,
        model.rates,
        chance,
        hint=model.hint,
        outage=model.outage,
        latency=model.latency,
        noise=model.noise,
    )
    known = Known(learned_per_s=model.learned_per_s, concurrency_max=2048)
    under_way = UnderWay()
    clients = []
    for begins_at in model.begin_at:
        client = Client(search(known), server, under_way, chance, model.seconds, model.timers)
        client.wakes_at = begins_at
        clients.append(client)
    run(clients, under_way, model.seconds)
    return _figures(model, server, [client.diary for client in clients])


def _figures(model: Model, server: Server, diaries: Sequence[Diary]) -> Figures:
    held_at = max(d.hold_at if d.hold_at is not None else inf for d in diaries)
    start, stop = int(min(held_at + 1, model.seconds - 1)), model.seconds
    sent = sum(sum(d.sent[start:stop]) for d in diaries)
    refused = sum(sum(d.throttled[start:stop]) for d in diaries)
    accepted = [sum(d.accepted[start:stop]) for d in diaries]
    late = sorted(sum(d.accepted[stop // 2 : stop]) for d in diaries)
    extremes = (late[0], late[-1]) if len(late) > 1 else (late[0],)
    return Figures(
        utilisation=sum(accepted) / server.allowed(start, stop),
        throttled=refused / max(1, sent),
        within_s={at: _reached_s(at, server, diaries, stop) for at in model.bounds.within_s},
        larger=extremes[-1] / max(1, sum(extremes)),
        through_shut_gate=sum(d.through_shut_gate for d in diaries),
    )


def _reached_s(at: float, server: Server, diaries: Sequence[Diary], stop: int) -> float:
    """
    How long after *at* ten seconds began in which nine tenths of the limit were accepted.
    """
    enough = NINE_TENTHS * SMOOTHED_S * server.limit_at(at)
    for start in range(int(at), stop - SMOOTHED_S):
        if sum(sum(d.accepted[start : start + SMOOTHED_S]) for d in diaries) >= enough:
            return start - at
    return inf


# --- of many runs ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    The figures of a model's runs, and what of them is out of bounds.
    """

    median: float
    fifth: float
    throttled: float
    within_s: dict[float, float]
    larger: float
    broken: tuple[str, ...]


def judged(model: Model, runs: Sequence[Figures]) -> Verdict:
    """
    Hold the runs against the model's bounds: 429s by their median, times and shares by the 95th
    percentile.
    """
    used = sorted(r.utilisation for r in runs)
    middle, fifth = median(used), _at(0.05, used)
    throttled = median(r.throttled for r in runs)
    larger = _at(0.95, sorted(r.larger for r in runs))
    within_s = {at: _at(0.95, sorted(r.within_s[at] for r in runs)) for at in model.bounds.within_s}
    bounds = model.bounds
    checks = {
        f"median utilisation {middle:.3f} < {bounds.median}": middle < bounds.median,
        f"5th percentile {fifth:.3f} < {bounds.fifth}": fifth < bounds.fifth,
        f"429s {throttled:.4f} > {bounds.throttled}": throttled > bounds.throttled,
        f"larger share {larger:.2f} > {bounds.larger}": larger > bounds.larger,
        "somebody sent through a shut gate": any(r.through_shut_gate for r in runs),
    }
    for at, most in bounds.within_s.items():
        checks[f"{within_s[at]:.0f} s after {at:.0f} > {most:.0f} s"] = within_s[at] > most
    broken = tuple(words for words, is_broken in checks.items() if is_broken)
    return Verdict(middle, fifth, throttled, within_s, larger, broken)


def _at(share: float, values: Sequence[float]) -> float:
    return values[round(share * (len(values) - 1))]


# --- the models -----------------------------------------------------------------------------------

LATE = 0.015
"""The share of 429s without a usable Retry-After: nobody says when to come back."""

BUCKET = Bounds()
WINDOW_60S = Bounds(0.93, 0.88)
ABSURD = Bounds(0.90, 0.85, LATE)
"""A hint of a day costs a minute, once."""

STEPS = Bounds(0.0, 0.0, 0.01, within_s={60.0: 15.0, 120.0: 90.0})
BACK = Bounds(0.0, 0.0, within_s={320.0: 90.0})
SHARED = Bounds(0.90, 0.90, larger=0.6)
UNHINTED = Bounds(0.90, 0.90, LATE, larger=0.7)
"""Without hints whoever comes later takes ten to twenty minutes to have as much."""


def _unhinted(bounds: Bounds) -> Bounds:
    return replace(bounds, throttled=LATE)


def _in(seconds: float) -> Bounds:
    return Bounds(within_s={0.0: seconds})


def _steps(per_s: float) -> Rates:
    return ((0.0, 3 * per_s), (60.0, 2 * per_s), (120.0, 4 * per_s))


def _at_rate(per_s: float) -> Rates:
    return ((0.0, per_s),)


SHORT = (
    Model("bucket 20/s", bucket(), _at_rate(20), 150),
    Model(
        "bucket 20/s, no hint", bucket(), _at_rate(20), 150, Hint.ABSENT, bounds=_unhinted(BUCKET)
    ),
    Model("bucket 100/s", bucket(), _at_rate(100), 100, bounds=_in(30)),
    Model("bucket 400/s", bucket(), _at_rate(400), 25, learned_per_s=400),
    Model("fixed 1 s of 12", fixed(1), _at_rate(12), 900),
    Model("sliding 1 s of 12", sliding(1), _at_rate(12), 400),
    Model("fixed 60 s of 300", fixed(60), _at_rate(5), 600, bounds=WINDOW_60S),
    Model("sliding 60 s of 300", sliding(60), _at_rate(5), 800, bounds=WINDOW_60S),
    Model(
        "fixed 60 s of 300, no hint",
        fixed(60),
        _at_rate(5),
        1200,
        Hint.ABSENT,
        bounds=_unhinted(WINDOW_60S),
    ),
    Model(
        "sliding 60 s of 300, no hint",
        sliding(60),
        _at_rate(5),
        1500,
        Hint.ABSENT,
        bounds=_unhinted(WINDOW_60S),
    ),
    Model("bucket 20/s, absurd hints", bucket(), _at_rate(20), 200, Hint.ABSURD, bounds=ABSURD),
    Model("bucket 30, 20, 40/s", bucket(), _steps(10), 240, bounds=STEPS),
    Model("outage of 2 min", bucket(), _at_rate(12), 420, outage=Outage(200, 320), bounds=BACK),
    Model("two clients at 24/s", bucket(), _at_rate(24), 700, begin_at=(0.0, 0.0), bounds=SHARED),
)
"""Small rates and short times: what a fast test can afford."""


def _steady(hint: Hint) -> Iterator[Model]:
    """
    The servers with one limit, and a client that is told this way when to come back.
    """
    kinds = (
        ("bucket 20/s", bucket(), 20.0, 600, BUCKET),
        ("bucket 100/s", bucket(), 100.0, 600, _in(30)),
        ("bucket 100/s of 50 ms", bucket(0.05), 100.0, 600, BUCKET),
        ("bucket 1000/s", bucket(), 1000.0, 240, _in(120)),
        ("fixed 1 s of 100", fixed(1), 100.0, 600, BUCKET),
        ("sliding 1 s of 100", sliding(1), 100.0, 600, BUCKET),
        ("fixed 60 s of 300", fixed(60), 5.0, 1800, WINDOW_60S),
        ("fixed 60 s of 1000", fixed(60), 1000 / 60, 1800, WINDOW_60S),
        ("sliding 60 s of 300", sliding(60), 5.0, 1800, WINDOW_60S),
        ("sliding 60 s of 1000", sliding(60), 1000 / 60, 1800, WINDOW_60S),
    )
    for name, making, per_s, seconds, bounds in kinds:
        if hint is not Hint.SECONDS:
            bounds = _unhinted(bounds)
        yield Model(
            f"{name}, hint {hint.value}", making, _at_rate(per_s), seconds, hint, bounds=bounds
        )


def _moving(hint: Hint) -> Iterator[Model]:
    """
    Limits that move, outages, and a key that two clients use.
    """
    say = f", hint {hint.value}"
    yield Model("bucket 300, 200, 400/s" + say, bucket(), _steps(100), 240, hint, bounds=STEPS)
    for status in (None, 503):
        outage, name = Outage(200, 320, status), f"outage ({status or 'refused'})"
        yield Model(name + say, bucket(), _at_rate(100), 420, hint, outage, bounds=BACK)
    for at in (0.0, 120.0):
        name = f"two clients, {at:.0f} s apart" + say
        bounds = SHARED if hint is Hint.SECONDS else UNHINTED
        yield Model(name, bucket(), _at_rate(50), 1500, hint, begin_at=(0.0, at), bounds=bounds)


LONG = (
    *_steady(Hint.SECONDS),
    *_steady(Hint.ABSENT),
    Model("bucket 100/s, hint absurd", bucket(), _at_rate(100), 900, Hint.ABSURD, bounds=ABSURD),
    Model(
        "fixed 60 s of 1000, hint absurd",
        fixed(60),
        _at_rate(1000 / 60),
        1800,
        Hint.ABSURD,
        bounds=ABSURD,
    ),
    *_moving(Hint.SECONDS),
    *_moving(Hint.ABSENT),
)
"""The sizes that are published."""

DOUBLING = Model(
    "bucket 100, 200/s",
    bucket(),
    ((0.0, 100.0), (300.0, 200.0)),
    600,
    bounds=Bounds(0.0, 0.0, within_s={300.0: inf}),
)
"""Where the rules of growth differ: a limit that doubles."""
