"""
Whom we trust: the authorities of this machine, or those that `SSL_CERT_FILE` names.

Owns the choice, and the check that what the settings name holds certificates at all. Verifies no
certificate itself.
"""

from __future__ import annotations

import errno
import os
import ssl
from pathlib import Path

import certifi
import httpx

from batchrank.wire.failures import OutOfSockets, TlsNotVerified
from batchrank.wire.translating import named


def authorities() -> bytes:
    """
    Certificates (PEM) to trust beside those that the carrier finds by itself.

    The carrier reads the system's store, or `SSL_CERT_FILE` and `SSL_CERT_DIR` instead where they
    are set. Without such settings Mozilla's authorities are added: a container often has no store.

    Raises:
        TlsNotVerified: `SSL_CERT_FILE` holds no certificates. Falling back to other authorities
            would be a downgrade that nobody asked for.
        OutOfSockets: it cannot be opened, nor can anything else.
    """
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle:
        return _checked(bundle)
    return b"" if os.environ.get("SSL_CERT_DIR") else mozilla()


def mozilla() -> bytes:
    """
    Mozilla's authorities (PEM).

    Raises:
        TlsNotVerified, OutOfSockets: they cannot be read.
    """
    try:
        return Path(certifi.where()).read_bytes()
    except OSError as error:
        raise _unreadable(error, "certifi") from None


def _checked(bundle: str) -> bytes:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
        return Path(bundle).read_bytes()
    except OSError as error:
        raise _unreadable(error, "SSL_CERT_FILE") from None


def _unreadable(error: OSError, where: str) -> httpx.ConnectError:
    kind = OutOfSockets if error.errno in (errno.EMFILE, errno.ENFILE) else TlsNotVerified
    return kind(f"the certificates of {where} cannot be read{named(error)}")
