"""
Where a request goes: its URL, taken apart once, and the proxy on the way there.

Owns what counts as a usable address, and keeps the passwords of proxies out of every URL.
Connects to nobody.
"""

from __future__ import annotations

import base64
import encodings.idna  # noqa: F401 - loaded late it would want a file, when none may be left
import ipaddress
import re
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from batchrank.wire.auth import is_loopback, is_odd_address

PORTS = {"http": 80, "https": 443}
"""The ports of addresses that name none."""


@dataclass(frozen=True, slots=True)
class Url:
    """
    An address that can be connected to. *host* is a name in lower case or a bare address, *target*
    what a request line asks for.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def tls(self) -> bool:
        """
        Whether it is spoken to within TLS.
        """
        return self.scheme == "https"

    @property
    def peer(self) -> str:
        """
        `host:port`.
        """
        return f"{self._bracketed}:{self.port}"

    @property
    def authority(self) -> str:
        """
        The `Host` of a request: without the port where it is the scheme's own.
        """
        return self._bracketed if self.port == PORTS[self.scheme] else self.peer

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    A proxy: its address without the password, and the header that holds it.
    """

    url: Url
    login: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """
    What is worked out once for each URL: where it leads, and by way of whom.
    """

    url: Url
    proxy: Proxy | None = None

    @property
    def next_url(self) -> Url:
        """
        Whom we connect to.
        """
        return self.proxy.url if self.proxy else self.url

    @property
    def tunnel(self) -> Proxy | None:
        """
        The proxy that is asked for a tunnel: what is encrypted passes through it unseen.
        """
        return self.proxy if self.url.tls else None

    def without_target(self) -> Route:
        """
        The same for every request to the same peer by the same way.
        """
        return replace(self, url=replace(self.url, target="/"))


def parsed(address: str, what: str) -> Url:
    """
    *address* as a URL that can be connected to; *what* is its name in messages.

    The standard library decides what the host is, as it does where it is asked whether a key may go
    there (`auth`); a host that somebody else could read in another way is none.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: it cannot.
    """
    try:
        parts = urlsplit(address)
        port, name = parts.port, parts.hostname or ""
        if parts.scheme not in PORTS or not name:
            raise httpx.UnsupportedProtocol(f"{what} is not an http(s) URL with a host")
        host = _host(name)
    except ValueError:
        raise httpx.InvalidURL(f"{what} is not a URL") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not re.fullmatch(r"[\x21-\x7e]+", address) or "\\" in address or not host or port == 0:
        raise httpx.InvalidURL(f"{what} is not a URL, or can be read in two ways")
    return Url(parts.scheme, host, port or PORTS[parts.scheme], target)


_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")


def _host(name: str) -> str | None:
    """
    *name* as everybody reads it; None where it is not clear. Raises ValueError for half an address.
    """
    if ":" in name:
        return None if "%" in name else str(ipaddress.IPv6Address(name))
    clear = len(name) < 254 and _NAME.fullmatch(name) and not is_odd_address(name)
    return name if clear else None


def through(address: str) -> Proxy:
    """
    The proxy at *address*, whose password goes into a header and out of every URL.

    Raises:
        httpx.InvalidURL, httpx.UnsupportedProtocol: it cannot be connected to.
    """
    url = parsed(address, "the proxy")
    parts = urlsplit(address)
    if not parts.username and parts.password is None:
        return Proxy(url)
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    return Proxy(url, f"Basic {base64.b64encode(login).decode()}")


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
