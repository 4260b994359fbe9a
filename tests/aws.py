"""
AWS's side of a signature: what a server makes of the bytes that it was sent.

Written after AWS's "Create a signed AWS API request", so that it shares nothing with the signer
that is tested. `test_aws_key` holds it against AWS's own published example.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/(?P<service>[^/]+)"
    r"/aws4_request, SignedHeaders=(?P<signed>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)


def signed_rightly(
    line: str, headers: Mapping[str, str], body: bytes, secret: str, scope: tuple[str, str]
) -> bool:
    """
    Tell whether a request (its first line, headers with names in lower case) has the signature of
    whoever holds *secret*, for a region and a service.
    """
    told = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if told is None or (told["region"], told["service"]) != scope:
        return False
    signed = told["signed"].split(";")
    # What is not signed could be changed on the way: the host, and whatever is AWS's own.
    if not {"host", "x-amz-date", *(n for n in headers if n.startswith("x-amz-"))} <= set(signed):
        return False
    method, target, _ = line.split(" ")
    parts = urlsplit(target)
    canonical = "\n".join(
        (
            method,
            quote(parts.path or "/", safe="/~-._"),  # once more than it is on the wire
            "&".join("=".join(pair) for pair in sorted(_pairs(parts.query))),
            *(f"{name}:{' '.join(headers[name].split())}" for name in signed),
            "",
            told["signed"],
            hashlib.sha256(body).hexdigest(),
        )
    )
    day, region, service = told["day"], told["region"], told["service"]
    to_sign = "\n".join(
        (
            "AWS4-HMAC-SHA256",
            headers["x-amz-date"],
            f"{day}/{region}/{service}/aws4_request",
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    key = f"AWS4{secret}".encode()
    for step in (day, region, service, "aws4_request", to_sign):
        key = hmac.digest(key, step.encode(), "sha256")
    return headers["x-amz-date"].startswith(day) and key.hex() == told["signature"]


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return [(name, value) for name, _, value in pairs]
