"""
Where a request goes: its URL, taken apart once, and the proxy on the way there.

Owns what counts as a usable address, and keeps the passwords of proxies out of every URL.
Connects to nobody.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401 - loaded late it would want a file, when none may be left
import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pyreqwest.http import Url

from batchrank.wire.auth import is_loopback


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    A proxy: its URL without the password, and the header line that holds it.
    """

    url: str
    login: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """
    What is worked out once for each URL: where it leads, and by way of whom.
    """

    url: Url
    proxy: Proxy | None = None

    @property
    def peer(self) -> str:
        """
        The `host:port` that is to answer.
        """
        return peer_of(self.url)

    @property
    def next_peer(self) -> str:
        """
        The `host:port` that we connect to.
        """
        return peer_of(Url(self.proxy.url)) if self.proxy else self.peer

    @property
    def tls(self) -> bool:
        """
        Whether a certificate is to be verified on the way.
        """
        return "https" in (self.url.scheme, self.proxy and Url(self.proxy.url).scheme)


def peer_of(url: Url) -> str:
    """
    The `host:port` of *url*.
    """
    return f"{url.host_str}:{url.port_or_known_default}"


def parsed(address: str, what: str) -> Url:
    """
    *address* as a URL that can be connected to; *what* is its name in messages.

    The standard library decides what the host is: it is asked whether a key may go there (`auth`),
    and whoever connects must not read another one into the same letters.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: it cannot.
    """
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises for one that is no number
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not host:
            raise httpx.UnsupportedProtocol(f"{what} is not an http(s) URL with a host")
        url = Url(address)
        same = url.host_str == _host(host)
    except ValueError:
        raise httpx.InvalidURL(f"{what} is not a URL") from None
    if not same:
        raise httpx.InvalidURL(f"{what} has a host that can be read in two ways")
    return url


def _host(name: str) -> str:
    """
    *name* as it goes onto the wire. Raises ValueError where it cannot.
    """
    if ":" in name:
        return f"[{ipaddress.IPv6Address(name)}]"
    return name.encode("idna").decode("ascii")


def through(address: str) -> Proxy:
    """
    The proxy at *address*, whose password goes into a header and out of every URL.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: it cannot be connected to.
    """
    url = parsed(address, "the proxy")
    scheme, peer = url.scheme, peer_of(url)
    if not url.username and url.password is None:
        return Proxy(f"{scheme}://{peer}")
    login = f"{unquote(url.username)}:{unquote(url.password or '')}".encode()
    return Proxy(f"{scheme}://{peer}", f"Basic {base64.b64encode(login).decode()}")


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
