"""
Clients that others wrote, at the embedded server: right scores, and for each error the exception
that the client has for it. Each asks all its questions in one process of its own environment.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from batchrank.local import scores
from tests.others.environments import ROOT, python_of
from tests.rehearsing import KEY, running

pytestmark = pytest.mark.others

QUERY, DOCUMENTS = "river bank", ["a boat", "the river bank", "a river and a river"]

UNAVAILABLE = "ServiceUnavailableError"

# fault: (cohere, openrouter, litellm); "" where a client takes what it should not
RAISED: Mapping[str, tuple[str, str, str]] = {
    "400": ("BadRequestError", "BadRequestResponseError", "BadRequestError"),
    "401": ("UnauthorizedError", "UnauthorizedResponseError", "AuthenticationError"),
    "402": ("ApiError", "PaymentRequiredResponseError", "PaymentRequiredError"),
    "403-key": ("ForbiddenError", "ForbiddenResponseError", "PermissionDeniedError"),
    "403-moderation": ("ForbiddenError", "ForbiddenResponseError", "PermissionDeniedError"),
    "404": ("NotFoundError", "NotFoundResponseError", "NotFoundError"),
    "408": ("ApiError", "OpenRouterDefaultError", "Timeout"),
    "413": ("ApiError", "PayloadTooLargeResponseError", "BadRequestError"),
    "422": ("UnprocessableEntityError", "OpenRouterDefaultError", "BadRequestError"),
    "429": ("TooManyRequestsError", "TooManyRequestsResponseError", "RateLimitError"),
    "500": ("InternalServerError", "InternalServerResponseError", "InternalServerError"),
    "502": ("ApiError", "BadGatewayResponseError", "BadGatewayError"),
    "503": (
        "ServiceUnavailableError",
        "ServiceUnavailableResponseError",
        "ServiceUnavailableError",
    ),
    "504": ("GatewayTimeoutError", "OpenRouterDefaultError", "Timeout"),
    "524": ("ApiError", "EdgeNetworkTimeoutResponseError", "Timeout"),
    "529": ("ApiError", "ProviderOverloadedResponseError", "APIError"),
    # no status of an error: whatever the client makes of it, they are no scores
    "redirect": ("NotFoundError", "NotFoundResponseError", "NotFoundError"),  # all of them follow
    "garbage": ("UnicodeDecodeError", "ResponseValidationError", "APIConnectionError"),
    "html": ("ApiError", "OpenRouterDefaultError", "APIConnectionError"),
    "error-in-200": ("TypeError", "ResponseValidationError", "TypeError"),
    "drop": ("RemoteProtocolError", "RemoteProtocolError", "InternalServerError"),
    "nan": ("", "", ""),  # all of them take it for a score; batchrank does not
}

OTHER_STATUS = {"litellm_sdk/524": 408}
"""Where a client tells another status than the one that was sent."""


def told(client: str, port: int, questions: list[Any]) -> list[dict[str, Any]]:
    """
    What a client makes of each question: `[key, query, documents]`.
    """
    done = subprocess.run(
        [python_of(client), "-m", f"tests.others.clients.{client}", f"http://127.0.0.1:{port}"],
        input="".join(f"{json.dumps(question)}\n" for question in questions),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("client", "place"), [("cohere_sdk", 0), ("openrouter_sdk", 1), ("litellm_sdk", 2)]
)
def test_clients_of_others_get_scores_and_the_right_exceptions(client: str, place: int) -> None:
    """
    Scores by their documents, and every error as the client's own exception with its status.
    """
    faults = [f"{fault}=meets {fault}." for fault in RAISED]
    questions = [[KEY, f"{QUERY} meets {fault}.", DOCUMENTS] for fault in RAISED]
    with running(scores, faults=faults) as server:
        good, *errors = told(client, server.port, [[KEY, QUERY, DOCUMENTS], *questions])

    assert {"scores": scores(QUERY, DOCUMENTS)} == good
    names = {fault: names[place] for fault, names in RAISED.items()}
    assert names == {
        fault: error.get("raised", "") for fault, error in zip(RAISED, errors, strict=True)
    }
    for fault, error in zip(RAISED, errors, strict=True):
        if fault[:3].isdigit():
            expected = OTHER_STATUS.get(f"{client}/{fault}", int(fault[:3]))
            assert (fault, expected) == (fault, error["status"])


@pytest.mark.parametrize("client", ["cohere_sdk", "openrouter_sdk", "litellm_sdk"])
def test_clients_of_others_are_told_of_a_key_that_nobody_knows(client: str) -> None:
    """
    The embedded server with a list of keys.
    """
    with running(scores, keys=[KEY]) as server:
        known, unknown = told(client, server.port, [[k, QUERY, DOCUMENTS] for k in (KEY, "other")])

    assert "scores" in known
    assert 401 == unknown["status"]
