"""
Addresses: one that two readers take for different hosts is none.
"""

from __future__ import annotations

import httpx
import pytest

from batchrank.wire.routes import Proxy, parsed, peer_of, through


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
    assert peer == peer_of(parsed(address, "it"))


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
    ("address", "proxy"),
    [
        ("http://proxy.test:3128", Proxy("http://proxy.test:3128")),
        ("https://proxy.test/", Proxy("https://proxy.test:443")),
        ("http://u:p%40ss@proxy.test:1", Proxy("http://proxy.test:1", "Basic dTpwQHNz")),
        ("http://u@proxy.test:1", Proxy("http://proxy.test:1", "Basic dTo=")),
        ("http://:p@proxy.test:1", Proxy("http://proxy.test:1", "Basic OnA=")),
    ],
)
def test_a_proxys_login_goes_into_a_header(address: str, proxy: Proxy) -> None:
    """
    And out of the URL, which messages and other libraries repeat.
    """
    assert proxy == through(address)
