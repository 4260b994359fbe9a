"""
An S3 store for tests, seen from outside: buckets, objects and unfinished uploads over plain HTTP.

Owns the server's process and a reading view that shares nothing with pyarrow, so that what one
wrote the other can prove. The view also puts objects: a test's input, or another writer's.
Never signs: moto believes whoever names a key.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote
from uuid import uuid4
from xml.etree import ElementTree

import httpx

REGION = "us-east-1"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
CLAIM = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/20260101/{REGION}/s3/aws4_request"
XMLNS = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class Bucket:
    """
    One bucket, as its objects are in the store at this moment.
    """

    name: str
    http: httpx.Client = field(repr=False)

    def keys(self, prefix: str = "", page: int = 1000) -> dict[str, int]:
        """
        All objects under *prefix* with their sizes in bytes, asked for by *page* keys at once.
        """
        return {
            _text(each, "Key"): int(_text(each, "Size"))
            for listed in self._pages(prefix, page)
            for each in listed.iter(f"{XMLNS}Contents")
        }

    def digests(self, prefix: str = "") -> dict[str, str]:
        """
        The same objects, each with what the store calls its content: its ETag.
        """
        return {
            _text(each, "Key"): _text(each, "ETag")
            for listed in self._pages(prefix, 1000)
            for each in listed.iter(f"{XMLNS}Contents")
        }

    def uploads(self) -> list[str]:
        """
        The keys of multipart uploads that were begun and neither completed nor aborted.
        """
        page = self._xml({"uploads": ""})
        return [_text(each, "Key") for each in page.iter(f"{XMLNS}Upload")]

    def read(self, key: str) -> bytes:
        """
        An object's bytes; `KeyError` if there is no such object.
        """
        got = self.http.get(self._path(key))
        if got.status_code == httpx.codes.NOT_FOUND:
            raise KeyError(key)
        return got.raise_for_status().content

    def write(self, key: str, content: bytes) -> None:
        """
        Put an object, whatever was there.
        """
        self.http.put(self._path(key), content=content).raise_for_status()

    def delete(self, key: str) -> None:
        """
        Take an object away, if it is there.
        """
        self.http.delete(self._path(key)).raise_for_status()

    def _pages(self, prefix: str, keys: int) -> Iterator[ElementTree.Element]:
        asked = {"list-type": "2", "prefix": prefix, "max-keys": str(keys)}
        while True:
            page = self._xml(asked)
            yield page
            if _text(page, "IsTruncated") != "true":
                return
            asked["continuation-token"] = _text(page, "NextContinuationToken")

    def _xml(self, asked: Mapping[str, str]) -> ElementTree.Element:
        got = self.http.get(f"/{self.name}", params=asked).raise_for_status()
        return ElementTree.fromstring(got.content)

    def _path(self, key: str) -> str:
        return f"/{self.name}/{quote(key, safe='/')}"


@dataclass(frozen=True)
class S3Store:
    """
    A running store, empty but for the buckets that tests made.
    """

    url: str
    http: httpx.Client = field(repr=False)

    def bucket(self) -> Bucket:
        """
        A new empty bucket under a name that nobody had before.
        """
        bucket = Bucket(f"test-{uuid4().hex}", self.http)
        self.http.put(f"/{bucket.name}").raise_for_status()
        return bucket


def environ(url: str) -> dict[str, str]:
    """
    What a process needs in its environment to work with the store at *url*, and with no other.
    """
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def running() -> Iterator[S3Store]:
    """
    A store in a process of its own, until the block ends or this process does.
    """
    command = [sys.executable, "-m", "tests.stores.s3_server"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        with closing(process.stdin):  # at its end the server leaves
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            with httpx.Client(
                base_url=url, headers={"Authorization": CLAIM}, trust_env=False, timeout=30
            ) as http:
                yield S3Store(url, http)


def _text(parent: ElementTree.Element, name: str) -> str:
    return parent.findtext(f"{XMLNS}{name}") or ""
