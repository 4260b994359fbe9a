"""
What a vendor tells for nothing: whatever it says, reading it raises nothing and refuses little.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import Price
from batchrank.providers import VENDORS
from batchrank.providers.base import HttpReply, Options, Settings
from batchrank.providers.checks import LISTING, OPEN_LISTING, Check
from batchrank.providers.presets.vllm import VllmOptions
from batchrank.providers.told import NAMES_MAX, Told, questions, together, told
from tests.laws import law

CHECKS = [
    pytest.param(check, id=f"{name}{check.path}")
    for name, vendor in VENDORS.items()
    for check in vendor.checks
]
ASKED = Settings("m", "https://x.test", None, Options())
PRICE = Price(usd_per_million_tokens=0.02)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["m", "rerank", "0.1", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59+00:00"])
)
WORDS = ("data", "id", "model_id", "model_type", "error", "limit_remaining", "expires_at", "name")
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=8,
)


def heard(check: Check, body: Any, status: int = 200) -> Told:
    """
    What *body* says to somebody who asks for "m".
    """
    return told(check, HttpReply(status, {}, json.dumps(body).encode()), ASKED, PRICE, 1e9)


@pytest.mark.parametrize("check", CHECKS)
def test_reading_raises_nothing(check: Check) -> None:
    """
    Whatever is JSON, and whatever is not; and it is told that nothing could be learned.
    """

    @law(100)
    @given(VALUES, st.sampled_from([200, 204, 301, 400, 401, 403, 404, 429, 500, 599]))
    def holds(body: Any, status: int) -> None:
        answer = heard(check, body, status)
        assert answer != Told() or status == 200
        assert together([answer], "m").documents_max is None or answer.documents_max is not None

    holds()
    for raw in (b"", b"\xff", b"[" * 5000, b"{}x", b"<html>"):
        assert told(check, HttpReply(200, {}, raw), ASKED, PRICE, 0.0).trouble


@law(200)
@given(st.sampled_from([VENDORS["openrouter"], VENDORS["vllm"]]), st.integers(402, 599))
def test_no_other_status_is_a_no(vendor: Any, status: int) -> None:
    """
    But for a 403 of the key: out of reach, overloaded, or laid out otherwise stops nobody.
    """
    for check in vendor.checks:
        refused = heard(check, {"error": {"message": "x"}}, status).refused
        assert (refused != "") is (status == 403 and check.key is not None)


def test_where_a_job_names_another_path_nothing_is_asked() -> None:
    """
    Where such a server tells of itself is not known.
    """
    asked = [
        questions([LISTING], Settings("m", "https://x.test", None, VllmOptions(path=path)))
        for path in (None, "/rerank", "")
    ]

    assert [1, 0, 0] == list(map(len, asked))


def test_many_names_are_not_all_told() -> None:
    """
    A refusal is to be read by a person.
    """
    body = {"data": [{"id": f"model-{n}"} for n in range(NAMES_MAX + 5)]}
    refused = together([heard(LISTING, body)], "m").refused

    assert refused.startswith("m is not there; there are model-0, model-1,")
    assert refused.endswith(f"model-{NAMES_MAX - 1} and 5 more")


def test_a_list_that_may_be_incomplete_refuses_nothing() -> None:
    """
    It is told, and the first call finds out.
    """
    body = {"data": [{"id": "other"}]}
    answers = [heard(check, body) for check in (LISTING, OPEN_LISTING)]

    assert [False, None] == [answer.served for answer in answers]
    assert ("m is not among the models that it tells of (other)",) == answers[1].warnings
