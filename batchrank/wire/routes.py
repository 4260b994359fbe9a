"""
Where a request goes: its URL, taken apart once, and the proxy on the way there.

Owns what counts as a usable address, and keeps the passwords of proxies out of every URL.
Connects to nobody.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401 - loaded late it would want a file, when none may be left
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from yarl import URL

from batchrank.wire.auth import is_loopback


@dataclass(frozen=True, slots=True)
class Route:
    """
    What is worked out once for each URL. *peer* is its `host:port`; *tls* is True for "no matter".
    """

    url: URL
    peer: str
    tls: ssl.SSLContext | bool
    proxy: URL | None = None
    proxy_headers: Mapping[str, str] | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def next_peer(self) -> str:
        """
        The `host:port` that we connect to.
        """
        return f"{self.proxy.host_subcomponent}:{self.proxy.port}" if self.proxy else self.peer


def parsed(address: str, what: str) -> URL:
    """
    *address* as a URL that can be connected to; *what* is its name in messages.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: it cannot.
    """
    try:
        url = URL(address)
        (url.host or "").encode("idna")  # getaddrinfo does it later, and raises no OSError
    except ValueError:
        raise httpx.InvalidURL(f"{what} is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise httpx.UnsupportedProtocol(f"{what} is not an http(s) URL with a host")
    return url


def through(route: Route, address: str) -> Route:
    """
    *route* by way of a proxy, whose password goes into a header and out of every URL.
    """
    proxy = parsed(address, "the proxy")
    headers: dict[str, str] = {}
    if proxy.user is not None:
        login = f"{proxy.user}:{proxy.password or ''}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    # A tunnel is asked for by a request of its own; plain http has only the one.
    plain = tuple(headers.items()) if route.url.scheme == "http" else ()
    return replace(route, proxy=proxy.with_user(None), proxy_headers=headers, headers=plain)


def system_proxy(url: str) -> str | None:
    """
    The proxy for *url* by this machine's settings: `HTTPS_PROXY` and its like, `NO_PROXY`.

    This machine itself is never reached through a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    if not proxy or is_loopback(host) or proxy_bypass(f"{host}:{port}"):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
