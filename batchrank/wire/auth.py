"""
The key: where it comes from, how it is held, how it goes into a request, and where it may go to.

Owns the only place in which a key is readable (`Secret.reveal`), and the rules for files, variables
and addresses that a key is entrusted to. Never writes a key, or anything that may hold one, into a
message: settings into which people paste keys are not repeated.
"""

from __future__ import annotations

import html
import ipaddress
import json
import os
import re
import stat
import string
from collections.abc import Mapping
from typing import NoReturn, Protocol
from urllib.parse import quote, quote_plus, urlsplit

from batchrank.errors import JobError, Problem
from batchrank.providers.base import KeyHeader

MASK = "***"
KEY_BYTES_MAX = 16_384
"""The longest keys are signed tokens of a few kilobytes; a larger file is another file."""

_MODES = (0o400, 0o600)
"""What a key file may be to its owner: read, or read and written; to anybody else nothing."""


class Secret:
    """
    A key that does not show: neither printed, nor formatted, nor pickled, nor copied.
    """

    __slots__ = ("_key", "_said")

    def __init__(self, key: str) -> None:
        self._key = key
        self._said = _said(key)

    def __repr__(self) -> str:
        return MASK

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def reveal(self) -> str:
        """
        The key itself, for the one header that needs it.
        """
        return self._key

    def redact(self, text: str) -> str:
        """
        *text* with `***` for the key, also where it is percent-encoded or escaped as in JSON or
        HTML. What is made of bytes (base64, digests) is not looked for: nobody repeats a key so.
        """
        return self._said.sub(MASK, text)


KEY_CHARS_MIN = 4
"""
Whoever asks a server of their own writes `x` for a key. One that is shorter than this protects
nothing, and is looked for as a word of its own: by chance it is part of others, of names that stand
in the output, too.
"""


def _said(key: str) -> re.Pattern[str]:
    shapes = "|".join(map(re.escape, _shapes(key)))
    return re.compile(rf"(?<!\w)(?:{shapes})(?!\w)" if len(key) < KEY_CHARS_MIN else shapes)


def _shapes(key: str) -> tuple[str, ...]:
    """
    Every way in which a key is commonly written, the longest first so that none leaves a rest.
    """
    escaped = json.dumps(key)[1:-1]
    shapes = {key, escaped, escaped.replace("/", "\\/"), html.escape(key)}
    codes = {quote(key, safe=""), quote(key), quote_plus(key)}
    codes |= {_numbered(key, plain) for plain in ("", _WORDLY, _WORDLY + _HARMLESS)}
    lower = {re.sub(r"%..|\\u....", lambda code: code[0].lower(), text) for text in codes}
    return tuple(sorted(shapes | codes | lower, key=len, reverse=True))


_WORDLY = string.ascii_letters + string.digits + "-_."
_HARMLESS = "!#$%()*,/:;?@[]^`{|}~"
"""What Java and Go leave as it is in JSON that may stand in HTML."""


def _numbered(key: str, plain: str) -> str:
    """
    *key* in JSON with a number for every character that is not among *plain*.
    """
    return "".join(c if c in plain else f"\\u{ord(c):04X}" for c in key)


class Redacts(Protocol):
    """
    Who knows what may not be repeated.
    """

    def redact(self, text: str) -> str:
        """
        *text* without the key.
        """


class Auth(Redacts, Protocol):
    """
    Who signs requests, and knows what of them may not be repeated.
    """

    def headers(self) -> tuple[tuple[str, str], ...]:
        """
        What is added to every request; names in lower case.
        """


BEARER = KeyHeader()


class Bearer:
    """
    `Authorization: Bearer ...`, as nearly everybody wants it, or the *header* that a vendor names.
    """

    def __init__(self, secret: Secret, header: KeyHeader = BEARER) -> None:
        self._headers = ((header.name, f"{header.before}{secret.reveal()}"),)
        self.redact = secret.redact

    def headers(self) -> tuple[tuple[str, str], ...]:
        """
        The one header.
        """
        return self._headers


class Anonymous:
    """
    No key: for a server of one's own.
    """

    def headers(self) -> tuple[tuple[str, str], ...]:
        """
        Nothing.
        """
        return ()

    def redact(self, text: str) -> str:
        """
        *text*, which can hold no key.
        """
        return text


# --- where the key is -----------------------------------------------------------------------------


def key_from_environment(name: str, environ: Mapping[str, str]) -> Secret:
    """
    The key in the environment variable *name*.

    Raises:
        JobError: there is none, or it cannot be a key.
    """
    # People put the key where its name belongs, and names are written in capitals.
    spoken = name if name.isupper() else "NAME"
    remedy = f"export {spoken}=…"
    if name not in environ:
        which = f"the environment variable {spoken}" if spoken == name else "that variable"
        raise _refused("key_env", f"{which} is not set", remedy)
    return checked(environ[name], "key_env", "the environment variable", remedy)


def key_from_file(setting: str | os.PathLike[str], base: str | os.PathLike[str] = "") -> Secret:
    """
    The key in a file that nobody but its owner may read; one newline at its end is not part of it.

    *setting* is the path as it was given; it starts from the folder *base*.

    Raises:
        JobError: the file is not there, not ours, open to others, or holds no key.
    """
    given = os.fspath(setting)
    # As it is written, if there is no such home: then it cannot be opened, and that is told.
    path = os.path.join(base, os.path.expanduser(given))  # noqa: PTH111, PTH118 - see above
    try:
        # Without O_NONBLOCK a FIFO would wait for its other end before it could be refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = (error.strerror if isinstance(error, OSError) else None) or "not a path"
        # People paste the key itself into this setting: only what can be none is repeated.
        name = path if _is_surely_a_path(given) else "that file"
        remedy = "expected the path of a file with the key"
        remedy += f", as seen from {os.fspath(base)}" if base else ""
        raise _refused("key_file", f"{name} cannot be opened: {why}", remedy) from None
    try:
        _check_owner(os.fstat(descriptor), path)
        content = os.read(descriptor, KEY_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    remedy = f"put the key, and nothing else, into {path}"
    try:
        return checked(content.decode(), "key_file", "the file", remedy)
    except UnicodeDecodeError:
        raise _refused("key_file", "the file is not text", remedy) from None


_KEY_START = re.compile(r"(^|/)(sk|pk|key|token|bearer)[-_ ]", re.IGNORECASE)


def _is_surely_a_path(setting: str) -> bool:
    """
    Tell what can only be meant as a path: it has folders or a suffix, and nothing like a key in it.
    """
    shaped = "/" in setting or re.search(r"\.[A-Za-z]{1,8}$", setting)
    keyish = _KEY_START.search(setting) or any(map(_is_like_a_key, re.split("[/.]", setting)))
    return bool(shaped) and setting.isprintable() and not keyish


def _is_like_a_key(step: str) -> bool:
    """
    Tell a step of a path that nobody calls a folder: long, with digits among letters of all kinds.
    """
    mixed = not step.islower() or re.search("[a-z0-9]{16}", step)
    return len(step) >= 12 and bool(mixed and re.search("[0-9]", step))


def _check_owner(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refused("key_file", f"{name} is not a regular file", "")
    if status.st_uid not in (os.geteuid(), 0):
        raise _refused(
            "key_file", f"{name} belongs to somebody else", f"chown {os.geteuid()} {name}"
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise _refused("key_file", f"{name} is open to others ({mode:04o})", f"chmod 600 {name}")
    if mode not in _MODES:
        problem = f"{name} has mode {mode:04o}, expected 0400 or 0600"
        raise _refused("key_file", problem, f"chmod 600 {name}")


def checked(text: str, setting: str, where: str, remedy: str) -> Secret:
    """
    *text*, which stands *where* the setting says, as a key.

    Raises:
        JobError: it cannot be one.
    """
    key = text.removesuffix("\n").removesuffix("\r")
    if not key:
        raise _refused(setting, f"{where} is empty", remedy)
    if len(key) > KEY_BYTES_MAX:
        raise _refused(setting, f"{where} is too large to be a key", remedy)
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        problem = f"{where} holds a space, a second line, or another character that no key has"
        raise _refused(setting, problem, remedy)
    if key[0] in "\"'":
        raise _refused(setting, f"{where} holds quotation marks", remedy)
    return Secret(key)


def _refused(setting: str, message: str, remedy: str) -> JobError:
    return JobError("the key", [Problem(0, f"provider.{setting}", message, remedy)])


# --- where the key may go -------------------------------------------------------------------------


def check_base_url(url: str, *, keyed: bool = True) -> str | None:
    """
    Say what is wrong with sending a key to *url*, or None. The URL is not repeated.

    https, or http to this machine or where no key is sent (*keyed* False); a host that is not
    link-local, where clouds serve credentials; nothing else in it than scheme, host, port and path.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    problems = (
        (
            not re.fullmatch(r"[\x21-\x7e]*", url) or "\\" in url,
            "holds a space or a character that no URL has",
        ),
        (parts.scheme not in ("https", "http") or not host, "expected https://HOST/PATH"),
        ("@" in parts.netloc, "holds a user name or password: a key never stands in a job file"),
        ("?" in url or "#" in url, "ends before any ? or #"),
        (port == 0, "has port 0"),
        (_is_link_local(host or ""), "is a link-local address, where clouds serve credentials"),
        (is_odd_address(host or ""), "has a number for a host that is not an address a.b.c.d"),
        (
            keyed and parts.scheme == "http" and not is_loopback(host or ""),
            "would send the key unencrypted: expected https (http only to this machine)",
        ),
    )
    return next((problem for wrong, problem in problems if wrong), None)


def is_loopback(host: str) -> bool:
    """
    Tell whether *host* is this machine: `localhost`, 127.0.0.0/8 or ::1.
    """
    address = _address(host)
    return address.is_loopback if address else host.rstrip(".").lower() == "localhost"


_METADATA = frozenset({"metadata", "metadata.google.internal", "fd00:ec2::254"})
"""Services that hand out a machine's own credentials, outside the link-local ranges."""


def _is_link_local(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host.rstrip(".").lower() in _METADATA
    return address.is_link_local or str(address) in _METADATA


def is_odd_address(host: str) -> bool:
    """
    Tell 0xA9FEA9FE, 2852039166 and 127.1: `getaddrinfo` takes them for addresses.
    """
    last = host.rstrip(".").rpartition(".")[2]
    return _address(host) is None and bool(re.fullmatch(r"\d+|0[xX][0-9a-fA-F]*", last))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
