"""
Limits that headers tell: every form that is in use, and everything that cannot be meant.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchrank.domain import Advertised
from batchrank.providers.advertised import (
    COUNT_MAX,
    FAMILIES,
    FIELD_CHARACTERS_MAX,
    RESET_S_MAX,
    advertised,
    until_reset_s,
)
from tests.laws import law

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
NOW_S = NOW.timestamp()
DATE = format_datetime(NOW, usegmt=True)

DAILY = 1000 / 86_400


def told(headers: dict[str, str]) -> tuple[float | None, float | None, float | None] | None:
    """
    What headers tell at noon: rate, remaining, reset.
    """
    found = advertised(headers, NOW_S)
    return None if found is None else (found.per_s, found.remaining, found.reset_s)


# --- structured fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "per_s"),
    [
        pytest.param('"default";q=100;w=10', 10.0, id="one"),
        pytest.param("default;q=100;w=10", 10.0, id="named by a token"),
        pytest.param('"a";w=10;q=100', 10.0, id="in another order"),
        pytest.param('"a"; q=100; w=10', 10.0, id="with spaces"),
        pytest.param('"burst";q=100;w=60,"daily";q=1000;w=86400', DAILY, id="the tightest"),
        pytest.param('"daily";q=1000;w=86400 , "burst";q=100;w=60', DAILY, id="wherever it is"),
        pytest.param('"a,b;q=1;w=1";q=100;w=10', 10.0, id="a comma in a name"),
        pytest.param('"a\\",";q=100;w=10', 10.0, id="a quotation mark in a name"),
        pytest.param('"a";q=100;w=10;pk=:aGk=:', 10.0, id="for one partition"),
        pytest.param('"a";q=100;w=10;qu="requests"', 10.0, id="of requests"),
        pytest.param('"a";q=100;w=10,"b";q=1;w=10;qu="content-bytes"', 10.0, id="not of bytes"),
        pytest.param('"a";q=1;w=10;qu="concurrent-requests"', None, id="nor of what is under way"),
        pytest.param("100;w=60, 20;w=1", 100 / 60, id="as older drafts write it"),
        pytest.param('"a";q=100', None, id="no window"),
        pytest.param('"a";w=10', None, id="no quota"),
    ],
)
def test_the_tightest_quota_of_requests_is_the_rate(field: str, per_s: float | None) -> None:
    """
    A quota over its window; what is counted in other units is another limit.
    """
    assert (per_s and (per_s, None, None)) == told({"ratelimit-policy": field})


@pytest.mark.parametrize(
    "member",
    [
        '"a";q=-1;w=10',
        '"a";q=0;w=10',
        '"a";q=1;w=0',
        '"a";q=1;w=-10',
        '"a";q=1;w=1e9',
        '"a";q=1;w=999999999999999',
        '"a";q=999999999999999;w=1',
        '"a";q=9999999999999999;w=1',
        '"a";q=0.001;w=10',
        '"a";q=1;w=10.5',
        '"a";q="1";w=10',
        '"a";q=nan;w=10',
        '"a";q=inf;w=10',
        '"a";q;w=10',
        '"a";q=1;w=10;',
        '"a";Q=1;W=10',
        '("a";q=1;w=10)',
        '((("a")));q=1;w=10',
        "'a';q=1;w=10",
        '"a;q=1;w=10',
        '"ä";q=1;w=10',
        '"\ud800";q=1;w=10',
        "?1;w=10",
        "-5;w=10",
        "1.5;w=10",
        "@1790000000;w=10",
        "",
        ";;;",
    ],
)
def test_a_member_that_is_malformed_costs_none_of_the_others(member: str) -> None:
    """
    It is left out alone, wherever it stands, and tells nothing by itself.
    """
    assert told({"ratelimit-policy": member}) is None
    assert (DAILY, None, None) == told({"ratelimit-policy": f'"day";q=1000;w=86400, {member}'})
    if member.count('"') % 2 == 0:  # a name that is never closed swallows what comes after it
        assert (DAILY, None, None) == told({"ratelimit-policy": f'{member}, "day";q=1000;w=86400'})


@pytest.mark.parametrize(
    ("field", "remaining", "reset_s"),
    [
        pytest.param('"default";r=50;t=30', 50, 30, id="one"),
        pytest.param('"a";r=50;t=30,"b";r=10;t=1', 50, 30, id="fewer a second"),
        pytest.param('"a";r=0;t=5,"b";r=1;t=3600', 0, 5, id="none left"),
        pytest.param('"a";r=0;t=5,"b";r=0;t=3600', 0, 3600, id="none left, and for longer"),
        pytest.param('"a";r=5;t=0,"b";r=9;t=10', 9, 10, id="the other window ends now"),
        pytest.param('"a";r=5', 5, None, id="nobody knows until when"),
        pytest.param('"a";r=5,"b";r=100;t=1', 100, 1, id="until when is known of another"),
        pytest.param('"a";r=-1;t=5,"b";r=7;t=5', 7, 5, id="a negative rest"),
        pytest.param('"a";r=3;t=-5', 3, None, id="a negative time"),
        pytest.param('"a";r=3;t=99999999', 3, None, id="years"),
    ],
)
def test_what_is_scarcest_is_what_is_left(
    field: str, remaining: float, reset_s: float | None
) -> None:
    """
    The lowest rate until a window ends; a spent quota before any other.
    """
    assert (None, remaining, reset_s) == told({"ratelimit": field})


def test_what_is_left_of_bytes_is_not_what_is_left_of_requests() -> None:
    """
    `RateLimit` names no unit: its policy does.
    """
    policy = '"bytes";q=9;w=1;qu="content-bytes","calls";q=100;w=10'

    headers = {"ratelimit-policy": policy, "ratelimit": '"bytes";r=0;t=99,"calls";r=8;t=4'}

    assert (10.0, 8, 4) == told(headers)


# --- three headers --------------------------------------------------------------------------------


def three(family: int, limit: str, remaining: str, reset: str) -> dict[str, str]:
    """
    The headers of one family; those that are "" are not there.
    """
    values = zip(FAMILIES[family], (limit, remaining, reset), strict=True)
    return {name: value for name, value in values if value}


@pytest.mark.parametrize("family", [0, 1, 2])
@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "expected"),
    [
        pytest.param("100", "", "", None, id="a quota without a window"),
        pytest.param("100", "50", "30", (None, 50, 30), id="no rate follows from what is left"),
        pytest.param("100, 100;w=10", "50", "5", (10, 50, 5), id="with its window"),
        pytest.param("20, 20;w=1, 600;w=60", "5", "1", (10, 5, 1), id="with two windows"),
        pytest.param("", "0", "1.5", (None, 0, 1.5), id="a fraction of a second"),
        pytest.param("", "0", f"{NOW_S + 90:.0f}", (None, 0, 90), id="epoch seconds"),
        pytest.param(
            "", "0", f"{NOW_S * 1000 + 1500:.0f}", (None, 0, 1.5), id="epoch milliseconds"
        ),
        pytest.param("", "3", f"{NOW_S - 90:.0f}", (None, 3, 0), id="a window that has ended"),
        pytest.param("", "3", "6m0s", (None, 3, 360), id="minutes"),
        pytest.param("", "3", "1h2m3.5s", (None, 3, 3723.5), id="hours, minutes and a fraction"),
        pytest.param("", "3", "20ms", (None, 3, 0.02), id="milliseconds"),
        pytest.param("", "3", "1d", (None, 3, 86_400), id="a day"),
        pytest.param("", "3", "", (None, 3, None), id="no reset"),
        pytest.param("", "", "7", (None, None, 7), id="only a reset"),
        pytest.param("", "3", f"{NOW_S - 40 * 86_400:.0f}", (None, 3, None), id="long past"),
        pytest.param("", "3", f"{NOW_S * 1e6:.0f}", (None, 3, None), id="epoch microseconds"),
        pytest.param("", "3", "9999999", (None, 3, None), id="a hundred days"),
        pytest.param("", "3", "400d", (None, 3, None), id="four hundred days"),
        pytest.param("", "3", "soon", (None, 3, None), id="a word"),
        pytest.param("", "3", "-5", (None, 3, None), id="a negative reset"),
        pytest.param("", "3", "nan", (None, 3, None), id="a reset that is no number"),
        pytest.param("", "3", "inf", (None, 3, None), id="a reset that never comes"),
        pytest.param("", "-1", "5", (None, None, 5), id="a negative rest"),
        pytest.param("", "1e300", "5", (None, None, 5), id="a rest beyond all counts"),
        pytest.param("1e300, 1e300;w=1", "", "", None, id="a quota beyond all counts"),
        pytest.param("0, 0;w=1", "", "", None, id="a quota of nothing"),
        pytest.param("100;w=0", "", "", None, id="a window of nothing"),
        pytest.param("words", "words", "words", None, id="words"),
    ],
)
def test_three_headers_tell_what_is_left_until_when(
    family: int,
    limit: str,
    remaining: str,
    reset: str,
    expected: tuple[float | None, float | None, float | None] | None,
) -> None:
    """
    A reset is a time of day or a duration, by its size; a rate needs a window.
    """
    found = told(three(family, limit, remaining, reset))

    assert found == (expected and pytest.approx(expected, abs=1e-3))


def test_a_time_of_day_is_measured_from_the_replys_own_date() -> None:
    """
    Our clock may be wrong: it counts where there is no other, and without any nothing is told.
    """
    headers = three(1, "", "0", f"{NOW_S + 30:.0f}")
    wrong_s = NOW_S - 3600

    assert Advertised(None, 0, 30) == advertised(headers | {"date": DATE}, wrong_s)
    assert Advertised(None, 0, 30) == advertised(headers | {"date": DATE}, None)
    assert Advertised(None, 0, 3630) == advertised(headers | {"date": "nonsense"}, wrong_s)
    assert Advertised(None, 0, None) == advertised(headers, None)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "per_s"),
    [
        pytest.param("60", "59", "1s", 1.0, id="sixty a minute"),
        pytest.param("10000", "9999", "6ms", 10_000 / 60, id="ten thousand a minute"),
        pytest.param("14400", "14370", "2m59.56s", 14_400 / 86_400, id="so many a day"),
        pytest.param("60", "0", "1m0s", 1.0, id="spent"),
        pytest.param("60", "60", "0s", None, id="untouched"),
        pytest.param("60", "61", "1s", None, id="more than all"),
        pytest.param("60", "50", "59s", None, id="a window that ends at once"),
        pytest.param("60", "59", "1", None, id="a number without a unit"),
        pytest.param("60", "", "1s", None, id="nobody knows what is missing"),
        pytest.param("0", "0", "1s", None, id="a quota of nothing"),
    ],
)
def test_a_quota_that_fills_up_tells_its_rate(
    limit: str, remaining: str, reset: str, per_s: float | None
) -> None:
    """
    If the whole would take a second, a minute, an hour or a day.
    """
    found = told(three(2, limit, remaining, reset))

    assert per_s == (found and found[0])
    assert told(three(1, limit, remaining, reset)) != found or per_s is None


def test_all_headers_together_tell_the_tightest_and_the_scarcest() -> None:
    """
    A gateway adds its own to those of the server behind it.
    """
    headers = {
        "ratelimit-policy": '"a";q=100;w=10',
        "ratelimit": '"a";r=90;t=9',
        **three(0, "5, 5;w=1", "5", "1"),
        **three(1, "20", "1", "10"),
    }

    assert (5.0, 1, 10) == told(headers)


# --- whatever comes -------------------------------------------------------------------------------


def test_most_replies_tell_nothing() -> None:
    """
    Headers that only look alike are none of ours.
    """
    assert advertised({}, NOW_S) is None
    assert (
        advertised({"date": DATE, "x-ratelimit-limit-tokens": "5", "retry-after": "9"}, 0) is None
    )


@pytest.mark.parametrize("name", sorted({"ratelimit-policy", "ratelimit", *sum(FAMILIES, ())}))
@pytest.mark.parametrize("text", ['"a";q=1;w=1;r=1;t=1,', "9", '"', "(", "1s", '"\\'])
def test_a_header_of_ten_megabytes_is_not_read(name: str, text: str) -> None:
    """
    No limit needs more than four thousand characters.
    """
    assert told({name: text * (10_000_000 // len(text))}) is None


def test_a_header_of_four_thousand_characters_is_read() -> None:
    """
    With all its members.
    """
    few = '"a";q=2;w=1,' * (FIELD_CHARACTERS_MAX // 12 - 1)

    assert (0.5, None, None) == told({"ratelimit-policy": f'{few}"b";q=1;w=2'})


PIECES = st.sampled_from(
    [
        *('"a"', "b", ";", ",", "=", "q=", "w=", "r=", "t=", ";qu=", "(", ")", " ", "1s", "6m0s"),
        *("0", "1", "60", "-1", ".5", "1e300", "nan", "inf", "999999999999999"),
        *("1790000000", "1790000000000"),
    ]
)
VALUES = (
    st.lists(PIECES, max_size=12).map("".join)
    | st.text(max_size=30)
    | st.floats().map(str)
    | st.integers().map(str)
)
NAMES = ["date", "ratelimit-policy", "ratelimit", *(name for names in FAMILIES for name in names)]


@law(300)
@given(
    st.dictionaries(st.sampled_from(NAMES), VALUES),
    st.none() | st.floats(-1e12, 1e12),
)
@example({"ratelimit": '"a";r=1;t=0'}, None)
@example({"x-ratelimit-remaining": "1e-320", "x-ratelimit-reset": "1e-320"}, None)
@example(three(2, "1e12", "1e-300", "0.000000000000001ns"), 0.0)
def test_nothing_makes_it_raise_or_tell_what_is_no_number(
    headers: dict[str, str], now_epoch_s: float | None
) -> None:
    """
    Whatever a server says, every number is finite, not negative, and one that a limit can have.
    """
    found = advertised(headers, now_epoch_s)

    numbers = [] if found is None else [found.per_s, found.remaining, found.reset_s]
    assert found is None or numbers != [None, None, None]
    assert all(n is None or (math.isfinite(n) and 0 <= n <= COUNT_MAX) for n in numbers)
    assert found is None or found.per_s is None or found.per_s > 0
    assert found is None or found.reset_s is None or found.reset_s <= RESET_S_MAX


# --- a quota that is spent ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(None, None, id="nothing told"),
        pytest.param(Advertised(1.0, 0.0, 30.0), 30.0, id="spent"),
        pytest.param(Advertised(1.0, 0.5, 30.0), 30.0, id="not a whole request left"),
        pytest.param(Advertised(1.0, 1.0, 30.0), None, id="one left"),
        pytest.param(Advertised(1.0, 0.0, None), None, id="spent, and nobody knows until when"),
        pytest.param(Advertised(1.0, 0.0, 0.0), None, id="spent until now"),
        pytest.param(Advertised(1.0, None, 30.0), None, id="nobody knows whether it is spent"),
    ],
)
def test_a_spent_quota_comes_back_at_its_reset(
    limit: Advertised | None, expected: float | None
) -> None:
    """
    That is how long to wait where no Retry-After says so.
    """
    assert expected == until_reset_s(limit)


def test_dates_are_those_of_a_clock_that_goes_on() -> None:
    """
    Half a minute later, half a minute less is left.
    """
    headers = three(1, "", "0", f"{NOW_S + 90:.0f}")
    later = format_datetime(NOW + timedelta(seconds=30), usegmt=True)

    assert (None, 0, 60) == told(headers | {"date": later})
