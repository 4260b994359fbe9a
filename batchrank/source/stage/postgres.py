"""
The way to a PostgreSQL: libpq's connection string, taken apart so that its password goes apart.

DuckDB repeats the string that it connects with, in errors and in its list of databases. So a
password is never in it, and a string that cannot be taken apart for sure is refused, unrepeated.
Owns what libpq's words about a connection mean. Connects to nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from batchrank.errors import BatchrankError, NotReady, Problem, SourceError

CONNECT_TIMEOUT_S = 10
"""Where nobody says otherwise; libpq's own is the operating system's, minutes."""

_FIELDS = frozenset(
    [
        *("host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service"),
        *("connect_timeout", "client_encoding", "options", "application_name"),
        *("fallback_application_name", "keepalives", "keepalives_idle", "keepalives_interval"),
        *("keepalives_count", "tcp_user_timeout", "target_session_attrs", "load_balance_hosts"),
        *("sslmode", "sslnegotiation", "sslcert", "sslkey", "sslcertmode", "sslrootcert"),
        *("sslcrl", "sslcrldir", "sslsni", "ssl_min_protocol_version", "ssl_max_protocol_version"),
        *("channel_binding", "require_auth", "requirepeer", "gssencmode", "krbsrvname", "gsslib"),
        "gssdelegation",
    ]
)
"""PostgreSQL's documentation, 34.1.2, without a second secret (sslpassword)."""

_SCHEME = re.compile(r"postgres(?:ql)?://")
_FIELD = re.compile(
    r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)(?:[^\s\\]|\\.)*)?)(?:\s+|$)",
    re.DOTALL,
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@]*)(?::([0-9]*))?")
_AWAY = re.compile(
    r"Connection refused|timeout expired|timed out|starting up|shutting down"
    r"|too many (?:clients|connections)|remaining connection slots|No route to host"
    r"|Network is unreachable|server closed the connection|terminating connection"
    r"|Temporary failure in name resolution|on socket \".*\" failed: No such file"
)


def way_to(alias: str, variable: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """
    How *alias* is connected to: the connection string without its password, and the password.

    It is what the environment's *variable* holds; without one libpq looks for everything itself.

    Raises:
        SourceError: the variable is not set, or does not hold a connection string.
    """
    fields: dict[str, str] = {}
    if variable is not None:
        remedy = f"export {variable}=postgresql://USER:PASSWORD@HOST/DATABASE"
        if not environ.get(variable, "").strip():
            raise _wrong(alias, f"the environment variable {variable} is not set", remedy)
        try:
            fields = _taken_apart(environ[variable].strip())
        except ValueError as error:
            raise _wrong(alias, f"what {variable} holds {error}", remedy) from None
    password = fields.pop("password", "")
    if "PGCONNECT_TIMEOUT" not in environ:
        fields.setdefault("connect_timeout", str(CONNECT_TIMEOUT_S))
    return " ".join(f"{name}={_quoted(value)}" for name, value in fields.items()), password


def refusal(alias: str, words: str) -> BatchrankError:
    """
    The error for what DuckDB and libpq said when they could not connect.
    """
    said = (words.partition('": ')[2] or words).strip().partition("\n")[0]
    if is_away(said):
        return NotReady(
            f"PostgreSQL ({alias}) cannot be reached: {said}", "try again when it is up (exit 75)"
        )
    problem = Problem(0, f"source.attach.{alias}", f"PostgreSQL refuses: {said}")
    return SourceError("", "look at the login, and at the name of the database", [problem])


def is_away(words: str) -> bool:
    """
    Tell whether *words* of an error mean that the server is not there now.
    """
    return _AWAY.search(words) is not None


# --- connection strings ---------------------------------------------------------------------------


def _taken_apart(text: str) -> dict[str, str]:
    """
    The fields of a connection string. Errors repeat nothing: part of a password may be anywhere.
    """
    fields = dict(_of_url(text) if _SCHEME.match(text) else _of_fields(text))
    if "sslpassword" in fields:
        raise ValueError("has sslpassword, which messages would repeat: take a key without one")
    if fields.keys() - _FIELDS:
        raise ValueError(f"is no connection string: {_ENCODE}")
    return fields


_ENCODE = "in a URL @ : / ? # % of a password are percent-encoded, elsewhere spaces need quotes"


def _of_url(url: str) -> Iterator[tuple[str, str]]:
    place, _, query = url.partition("://")[2].partition("?")
    where, _, database = place.partition("/")
    login, _, hosts = where.rpartition("@")
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    sound = all(found) and all(equals for _, equals, _ in pairs)
    if not sound or "@" in login + database + query or "/" in database:
        raise ValueError(f"is no URL of a database: {_ENCODE}")
    user, _, password = login.partition(":")
    places = [match for match in found if match]
    yield from (
        (name, unquote(value, errors="strict"))
        for name, value in (
            ("user", user),
            ("password", password),
            ("host", ",".join(match[1].strip("[]") for match in places)),
            ("port", ",".join(match[2] or "" for match in places)),
            ("dbname", database),
            *((name, value) for name, _, value in pairs),
        )
        if value.strip(",")
    )


def _of_fields(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(text):
        found = _FIELD.match(text, at)
        if found is None:
            raise ValueError(f"is no connection string: {_ENCODE}")
        yield found[1], re.sub(r"\\(.)", r"\1", found[2] or found[3] or "", flags=re.DOTALL)
        at = found.end()


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _wrong(alias: str, message: str, remedy: str) -> SourceError:
    return SourceError("", "", [Problem(0, f"source.attach.{alias}.dsn_env", message, remedy)])
