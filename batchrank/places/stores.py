"""
The file systems of pyarrow that stand for object stores, one for each store and settings.

Owns what is set and what is left to the stores' own tools: credentials are found as those find them
(variables, profiles, the machine's role) and never stand in a job file. Contacts nobody by itself.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrank.config.schema import StoresTable
from batchrank.places.uri import Uri

if TYPE_CHECKING:
    from pyarrow import fs

ATTEMPTS = 5
"""How often the AWS SDK tries a request that the store or the network failed."""

CONNECT_S_MAX, SILENCE_S_MAX = 10.0, 20.0
"""For a connection, and for the next byte; the SDK's own 1 and 3 seconds fail on busy days."""

PATIENCE = timedelta(seconds=30)
"""For so long Google's client does."""

AT_HOME = StoresTable()
"""No store is set up in any way of ours."""


def file_system(uri: Uri, stores: StoresTable) -> fs.FileSystem:
    """
    The file system that *uri* lies in.
    """
    if uri.scheme == "s3":
        endpoint = stores.s3.endpoint or _said("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        region = stores.s3.region or _said("AWS_REGION", "AWS_DEFAULT_REGION")
        return _s3(endpoint, region, stores.s3.anonymous)
    if uri.scheme == "gs":
        return _gs(stores.gs.endpoint or _said("STORAGE_EMULATOR_HOST"), stores.gs.anonymous)
    return _abfss(stores.abfss.endpoint, uri.account, uri.cloud)


@lru_cache
def _s3(endpoint: str | None, region: str | None, anonymous: bool) -> fs.FileSystem:
    from pyarrow import fs  # takes a while, and most jobs have no store

    return fs.S3FileSystem(
        anonymous=anonymous,
        region=region,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        request_timeout=SILENCE_S_MAX,
        connect_timeout=CONNECT_S_MAX,
        allow_delayed_open=True,  # a small object is one request, and leaves nothing behind
        tls_ca_file_path=_said("AWS_CA_BUNDLE", "SSL_CERT_FILE"),
        **_over(endpoint),
    )


@lru_cache
def _gs(endpoint: str | None, anonymous: bool) -> fs.FileSystem:
    from pyarrow import fs

    return fs.GcsFileSystem(anonymous=anonymous, retry_time_limit=PATIENCE, **_over(endpoint))


@lru_cache
def _abfss(endpoint: str | None, account: str, cloud: str) -> fs.FileSystem:
    from pyarrow import fs

    given: dict[str, str] = {}  # pyarrow takes a key or a token, never both
    if key := _said("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"):
        given["account_key"] = key
    elif token := _said("AZURE_STORAGE_SAS_TOKEN"):
        given["sas_token"] = token
    given |= {f"{service}_storage_authority": f".{service}.{cloud}" for service in ("blob", "dfs")}
    if endpoint:
        at = urlsplit(endpoint)
        given |= {"blob_storage_authority": at.netloc, "blob_storage_scheme": at.scheme}
        given |= {"dfs_storage_authority": at.netloc, "dfs_storage_scheme": at.scheme}
    return fs.AzureFileSystem(account, **given)


def _over(endpoint: str | None) -> dict[str, Any]:
    """
    Another address than the vendor's own.
    """
    if not endpoint:
        return {}
    at = urlsplit(endpoint)
    return {"endpoint_override": at.netloc + at.path.rstrip("/"), "scheme": at.scheme}


def _said(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)
