"""
Addresses in object stores: which are taken, and that a key stays what it is.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrank.places.uri import Uri, is_uri, parsed
from tests.laws import law

NAMES = st.text(st.characters(blacklist_characters="/", codec="utf-8"), min_size=1).filter(
    lambda name: name not in (".", "..")
)


@pytest.mark.parametrize(
    ("address", "scheme", "bucket", "account", "key"),
    [
        ("s3://lake/out/dt=2026-11-18", "s3", "lake", "", "out/dt=2026-11-18"),
        ("s3://lake/out/", "s3", "lake", "", "out"),
        ("s3://lake", "s3", "lake", "", ""),
        ("gs://my.lake_1/a b/%2F#?.parquet", "gs", "my.lake_1", "", "a b/%2F#?.parquet"),
        ("abfss://box@acct.dfs.core.windows.net/x/y", "abfss", "box", "acct", "x/y"),
        ("abfss://box@acct/x", "abfss", "box", "acct", "x"),
        ("abfss://box@acct.dfs.core.chinacloudapi.cn/x", "abfss", "box", "acct", "x"),
    ],
)
def test_an_address_says_store_and_key(
    address: str, scheme: str, bucket: str, account: str, key: str
) -> None:
    """
    Nothing in a key is decoded.
    """
    uri = parsed(address)

    assert (scheme, bucket, account, key) == (uri.scheme, uri.bucket, uri.account, uri.key)
    assert f"{bucket}/{key}".rstrip("/") == uri.path


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s3a://lake/out", "write s3://"),
        ("gcs://lake/out", "write gs://"),
        ("az://box/out", "write abfss://"),
        ("hdfs://host/out", "s3://bucket/folder"),
        ("://lake", "s3://bucket/folder"),
        ("s3:///out", "s3://bucket/folder"),
        ("s3://user:secret@lake/out", "s3://bucket/folder"),
        ("abfss://box/out", "abfss://container@account"),
        ("s3://lake/a//b", "write the key itself"),
        ("s3://lake//a", "write the key itself"),
        ("s3:/lake/a", "write it as s3://lake/a"),
        ("S3A:/lake/a", "write it as S3A://lake/a"),
        ("abfss://box@acct.example.com/x", "abfss://container@account"),
        ("s3://lake/a/../b", "write the key itself"),
        ("s3://lake/./b", "write the key itself"),
    ],
)
def test_an_address_of_no_store_is_refused_with_a_remedy(address: str, words: str) -> None:
    """
    Those of other tools are told how we call them.
    """
    with pytest.raises(ValueError, match=r"\|") as raised:
        parsed(address)

    assert words in str(raised.value).partition("|")[2]


def test_a_container_has_one_name() -> None:
    """
    Whatever of its domain is written: an output that lies in a source is seen as that.
    """
    long = parsed("abfss://box@acct.dfs.core.windows.net/x")

    assert long == parsed("abfss://box@acct/x")
    assert long == parsed("abfss://box@acct.blob.core.windows.net/x")
    assert long != parsed("abfss://box@acct.dfs.core.chinacloudapi.cn/x")
    assert "core.windows.net" == long.cloud


def test_a_slash_too_few_makes_no_folder_of_this_machine() -> None:
    """
    Scores would lie in a folder that is called `s3:`.
    """
    assert is_uri("s3:/lake/out")
    assert is_uri("gs:/lake/out")
    assert not is_uri("out/s3:/lake")
    assert not is_uri("C:/out")


@law(100)
@given(st.lists(NAMES, min_size=1))
def test_a_key_is_read_as_it_was_written(names: list[str]) -> None:
    """
    Whatever stands between the slashes.
    """
    uri = Uri("s3", "lake", "/".join(names))

    assert is_uri(str(uri))
    assert uri == parsed(str(uri))
    assert tuple(names) == uri.segments
    assert uri == uri.of(uri.segments)
