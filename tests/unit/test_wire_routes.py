"""
Addresses: one that two readers take for different hosts is none.
"""

from __future__ import annotations

import re

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.wire.routes import Proxy, Route, Url, parsed, through


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("https://reranker.test/v1", "reranker.test:443"),
        ("http://LOCALHOST:8080", "localhost:8080"),
        ("https://reranker.test.:8443/", "reranker.test.:8443"),
        ("http://127.0.0.1/", "127.0.0.1:80"),
        ("http://[::1]:80/", "[::1]:80"),
        ("http://[2001:DB8:0::1]/", "[2001:db8::1]:80"),
        ("https://xn--zrich-kva.example/", "xn--zrich-kva.example:443"),
        ("https://re_ranker.test/", "re_ranker.test:443"),
    ],
)
def test_an_address_leads_to_a_peer(address: str, peer: str) -> None:
    """
    With the port that its scheme has where it names none.
    """
    assert peer == parsed(address, "it").peer


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("http://127.1/", id="a short form"),
        pytest.param("http://2130706433/", id="a number"),
        pytest.param("http://0x7f.0.0.1/", id="hexadecimal"),
        pytest.param("http://0177.0.0.1/", id="octal"),
        pytest.param("http://loc%61lhost/", id="percent-encoded"),
        pytest.param("http://a.test\\@b.test/", id="a backslash"),
        pytest.param(f"http://{'a' * 64}.test/", id="a long label"),
        pytest.param("http://[fe80::1%25eth0]/", id="a zone"),
        pytest.param("http://[::1/", id="half an address"),
        pytest.param("http://a.test:port/", id="no port"),
        pytest.param("http://a.test:99999/", id="no such port"),
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_none(address: str) -> None:
    """
    The key goes where the check of the address meant, or nowhere.
    """
    with pytest.raises(httpx.InvalidURL):
        parsed(address, "it")


@pytest.mark.parametrize("address", ["", "ftp://a.test/", "http:///v1", "a.test", "//a.test"])
def test_an_address_without_scheme_or_host_is_not_supported(address: str) -> None:
    """
    Nothing is made up for what it leaves out.
    """
    with pytest.raises(httpx.UnsupportedProtocol):
        parsed(address, "it")


@pytest.mark.parametrize(
    ("address", "target", "authority"),
    [
        ("https://a.test", "/", "a.test"),
        ("https://a.test:443/v1/rerank", "/v1/rerank", "a.test"),
        ("http://a.test:443/?x=%20y#z", "/?x=%20y", "a.test:443"),
        ("http://[::1]:8080/v1", "/v1", "[::1]:8080"),
        ("http://[::1]/v1", "/v1", "[::1]"),
    ],
)
def test_an_address_is_asked_for_as_it_stands(address: str, target: str, authority: str) -> None:
    """
    The request line has all of it but the fragment, and the host its port where it is unusual.
    """
    url = parsed(address, "it")

    assert (target, authority) == (url.target, url.authority)


@given(st.text() | st.text().map("http://a.test/{}".format) | st.text().map("http://{}/".format))
def test_no_address_breaks_a_request(address: str) -> None:
    """
    What is taken has no space, line or other character in it that a request line cannot have.
    """
    try:
        url = parsed(address, "it")
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        return

    assert re.fullmatch(r"[\x21-\x7e]+", url.target + url.authority)


@pytest.mark.parametrize(
    ("address", "peer", "login"),
    [
        ("http://proxy.test:3128", "proxy.test:3128", None),
        ("https://proxy.test/", "proxy.test:443", None),
        ("http://u:p%40ss@proxy.test:1", "proxy.test:1", "Basic dTpwQHNz"),
        ("http://u@proxy.test:1", "proxy.test:1", "Basic dTo="),
        ("http://:p@proxy.test:1", "proxy.test:1", "Basic OnA="),
    ],
)
def test_a_proxys_login_goes_into_a_header(address: str, peer: str, login: str | None) -> None:
    """
    And out of the address, which messages repeat.
    """
    proxy = through(address)

    assert (peer, login) == (proxy.url.peer, proxy.login)


def test_only_what_is_encrypted_goes_through_a_tunnel() -> None:
    """
    Plain requests are told to the proxy itself.
    """
    proxy = Proxy(Url("http", "proxy.test", 3128, "/"))
    plain = Route(parsed("http://a.test/", "it"), proxy)
    hidden = Route(parsed("https://a.test/", "it"), proxy)

    assert (None, proxy) == (plain.tunnel, hidden.tunnel)
    assert plain.next_url == hidden.next_url == proxy.url
    assert Route(hidden.url).next_url == hidden.url
