"""
Connection strings of PostgreSQL are taken apart for sure, or refused without a word of them.
"""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.errors import NotReady, SourceError
from batchrank.source.stage.postgres import refusal, way_to
from tests.laws import law

WAYS = [
    (
        "postgresql://me:p%40ss%2Fw@db.internal:6543/shop?sslmode=require",
        "user='me' host='db.internal' port='6543' dbname='shop' sslmode='require'",
        "p@ss/w",
    ),
    ("postgres://db", "host='db'", ""),
    ("postgresql:///shop", "dbname='shop'", ""),
    ("postgresql://", "", ""),
    ("postgresql://me@/shop?host=%2Fvar%2Frun", "user='me' dbname='shop' host='/var/run'", ""),
    ("postgres://a:1,b:2/shop?user=me", "host='a,b' port='1,2' dbname='shop' user='me'", ""),
    ("postgres://[::1]:5432/shop", "host='::1' port='5432' dbname='shop'", ""),
    ("postgres://me@db/?password=x", "user='me' host='db'", "x"),
    ("host=db user=me password=x", "host='db' user='me'", "x"),
    (r"host = 'd b' password='it\'s \\' user=a\ b", "host='d b' user='a b'", "it's \\"),
    ("password='' dbname=shop", "dbname='shop'", ""),
    (" service=nightly\n", "service='nightly'", ""),
    ("user=o'neil", r"user='o\'neil'", ""),
]


@pytest.mark.parametrize(("text", "target", "password"), WAYS, ids=[way[0] for way in WAYS])
def test_the_password_goes_apart(text: str, target: str, password: str) -> None:
    """
    Everything else is written as libpq reads it.
    """
    environ = {"SHOP": text, "PGCONNECT_TIMEOUT": "3"}

    assert (target, password) == way_to("shop", "SHOP", environ)


def test_nobody_waits_for_minutes() -> None:
    """
    Unless somebody says for how long; without a variable libpq looks for everything itself.
    """
    assert ("connect_timeout='10'", "") == way_to("shop", None, {})
    assert ("", "") == way_to("shop", None, {"PGCONNECT_TIMEOUT": "60"})
    assert ("connect_timeout='2'", "") == way_to("shop", "S", {"S": "connect_timeout=2"})


@pytest.mark.parametrize(
    "text",
    [
        "postgres://me:canary@x@db/shop",
        "postgres://me:canary/x@db/shop",
        "postgres://me:12/canary@db/shop",
        "postgres://me:12?canary@db/shop",
        "postgres://me:canary?x@db/shop",
        "postgres://me:canary#x@db:y/shop",
        "postgres://me:%ffcanary@db/shop",
        "postgres://me@db/shop?canary",
        "postgres://me@db/shop?canary=1",
        "postgres://me@db/shop?sslpassword=canary",
        "mysql://me:canary@db/shop",
        "password=x canary host=db",
        "password=x canary=y host=db",
        "password='canary",
        "password='canary'x",
        "password = = canary",
        "canary",
    ],
)
def test_what_is_not_sound_is_refused_and_not_repeated(text: str) -> None:
    """
    A part of a password would stand where libpq looks for something else, and be in its messages.
    """
    with pytest.raises(SourceError) as raised:
        way_to("shop", "SHOP", {"SHOP": text})

    assert "source.attach.shop.dsn_env: what SHOP holds" in str(raised.value)
    assert "canary" not in f"{raised.value}{raised.value.hint}"
    assert raised.value.__suppress_context__


def test_a_variable_that_is_not_set_is_told() -> None:
    """
    With what it should hold.
    """
    for environ in ({}, {"SHOP": " "}):
        with pytest.raises(SourceError, match="the environment variable SHOP is not set") as raised:
            way_to("shop", "SHOP", environ)
    assert "export SHOP=postgresql://USER:PASSWORD@HOST/DATABASE" in str(raised.value)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@law(200)
@given(password=texts, user=texts, database=texts)
def test_whatever_is_in_a_password_both_forms_say_the_same(
    password: str, user: str, database: str
) -> None:
    """
    Percent-encoded in a URL, escaped in quotes.
    """
    url = f"postgres://{quote(user, '')}:{quote(password, '')}@db/{quote(database, '')}"
    held = {"user": user, "password": password, "host": "db", "dbname": database}
    escaped = {k: v.replace("\\", "\\\\").replace("'", "\\'") for k, v in held.items()}
    fields = " ".join(f"{name}='{value}'" for name, value in escaped.items())

    by_url, by_fields = (way_to("s", "S", {"S": text}) for text in (url, fields))

    assert by_url == by_fields
    assert by_url[1] == password
    assert by_url[0] == (
        f"user='{escaped['user']}' host='db' dbname='{escaped['dbname']}' connect_timeout='10'"
    )


def test_what_is_away_comes_back_and_what_is_refused_does_not() -> None:
    """
    Exit 75 or 2; said as libpq says it.
    """
    start = "IO Error: Unable to connect to Postgres at \"host='db'\": connection to server at "
    away = refusal("shop", f'{start}"db" (10.0.0.1), port 5432 failed: Connection refused\n\tIs')
    refused = refusal("shop", f'{start}"db" failed: FATAL:  database "x" does not exist\n')

    assert isinstance(away, NotReady)
    assert isinstance(refused, SourceError)
    assert '"db" (10.0.0.1), port 5432 failed: Connection refused\n  →' in str(away)
    assert 'source.attach.shop: PostgreSQL refuses: connection to server at "db"' in str(refused)
    assert 'database "x" does not exist' in str(refused)
