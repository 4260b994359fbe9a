from __future__ import annotations

from contextlib import suppress
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Price, RateLimit
from batchrank.errors import JobError
from batchrank.rehearsal.dials import (
    WHERE,
    Dials,
    Fixed,
    Latency,
    LogNormal,
    RetryAfter,
    Uniform,
    turned,
)
from batchrank.rehearsal.faults import Fault, FaultRule
from batchrank.rehearsal.limits import LimitDial, LimitKind
from batchrank.rehearsal.replies import UsageTold

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0", Fixed(0.0), id="none"),
        pytest.param("0.15", Fixed(0.15), id="fixed"),
        pytest.param("0.1..0.3", Uniform(0.1, 0.3), id="between two"),
        pytest.param("lognormal:0.15,0.6", LogNormal(0.15, 0.6), id="median and 95th percentile"),
    ],
)
def test_latencies(text: str, expected: Latency) -> None:
    """
    A latency is written in seconds, in three forms.
    """
    assert expected == turned(Dials(), {"latency": text}).latency


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("1000/min", LimitDial(RateLimit(1000, 60)), id="a minute"),
        pytest.param("100/s", LimitDial(RateLimit(100, 1)), id="a second"),
        pytest.param("50/10s", LimitDial(RateLimit(50, 10)), id="ten seconds"),
        pytest.param("50/0.2s", LimitDial(RateLimit(50, 0.2)), id="part of a second"),
        pytest.param(
            "1e+06/6e+01s", LimitDial(RateLimit(1_000_000, 60)), id="as machines write it"
        ),
        pytest.param(
            "1e-05/6e-01s", LimitDial(RateLimit(1, 0.6 / 1e-05)), id="as machines write little"
        ),
        pytest.param("2.5/s", LimitDial(RateLimit(3, 1.2)), id="a fraction keeps its rate"),
        pytest.param("0.5/s", LimitDial(RateLimit(1, 2)), id="less than one"),
        pytest.param("9/hour", LimitDial(RateLimit(9, 3600)), id="an hour"),
        pytest.param("fixed:9/day", LimitDial(RateLimit(9, 86_400), LimitKind.FIXED), id="fixed"),
        pytest.param("sliding:100/s", LimitDial(RateLimit(100, 1)), id="sliding is the usual"),
        pytest.param(
            "bucket:100/s,5", LimitDial(RateLimit(100, 1), LimitKind.BUCKET, 5), id="bucket"
        ),
    ],
)
def test_limits(text: str, expected: LimitDial) -> None:
    """
    A limit is a count over a period, of one of three kinds.
    """
    assert expected == turned(Dials(), {"limit": text}).limit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("429:0.01", FaultRule(Fault.THROTTLED, odds=0.01), id="by chance"),
        pytest.param(
            "529@17,40", FaultRule(Fault.OVERLOADED, calls=((17, 17), (40, 40))), id="by number"
        ),
        pytest.param(
            "503@100..200,900..",
            FaultRule(Fault.UNAVAILABLE, calls=((100, 200), (900, inf))),
            id="by spans",
        ),
        pytest.param("400=a: b", FaultRule(Fault.BAD_REQUEST, containing="a: b"), id="by query"),
        pytest.param("error-in-200", FaultRule(Fault.ERROR_IN_200, odds=1.0), id="always"),
    ],
)
def test_faults(text: str, expected: FaultRule) -> None:
    """
    A fault names itself, and which calls meet it.
    """
    assert (expected,) == turned(Dials(), {"faults": text}).faults


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0.002/unit", Price(0.002, None, "", WHERE), id="a search unit"),
        pytest.param("0.05/mtok", Price(None, 0.05, "", WHERE), id="a million tokens"),
        pytest.param("1e-07/unit", Price(1e-07, None, "", WHERE), id="as machines write it"),
        pytest.param("0/unit", Price(0.0, None, "", WHERE), id="nothing"),
    ],
)
def test_prices(text: str, expected: Price) -> None:
    """
    A price is in US dollars for a search unit, or for a million tokens.
    """
    assert expected == turned(Dials(), {"price": text}).price


@pytest.mark.parametrize("kind", Fault)
def test_every_fault_can_be_asked_for(kind: Fault) -> None:
    """
    The name of a fault is what `--fault` takes.
    """
    assert (FaultRule(kind, odds=0.5),) == turned(Dials(), {"faults": f"{kind}:0.5"}).faults


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("latency", "soon", ["'soon'", "seconds: 0.15"], id="not a number"),
        pytest.param("latency", "-1", ["'-1'", "at least 0"], id="a negative latency"),
        pytest.param("latency", "0.3..0.1", ["write 0.1..0.3"], id="a span that runs backwards"),
        pytest.param(
            "latency", "lognormal:0.6,0.1", ["median first"], id="a median above its percentile"
        ),
        pytest.param("latency", "nan", ["expected a number"], id="not a real number"),
        pytest.param("limit", "1000", ["write it as 1000/min"], id="a limit without a period"),
        pytest.param("limit", "5/fortnight", ["expected a limit"], id="an unknown period"),
        pytest.param("latency", "lognormal:1", ["median,p95"], id="half a log-normal"),
        pytest.param("limit", "0/s", ["leave it out"], id="a limit of nothing"),
        pytest.param("limit", "1.2.3/s", ["expected a number"], id="a count with two points"),
        pytest.param("limit", "5/0s", ["over no time"], id="a limit over no time"),
        pytest.param("limit", "slidng:5/s", ["did you mean sliding?"], id="a misspelt kind"),
        pytest.param("limit", "5/s,2", ["only a bucket", "bucket:100/s,10"], id="a stray burst"),
        pytest.param("faults", "528", ["no fault '528'", "did you mean"], id="an unknown fault"),
        pytest.param("faults", "zzz", ["known are", "wrong-echo"], id="nothing like a fault"),
        pytest.param("faults", "429:2", ["from 0 to 1"], id="odds above 1"),
        pytest.param("faults", "429@0", ["numbers from 1"], id="call 0"),
        pytest.param("faults", "429@9..3", ["numbers from 1"], id="calls that run backwards"),
        pytest.param("faults", "429@", ["numbers from 1"], id="no calls"),
        pytest.param("faults", "400=", ["write 400 for every call"], id="an empty text"),
        pytest.param("faults", [{}], ["expected a text"], id="a fault that is a table"),
        pytest.param("price", "0.002", ["expected a price", "0.002/unit"], id="a bare price"),
        pytest.param("price", "-1/unit", ["expected a price"], id="a price below nothing"),
        pytest.param("price", "1e9/unit", ["from 0 to 1e+06"], id="a price nobody asks"),
        pytest.param("price", "0.1/token", ["0.05/mtok"], id="a price for something else"),
        pytest.param("price", {}, ["expected a text"], id="a price that is a table"),
        pytest.param("retry_after", "minutes", ["seconds, date"], id="an unknown hint"),
        pytest.param("usage", True, ["expected a text"], id="a flag for a choice"),
        pytest.param("concurrency_max", 0, ["at least 1"], id="no concurrency"),
        pytest.param("concurrency_max", 2.5, ["whole number"], id="half a call"),
        pytest.param("models", [1], ["texts with commas"], id="a model that is a number"),
        pytest.param(
            "latncy", "1", ["no such dial", "did you mean latency?"], id="a misspelt dial"
        ),
    ],
)
def test_what_cannot_be_read_is_told_with_a_remedy(
    name: str, value: object, words: list[str]
) -> None:
    """
    A wrong dial is refused with its name, what is wrong and what to write.
    """
    with pytest.raises(JobError) as caught:
        turned(Dials(), {name: value})

    assert [name] == [problem.key for problem in caught.value.problems]
    assert [] == [word for word in words if word not in str(caught.value)]


def test_all_problems_are_told_together() -> None:
    """
    Every wrong dial is named at once, and nothing is turned.
    """
    with pytest.raises(JobError) as caught:
        turned(Dials(), {"latency": "x", "seed": 3, "limit": "y", "faults": ["z"]})

    assert ["latency", "limit", "faults"] == [problem.key for problem in caught.value.problems]


def test_a_wrong_key_is_not_repeated() -> None:
    """
    What is wrong about keys is told without them, and dials show none.
    """
    with pytest.raises(JobError) as caught:
        turned(Dials(), {"keys": ["sk-secret", 7]})

    assert "sk-secret" not in str(caught.value)
    assert "sk-secret" not in repr(turned(Dials(), {"keys": "sk-secret"}))


def test_dials_are_turned_one_by_one_and_back() -> None:
    """
    What is not named stays as it is; None is what it is unturned.
    """
    dials = turned(
        Dials(),
        {
            "seed": "7",
            "limit": "10/s",
            "retry_after": "date",
            "usage": "no-cost",
            "faults": ["429:0.5", "drop@3"],
            "models": "a/b, c/d",
            "credit_usd": 0.5,
        },
    )

    assert (
        Dials(
            seed=7,
            limit=LimitDial(RateLimit(10, 1)),
            retry_after=RetryAfter.DATE,
            usage=UsageTold.NO_COST,
            faults=(FaultRule(Fault.THROTTLED, 0.5), FaultRule(Fault.DROP, calls=((3, 3),))),
            models=frozenset({"a/b", "c/d"}),
            credit_usd=0.5,
        )
        == dials
    )
    assert Dials(seed=7) == turned(
        dials, dict.fromkeys(("limit", "retry_after", "usage", "faults", "models", "credit_usd"))
    )


@given(
    st.dictionaries(
        st.sampled_from([*Dials.__dataclass_fields__, "limt"]), JSONS, min_size=1, max_size=3
    )
)
def test_whatever_comes_is_turned_or_refused(changes: dict[str, object]) -> None:
    """
    No value that JSON can hold makes anything but dials or a `JobError`.
    """
    try:
        dials = turned(Dials(), changes)
    except JobError as error:
        told = {problem.key for problem in error.problems}
    else:
        told = set()

        assert dials == turned(dials, {})
    assert told <= changes.keys()


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """
    No text makes the readers of the command line raise anything but a `JobError`.
    """
    for name in ("latency", "limit", "faults", "price"):
        with suppress(JobError):
            assert turned(Dials(), {name: text}) == turned(Dials(), {name: text})


@given(st.floats(0, 1, exclude_max=True))
def test_latencies_grow_with_their_chance(chance: float) -> None:
    """
    Every latency is a distribution: half of a log-normal one is below its median, 95 % below p95.
    """
    uniform, log_normal = Uniform(0.1, 0.3), LogNormal(0.15, 0.6)

    assert 0.1 <= uniform.at(chance) <= 0.3
    assert Fixed(0.2).at(chance) == 0.2
    assert (chance <= 0.5) == (log_normal.at(chance) <= 0.15 + 1e-9)
    assert (chance <= 0.95) == (log_normal.at(chance) <= 0.6 + 1e-9)
