"""
Addresses in object stores: `s3://bucket/key`, `gs://bucket/key`, `abfss://container@account/key`.

Owns which of them are taken. A key is what stands there, letter by letter: nothing is decoded, so
that a value written as `%2F` stays one name. Pure: contacts nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SCHEMES = ("s3", "gs", "abfss")

_OTHERS = {
    "s3a": "s3",
    "s3n": "s3",
    "gcs": "gs",
    "abfs": "abfss",
    "az": "abfss",
    "adl": "abfss",
    "wasb": "abfss",
    "wasbs": "abfss",
}
"""What other tools call them."""

_ONE_SLASH = re.compile(rf"({'|'.join((*SCHEMES, *_OTHERS))}):/", re.IGNORECASE)

_EXAMPLES = {
    "s3": "s3://bucket/folder",
    "gs": "gs://bucket/folder",
    "abfss": "abfss://container@account.dfs.core.windows.net/folder",
}

_DOMAIN = "dfs.core.windows.net"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONTAINER = re.compile(r"([a-z0-9$][a-z0-9-]*)@([a-z0-9]+)(\.(dfs|blob)(\.[a-z0-9-]+)+)?")


@dataclass(frozen=True, slots=True, order=True)
class Uri:
    """
    An object, or a prefix that stands for a folder.

    *key* has no slash at either end and is "" for the whole of a bucket.
    """

    scheme: str
    authority: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}/{self.key}"

    @property
    def bucket(self) -> str:
        """
        The bucket, or Azure's container.
        """
        return self.authority.partition("@")[0]

    @property
    def account(self) -> str:
        """
        Azure's storage account; "" elsewhere.
        """
        return self.authority.partition("@")[2].partition(".")[0]

    @property
    def cloud(self) -> str:
        """
        The domain of Azure's cloud, as in "core.windows.net"; "" elsewhere.
        """
        return self.authority.partition("@")[2].partition(".")[2].partition(".")[2]

    @property
    def path(self) -> str:
        """
        What pyarrow calls it: bucket and key.
        """
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def segments(self) -> tuple[str, ...]:
        """
        The names in the key.
        """
        return tuple(self.key.split("/")) if self.key else ()

    def of(self, segments: tuple[str, ...]) -> Uri:
        """
        Another key in the same bucket.
        """
        return replace(self, key="/".join(segments))


def is_uri(path: str) -> bool:
    """
    Tell whether *path* means a store and not a folder of this machine; with a slash too few, too.
    """
    return "://" in path or _ONE_SLASH.match(path) is not None


def parsed(path: str) -> Uri:
    """
    The address that *path* is.

    Raises:
        ValueError: it is none, with a remedy behind a bar: "message|remedy".
    """
    scheme, slashes, rest = path.partition("://")
    if not slashes:
        raise ValueError(f"{path} lacks a slash|write it as {path.replace(':/', '://', 1)}")
    if scheme not in SCHEMES:
        known = _OTHERS.get(scheme.lower())
        remedy = f"write {known}://" if known else f"one of {', '.join(_EXAMPLES.values())}"
        raise ValueError(f"{scheme}:// is no store that is known|{remedy}")
    authority, _, key = rest.partition("/")
    form = _CONTAINER if scheme == "abfss" else _BUCKET
    if not form.fullmatch(authority):
        raise ValueError(f"{path} names no bucket|write it as {_EXAMPLES[scheme]}")
    if key.startswith("/"):
        raise ValueError(f"{path} has an empty name between slashes|write the key itself")
    key = key.rstrip("/")
    if key and any(part in {"", ".", ".."} for part in key.split("/")):
        raise ValueError(f"{path} has an empty name or dots between slashes|write the key itself")
    return Uri(scheme, _whole(authority) if scheme == "abfss" else authority, key)


def _whole(authority: str) -> str:
    """
    Azure's *authority* with the domain, so that a place has one name: the endpoint for blobs leads
    to the same container.
    """
    account, _, domain = authority.partition(".")
    service, _, cloud = (domain or _DOMAIN).partition(".")
    return f"{account}.{'dfs' if service == 'blob' else service}.{cloud}"
