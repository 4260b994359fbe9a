"""
What the layers below say, and what it means: above all, whether a request may have been sent.
"""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyreqwest import exceptions as theirs
from pyreqwest.exceptions import CauseErrorDetails, PyreqwestError
from pyreqwest.http import Url

from batchrank.domain import FailureKind
from batchrank.wire import failures
from batchrank.wire.failures import meaning_of
from batchrank.wire.routes import Proxy, Route
from batchrank.wire.translating import NOT_SENT, translated

HTTPS = Route(Url("https://reranker.test/v1"))
HTTP = Route(Url("http://reranker.test/v1"))
PROXIED = Route(HTTPS.url, Proxy("http://proxy.test:3128", "Basic canary"))

ASKED = "error sending request for url (https://canary@reranker.test/v1)"
CONNECT, CANCELED = "client error (Connect)", "client error (Canceled)"
SENT = "client error (SendRequest)"
IN_BODY = ("error decoding response body", "request or response body error")
RESET = "Connection reset by peer (os error 104)"


def raised(kind: type[theirs.DetailedPyreqwestError], *causes: str) -> PyreqwestError:
    """
    An exception as pyreqwest raises it.
    """
    details: CauseErrorDetails = {"causes": [{"message": cause} for cause in causes] or None}
    return kind("canary", details)


@pytest.mark.parametrize(
    ("error", "route", "expected", "message"),
    [
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "tcp connect error", "x (os error 111)"),
            HTTPS,
            failures.Refused,
            "no connection to reranker.test:443 (ECONNREFUSED)",
            id="refused",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "tcp connect error", "x (os error 113)"),
            HTTP,
            failures.Unreachable,
            "no connection to reranker.test:80 (EHOSTUNREACH)",
            id="unreachable",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "dns error", "a: unheard of"),
            HTTPS,
            failures.NameNotFound,
            "no address for reranker.test",
            id="dns",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "dns error", "x (os error 24)"),
            HTTPS,
            failures.OutOfSockets,
            "no connection to reranker.test:443 (EMFILE)",
            id="no file for the names",
        ),
        pytest.param(
            raised(theirs.ConnectTimeoutError, ASKED, CONNECT, "x", "deadline has elapsed"),
            HTTPS,
            httpx.ConnectTimeout,
            "no connection to reranker.test:443 in time",
            id="connect timeout",
        ),
        pytest.param(
            raised(theirs.ConnectTimeoutError, ASKED, CONNECT, "x", "canary (os error 110)"),
            HTTPS,
            httpx.ConnectTimeout,
            "no connection to reranker.test:443 (ETIMEDOUT)",
            id="the system's own timeout",
        ),
        pytest.param(
            raised(theirs.ConnectTimeoutError, ASKED, "operation timed out"),
            HTTPS,
            httpx.ReadTimeout,
            "no whole reply from reranker.test:443 in time",
            id="timeout at nobody knows which step",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CANCELED, "operation was canceled", RESET),
            HTTP,
            httpx.ConnectError,
            "no connection to reranker.test:80 (ECONNRESET)",
            id="came back whole",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, SENT, "connection error", RESET),
            HTTPS,
            httpx.ReadError,
            "the connection to reranker.test:443 broke (ECONNRESET)",
            id="reset",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "received fatal alert: ProtocolVersion"),
            HTTPS,
            failures.HandshakeFailed,
            "no TLS with reranker.test:443 (alert ProtocolVersion)",
            id="an alert",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "invalid peer certificate: BadEncoding"),
            HTTPS,
            failures.TlsNotVerified,
            "the certificate of reranker.test:443 is not to be trusted: it is not sound",
            id="a bad certificate",
        ),
        pytest.param(
            raised(
                theirs.ConnectError,
                *(ASKED, CONNECT, "invalid peer certificate: Other(O(CaUsedAsEndEntity))"),
            ),
            HTTPS,
            failures.TlsNotVerified,
            "the certificate of reranker.test:443 is not to be trusted: "
            "it is an authority's, not a server's (CA:FALSE)",
            id="a certificate that signed itself",
        ),
        pytest.param(
            raised(
                theirs.ConnectError,
                *(ASKED, CONNECT, "tunnel error: x", "invalid peer certificate: UnknownIssuer"),
            ),
            PROXIED,
            failures.TlsNotVerified,
            "the certificate of proxy.test:3128 is not to be trusted: an unknown issuer",
            id="a proxy's bad certificate",
        ),
        pytest.param(
            raised(theirs.ConnectError, ASKED, CONNECT, "tunnel error: canary"),
            PROXIED,
            httpx.ProxyError,
            "the proxy proxy.test:3128 made no way",
            id="a proxy that does not",
        ),
        pytest.param(
            raised(theirs.BodyDecodeError, *IN_BODY, "end of file before message length reached"),
            HTTPS,
            failures.CutShort,
            "reranker.test:443 broke off in the middle of its reply",
            id="cut short",
        ),
        pytest.param(
            raised(theirs.BodyDecodeError, *IN_BODY, "Invalid chunk size LF"),
            HTTPS,
            failures.Garbage,
            "what reranker.test:443 sent is not HTTP/1.1",
            id="garbage in a chunk",
        ),
        pytest.param(
            raised(theirs.DecodeError, ASKED, SENT, "news"),
            HTTPS,
            failures.Garbage,
            "what reranker.test:443 sent is not HTTP/1.1",
            id="garbage in the head",
        ),
        pytest.param(
            raised(theirs.PoolTimeoutError),
            HTTPS,
            httpx.PoolTimeout,
            "no connection came free in time",
            id="pool",
        ),
        pytest.param(
            raised(theirs.BuilderError, "canary"),
            HTTPS,
            httpx.LocalProtocolError,
            "the request cannot be put on the wire",
            id="a request that is none",
        ),
        pytest.param(
            raised(theirs.RequestPanicError),
            HTTPS,
            httpx.TransportError,
            "the call to reranker.test:443 failed",
            id="a bug of theirs",
        ),
        pytest.param(
            PyreqwestError("canary"),
            HTTPS,
            httpx.TransportError,
            "the call to reranker.test:443 failed",
            id="not a word",
        ),
    ],
)
def test_each_chain_has_its_meaning(
    error: PyreqwestError, route: Route, expected: type[Exception], message: str
) -> None:
    """
    In our own words: theirs name URLs.
    """
    said = translated(error, route)

    assert expected is type(said)
    assert message == str(said)


LAYERS = st.sampled_from(
    [ASKED, SENT, *IN_BODY, RESET, "connection error", "operation timed out", "dns error", "x"]
)


@given(st.lists(LAYERS | st.text(max_size=20)), st.sampled_from([HTTP, HTTPS, PROXIED]))
def test_only_two_words_make_a_call_free(causes: list[str], route: Route) -> None:
    """
    Without them the request may have been sent, whatever else a chain says.
    """
    causes = [cause for cause in causes if cause not in NOT_SENT]
    for kind in (theirs.ConnectError, theirs.ConnectTimeoutError, theirs.DecodeError):
        assert meaning_of(translated(raised(kind, *causes), route)).kind == FailureKind.UNKNOWN


@given(st.lists(st.text(max_size=20)), st.sampled_from([CONNECT, CANCELED]))
def test_nothing_that_was_said_is_repeated(causes: list[str], layer: str) -> None:
    """
    Neither a URL nor a password, whichever layer says it.
    """
    error = raised(theirs.ConnectError, layer, *(f"{cause} canary" for cause in causes))

    for route in (HTTP, HTTPS, PROXIED):
        assert "canary" not in str(translated(error, route))
