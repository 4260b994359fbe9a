"""
Whom a carrier trusts, and what it says when it does not: nothing is sent before that is settled.
"""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from batchrank.domain import Failure, FailureKind
from tests.edges.carriers import CARRIERS, LOOPS, Carrier, carried, many, said, send
from tests.edges.wild_server import OK, Peer, Play, WildServer, breaks, ok

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("carrier", CARRIERS)]

NEVER_SENT, FATAL, UNKNOWN = FailureKind.NEVER_SENT, FailureKind.FATAL, FailureKind.UNKNOWN


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """
    Both loops: each has a TLS of its own.
    """
    return request.param


@pytest.fixture(scope="module")
def ours() -> trustme.CA:
    """
    The authority that the tests trust.
    """
    return trustme.CA()


@pytest.fixture(scope="module")
def theirs() -> trustme.CA:
    """
    Another one, of which nobody has heard.
    """
    return trustme.CA()


def certified(ca: trustme.CA, *names: str, until: datetime | None = None) -> ssl.SSLContext:
    """
    A server's context with a certificate for *names*.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, not_after=until).configure_cert(context)
    return context


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    """
    A client's context that trusts *ca* and nobody else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


async def test_a_certificate_of_a_trusted_authority_is_taken(
    carrier: Carrier, ours: trustme.CA
) -> None:
    """
    And its connection is kept for the next request.
    """
    with WildServer([ok], certified(ours, "localhost")) as server:
        async with carried(carrier, trust=trusting(ours)) as transport:
            answers = [await send(transport, server.url("localhost")) for _ in range(3)]

    assert [200] * 3 == list(map(said, answers))
    assert server.connections == 1


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("context", "why"),
    [
        pytest.param(
            lambda _ours, theirs: certified(theirs, "localhost"), "issuer", id="unknown authority"
        ),
        pytest.param(
            lambda ours, _theirs: certified(ours, "example.org"), "mismatch", id="another name"
        ),
        pytest.param(
            lambda ours, _theirs: certified(ours, "localhost", until=LONG_AGO),
            "expired",
            id="expired",
        ),
    ],
)
async def test_a_certificate_that_does_not_verify_is_fatal(
    carrier: Carrier,
    ours: trustme.CA,
    theirs: trustme.CA,
    context: Callable[[trustme.CA, trustme.CA], ssl.SSLContext],
    why: str,
) -> None:
    """
    Nothing is sent, the message says why, and other hosts are still reached.
    """
    with (
        WildServer([ok], context(ours, theirs)) as bad,
        WildServer([ok], certified(ours, "localhost")) as good,
    ):
        async with carried(carrier, trust=trusting(ours)) as transport:
            first = await send(transport, bad.url("localhost"))
            second = await send(transport, good.url("localhost"))

    assert isinstance(first, Failure)
    assert (FATAL, "tls_not_verified") == (first.kind, first.code)
    assert why in first.message
    assert said(second) == 200
    assert bad.seen == []


def speaks_plain(accepted: socket.socket) -> None:
    """
    Take the first bytes of a handshake for a bad request.
    """
    accepted.recv(10)
    accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hangs_up(accepted: socket.socket) -> None:
    """
    End the connection in the handshake.
    """
    accepted.recv(10_000)


def resets(accepted: socket.socket) -> None:
    """
    Break it off before it begins.
    """
    Peer(accepted, 0, threading.Event()).reset()


def is_silent(accepted: socket.socket) -> None:
    """
    Never say a word, until the client has gone.
    """
    accepted.recv(10_000)
    accepted.recv(10_000)


@contextmanager
def listening(accept: Callable[[socket.socket], None], times: int = 1) -> Iterator[str]:
    """
    A host without TLS, which does *accept* with so many connections; its https URL.
    """

    def serve() -> None:
        for _ in range(times):
            with suppress(OSError), listener.accept()[0] as accepted:
                accepted.settimeout(5)
                accept(accepted)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(5)


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        pytest.param(speaks_plain, "tls_handshake", id="speaks plain HTTP"),
        pytest.param(hangs_up, "tls_handshake", id="hangs up"),
        pytest.param(resets, "tls_handshake", id="resets"),
        pytest.param(is_silent, "connect_timeout", id="is silent"),
    ],
)
async def test_a_handshake_that_fails_has_sent_nothing(
    carrier: Carrier, ours: trustme.CA, accept: Callable[[socket.socket], None], code: str
) -> None:
    """
    Free to try again: no byte of the request has left.
    """
    timeout_s = 0.2 if code == "connect_timeout" else 5.0
    with WildServer([ok], certified(ours, "localhost")) as good, listening(accept) as url:
        trust = trusting(ours)
        async with carried(carrier, trust=trust, connect_timeout_s=timeout_s) as transport:
            first = await send(transport, url)
            second = await send(transport, good.url("localhost"))

    assert (NEVER_SENT, code) == said(first)
    assert said(second) == 200


async def test_a_connection_that_failed_closes_no_file_of_others(
    carrier: Carrier, ours: trustme.CA
) -> None:
    """
    A socket that is forgotten must not own a descriptor that somebody else has by then.
    """
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with listening(resets, times=100) as url:
            trust = trusting(ours)
            async with carried(carrier, connections_max=20, trust=trust) as transport:
                answers = []
                for _ in range(5):
                    answers += await many(transport, url, 20)
        gc.collect()

    assert {(NEVER_SENT, "tls_handshake")} == set(map(said, answers))
    assert [] == [str(warning.message) for warning in warned]


@pytest.mark.parametrize(
    ("play", "codes"),
    [
        pytest.param(breaks(), {"closed"}, id="hangs up"),
        pytest.param(breaks(OK[:-5]), {"cut_short"}, id="hangs up in the body"),
        pytest.param(breaks(how=Peer.reset), {"reset", "closed"}, id="resets"),
        pytest.param(breaks(how=Peer.hang), {"read_timeout"}, id="is silent"),
        pytest.param(breaks(OK[:-5], how=Peer.hang), {"read_timeout"}, id="is silent in the body"),
    ],
)
async def test_what_breaks_within_tls_is_unknown(
    carrier: Carrier, ours: trustme.CA, play: Play, codes: set[str]
) -> None:
    """
    The same classes as without; a reset may look like an end from within.
    """
    timeout_s = 0.2 if "read_timeout" in codes else 5.0
    with WildServer([play, ok], certified(ours, "localhost")) as server:
        trust = trusting(ours)
        async with carried(carrier, trust=trust, timeout_s=timeout_s) as transport:
            first = await send(transport, server.url("localhost"))
            second = await send(transport, server.url("localhost"))

    assert isinstance(first, Failure)
    assert first.kind == UNKNOWN
    assert first.code in codes
    assert said(second) == 200


async def test_a_server_that_wants_our_certificate_is_unknown(
    carrier: Carrier, ours: trustme.CA
) -> None:
    """
    In TLS 1.3 it says so when the request has already left.
    """
    strict = certified(ours, "localhost")
    strict.verify_mode = ssl.CERT_REQUIRED
    with WildServer([ok], strict) as server:
        async with carried(carrier, trust=trusting(ours)) as transport:
            answer = await send(transport, server.url("localhost"))

    assert said(answer) == (UNKNOWN, "reset")


@pytest.fixture
def no_trust_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A machine on which nobody has said whom to trust.
    """
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)


@pytest.mark.usefixtures("no_trust_set")
@pytest.mark.parametrize("setting", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_the_settings_name_the_authorities_and_no_others_are_trusted(
    carrier: Carrier,
    ours: trustme.CA,
    theirs: trustme.CA,
    setting: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    As for curl and httpx: behind a proxy that looks inside, it is the only way.
    """
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ours.cert_pem.bytes())
    monkeypatch.setenv(setting, str(bundle if setting == "SSL_CERT_FILE" else tmp_path))
    with (
        WildServer([ok], certified(ours, "localhost")) as server,
        WildServer([ok], certified(theirs, "localhost")) as stranger,
    ):
        async with carried(carrier) as transport:
            first = await send(transport, server.url("localhost"))
            second = await send(transport, stranger.url("localhost"))

    assert said(first) == 200
    assert said(second) == (FATAL, "tls_not_verified")


@pytest.mark.usefixtures("no_trust_set")
@pytest.mark.parametrize("content", [None, b"", b"garbage"])
async def test_an_ssl_cert_file_without_certificates_is_fatal(
    carrier: Carrier, content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Falling back to other authorities would be a downgrade that nobody asked for. Where nothing is
    encrypted, nobody needs them.
    """
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with WildServer([ok]) as plain:
        async with carried(carrier) as transport:
            first = await send(transport, "https://localhost:1/")
            second = await send(transport, plain.url())

    assert said(first) == (FATAL, "tls_not_verified")
    assert said(second) == 200


@pytest.mark.usefixtures("no_trust_set")
async def test_an_empty_ssl_cert_dir_is_fatal(
    carrier: Carrier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whoever trusts nobody by choice is not helped to others.
    """
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    async with carried(carrier) as transport:
        answer = await send(transport, "https://localhost:1/")

    assert said(answer) == (FATAL, "tls_not_verified")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_old_versions_of_tls_are_not_spoken(
    carrier: Carrier, ours: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    TLS 1.2 at least, whatever a server would settle for.
    """
    old = certified(ours, "localhost")
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(ours.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with WildServer([ok], old) as server:
        async with carried(carrier) as transport:
            answer = await send(transport, server.url("localhost"))

    assert said(answer) == (NEVER_SENT, "tls_handshake")
    assert server.seen == []
