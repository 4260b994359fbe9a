"""
The table of what goes wrong on the wire: whole, in order, and in words that stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from batchrank.domain import FailureKind
from batchrank.wire import failures
from batchrank.wire.failures import MEANINGS, ReplyRefused, meaning_of


def below(root: type[Exception]) -> Iterator[type[Exception]]:
    """
    *root* and every class below it.
    """
    yield root
    for child in root.__subclasses__():
        yield from below(child)


def test_every_exception_of_httpx_has_a_row_of_its_own() -> None:
    """
    A new release of httpx with a new exception is met by a decision, not by a default.
    """
    rows = {meaning.error for meaning in MEANINGS}
    theirs = {error for error in below(httpx.TransportError) if error.__module__ == "httpx"}

    assert theirs
    assert theirs <= rows


def test_every_exception_of_ours_has_a_row_of_its_own() -> None:
    """
    What a carrier can say is understood.
    """
    ours = {
        error
        for error in vars(failures).values()
        if isinstance(error, type) and issubclass(error, Exception) and error is not ReplyRefused
    }

    assert ours <= {meaning.error for meaning in MEANINGS}


def test_no_row_is_hidden_by_a_more_general_one() -> None:
    """
    The order runs from special to general.
    """
    hidden = [
        (earlier.error.__name__, later.error.__name__)
        for index, later in enumerate(MEANINGS)
        for earlier in MEANINGS[:index]
        if issubclass(later.error, earlier.error)
    ]

    assert [] == hidden


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        pytest.param(httpx.ConnectTimeout(""), FailureKind.NEVER_SENT, "connect_timeout", id="own"),
        pytest.param(failures.Closed(""), FailureKind.UNKNOWN, "closed", id="finer"),
        pytest.param(failures.TlsNotVerified(""), FailureKind.FATAL, "tls_not_verified", id="tls"),
        pytest.param(
            type("News", (httpx.ConnectError,), {})(""), FailureKind.NEVER_SENT, "connect", id="new"
        ),
        pytest.param(httpx.DecodingError(""), FailureKind.BAD_REPLY, "undecodable", id="decoding"),
    ],
)
def test_the_first_row_that_fits_holds(error: Exception, kind: FailureKind, code: str) -> None:
    """
    Also for a class that another carrier derives.
    """
    meaning = meaning_of(error)

    assert (kind, code) == (meaning.kind, meaning.code)


def test_only_what_was_never_sent_is_free() -> None:
    """
    Every timeout and broken connection after sending is booked as spent.
    """
    free = {meaning.error for meaning in MEANINGS if meaning.kind == FailureKind.NEVER_SENT}

    assert all(
        issubclass(
            error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
        )
        for error in free
    )
