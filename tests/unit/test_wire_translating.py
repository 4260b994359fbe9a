"""
What opening and connection report, and what it means: above all, whether a request may have left.
"""

from __future__ import annotations

import errno
import socket
import ssl
from dataclasses import replace
from itertools import product

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.domain import FailureKind
from batchrank.wire import failures
from batchrank.wire.connection import Ended, How
from batchrank.wire.failures import meaning_of
from batchrank.wire.keeping import NoPlace
from batchrank.wire.opening import NotOpened, Step
from batchrank.wire.routes import Proxy, Route, parsed
from batchrank.wire.translating import translated

HTTPS = Route(parsed("https://reranker.test/v1", "it"))
HTTP = Route(parsed("http://reranker.test/v1", "it"))
PROXY = Proxy(parsed("http://proxy.test:3128", "it"), "Basic canary")
ROUTES = [HTTP, HTTPS, replace(HTTP, proxy=PROXY), replace(HTTPS, proxy=PROXY)]
PROXIED = ROUTES[-1]


def os_error(number: int) -> OSError:
    """
    What the system says, with a text that is not to be repeated.
    """
    return OSError(number, "canary")


def certificate_error() -> ssl.SSLCertVerificationError:
    """
    What OpenSSL says of a certificate.
    """
    error = ssl.SSLCertVerificationError(1, "canary")
    error.verify_message = "unable to get local issuer certificate"
    return error


def tls_error() -> ssl.SSLError:
    """
    What OpenSSL says of a handshake; its number is its own, whatever the system's would mean.
    """
    error = ssl.SSLError(errno.EMFILE, "canary")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


NOBODY = socket.gaierror(socket.EAI_NONAME, "canary")
TCP, TLS, TUNNEL = Step.TCP, Step.TLS, Step.TUNNEL


@pytest.mark.parametrize(
    ("error", "route", "expected", "message"),
    [
        pytest.param(
            NoPlace(), HTTPS, httpx.PoolTimeout, "no connection came free in time", id="no place"
        ),
        pytest.param(
            NotOpened(Step.NAME, NOBODY),
            HTTPS,
            failures.NameNotFound,
            "no address for reranker.test (EAI_NONAME)",
            id="no name",
        ),
        pytest.param(
            NotOpened(Step.NAME, os_error(errno.EMFILE)),
            HTTPS,
            failures.OutOfSockets,
            "no connection to reranker.test:443 (EMFILE)",
            id="no file for the names",
        ),
        pytest.param(
            NotOpened(Step.TIME),
            PROXIED,
            httpx.ConnectTimeout,
            "no connection to proxy.test:3128 in time",
            id="no time",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.ETIMEDOUT)),
            HTTP,
            httpx.ConnectTimeout,
            "no connection to reranker.test:80 (ETIMEDOUT)",
            id="the system's own timeout",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.ECONNREFUSED)),
            HTTPS,
            failures.Refused,
            "no connection to reranker.test:443 (ECONNREFUSED)",
            id="refused",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.EHOSTUNREACH)),
            HTTP,
            failures.Unreachable,
            "no connection to reranker.test:80 (EHOSTUNREACH)",
            id="unreachable",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.ECONNRESET)),
            HTTP,
            httpx.ConnectError,
            "no connection to reranker.test:80 (ECONNRESET)",
            id="reset as it begins",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.ECONNRESET)),
            HTTPS,
            failures.HandshakeFailed,
            "no connection to reranker.test:443 (ECONNRESET)",
            id="reset as TLS is to begin",
        ),
        pytest.param(
            NotOpened(TCP, os_error(errno.ECONNREFUSED)),
            PROXIED,
            failures.ProxyUnreachable,
            "no connection to the proxy proxy.test:3128 (ECONNREFUSED)",
            id="a proxy that is away",
        ),
        pytest.param(
            NotOpened(TLS, certificate_error()),
            PROXIED,
            failures.TlsNotVerified,
            "the certificate of reranker.test:443 is not to be trusted: "
            "unable to get local issuer certificate",
            id="a certificate",
        ),
        pytest.param(
            NotOpened(Step.PROXY_TLS, certificate_error()),
            PROXIED,
            failures.TlsNotVerified,
            "the certificate of proxy.test:3128 is not to be trusted: "
            "unable to get local issuer certificate",
            id="a proxy's certificate",
        ),
        pytest.param(
            NotOpened(TLS, tls_error()),
            HTTPS,
            failures.HandshakeFailed,
            "no TLS with reranker.test:443 (WRONG_VERSION_NUMBER)",
            id="a handshake",
        ),
        pytest.param(
            NotOpened(Step.PROXY_TLS),
            PROXIED,
            failures.ProxyUnreachable,
            "no TLS with proxy.test:3128",
            id="a proxy's handshake",
        ),
        pytest.param(
            NotOpened(TUNNEL, status=502),
            PROXIED,
            httpx.ProxyError,
            "the proxy proxy.test:3128 answered CONNECT with status 502",
            id="a proxy that finds no way",
        ),
        pytest.param(
            NotOpened(TUNNEL, status=429),
            PROXIED,
            httpx.ProxyError,
            "the proxy proxy.test:3128 answered CONNECT with status 429",
            id="a proxy that is throttled",
        ),
        pytest.param(
            NotOpened(TUNNEL, status=407),
            PROXIED,
            failures.ProxyRefused,
            "the proxy proxy.test:3128 answered CONNECT with status 407",
            id="a proxy that wants another login",
        ),
        pytest.param(
            NotOpened(TUNNEL, os_error(errno.ECONNRESET)),
            PROXIED,
            httpx.ProxyError,
            "the proxy proxy.test:3128 made no way (ECONNRESET)",
            id="a proxy that resets",
        ),
        pytest.param(
            NotOpened(Step.CLOSED),
            HTTPS,
            httpx.ConnectError,
            "the carrier was closed",
            id="closed from here before it was open",
        ),
        pytest.param(
            Ended(How.EXPIRED, begun=True, reused=True),
            HTTPS,
            httpx.ReadTimeout,
            "no whole reply from reranker.test:443 in time",
            id="expired",
        ),
        pytest.param(
            Ended(How.GARBAGE, begun=True),
            HTTPS,
            failures.Garbage,
            "what reranker.test:443 sent is not HTTP/1.1",
            id="garbage",
        ),
        pytest.param(
            Ended(How.FROM_HERE),
            HTTPS,
            failures.Closed,
            "the connection to reranker.test:443 was closed from here",
            id="closed from here",
        ),
        pytest.param(
            Ended(How.HUNG_UP, begun=True, reused=True, error=os_error(errno.ECONNRESET)),
            HTTPS,
            failures.CutShort,
            "reranker.test:443 broke off in the middle of its reply",
            id="cut short",
        ),
        pytest.param(
            Ended(How.HUNG_UP, reused=True, error=os_error(errno.ECONNRESET)),
            PROXIED,
            failures.ClosedReused,
            "reranker.test:443 closed a kept connection instead of replying",
            id="a kept connection",
        ),
        pytest.param(
            Ended(How.HUNG_UP),
            HTTPS,
            failures.Closed,
            "reranker.test:443 hung up instead of replying",
            id="hung up",
        ),
        pytest.param(
            Ended(How.HUNG_UP, error=os_error(errno.EPIPE)),
            HTTPS,
            httpx.ReadError,
            "the connection to reranker.test:443 broke (EPIPE)",
            id="broke",
        ),
    ],
)
def test_each_end_has_its_meaning(
    error: NoPlace | NotOpened | Ended, route: Route, expected: type[Exception], message: str
) -> None:
    """
    In our own words: those of others name URLs.
    """
    said = translated(error, route)

    assert expected is type(said)
    assert message == str(said)


def test_what_may_have_left_is_never_free() -> None:
    """
    However it ended, and whatever the system says.
    """
    words = [None, *map(os_error, errno.errorcode), tls_error(), certificate_error(), NOBODY]
    for how, begun, reused, word, route in product(
        How, (False, True), (False, True), words, ROUTES
    ):
        said = translated(Ended(how, begun, reused, word), route)

        assert meaning_of(said).kind == FailureKind.UNKNOWN
        assert "canary" not in str(said)


@given(
    st.sampled_from(Step),
    st.sampled_from([None, *map(os_error, errno.errorcode), tls_error(), certificate_error()]),
    st.none() | st.integers(100, 999),
    st.sampled_from(ROUTES),
)
def test_what_never_left_is_free_or_fatal(
    step: Step, word: Exception | None, status: int | None, route: Route
) -> None:
    """
    At whichever step it ended; and neither a URL nor a password is repeated.
    """
    said = translated(NotOpened(step, word, status), route)

    assert meaning_of(said).kind in (FailureKind.NEVER_SENT, FailureKind.FATAL)
    assert "canary" not in str(said)
