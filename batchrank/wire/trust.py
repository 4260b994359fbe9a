"""
Whom we trust: the authorities of this machine and Mozilla's, or those that the settings name.

Owns the choice, the check that what the settings name holds certificates at all, and what of TLS is
spoken. Verifies no certificate itself.
"""

from __future__ import annotations

import errno
import os
import ssl
from contextlib import suppress
from pathlib import Path

import certifi

from batchrank.wire.failures import OutOfSockets, TlsNotVerified
from batchrank.wire.translating import named


def trusting() -> ssl.SSLContext:
    """
    TLS 1.2 and later, with the authorities that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. Without
    such settings, those of this machine and Mozilla's: a container often has none.

    Making it takes 20 ms.

    Raises:
        TlsNotVerified: the settings name no certificates. Falling back to other authorities would
            be a downgrade that nobody asked for.
        OutOfSockets: they cannot be opened, nor can anything else.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    bundle, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (bundle or folder):
        _load(context, certifi.where(), "certifi")
        context.load_default_certs()
        return context
    if bundle:
        _load(context, bundle, "SSL_CERT_FILE")
    if folder:
        _load_folder(context, folder)
    return context


def _load(context: ssl.SSLContext, bundle: str, where: str) -> None:
    try:
        context.load_verify_locations(bundle)
    except OSError as error:
        raise _unreadable(error, where) from None


def _load_folder(context: ssl.SSLContext, folder: str) -> None:
    """
    Trust every certificate in *folder*, however its file is called: OpenSSL alone would find only
    those that are named by their hashes.
    """
    try:
        files = sorted(Path(folder).iterdir())
    except OSError as error:
        raise _unreadable(error, "SSL_CERT_DIR") from None
    for file in files:
        with suppress(OSError):  # a README, or a link that leads nowhere
            context.load_verify_locations(file)
    if not context.get_ca_certs():
        raise TlsNotVerified("there are no certificates in SSL_CERT_DIR")


def _unreadable(error: OSError, where: str) -> OutOfSockets | TlsNotVerified:
    kind = OutOfSockets if error.errno in (errno.EMFILE, errno.ENFILE) else TlsNotVerified
    return kind(f"the certificates of {where} cannot be read{named(error)}")
