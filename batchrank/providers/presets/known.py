"""
What several presets say alike: where prices were seen, what a server of one's own needs.

Owns no vendor's facts.
"""

from __future__ import annotations

from typing import Final, TypedDict

from batchrank.domain import Price

AS_OF = "2026-11-20"
LITELLM = "LiteLLM 1.109.1's price map"

OWN_ADDRESS = 'say where your server is, as in base_url = "http://127.0.0.1:8080"'
OWN_BILLING = "none: it is your own"
CROSS_ENCODER = "inferred: it serves cross-encoders, which score one pair of texts at a time"
BEHIND = "depends on the model behind it: if that scores pairs independently, splits = true"


class OwnServer(TypedDict):
    """
    The part of a `Vendor` that is the same of every server of one's own.
    """

    base_url: str
    key_env: str
    address: str
    needs_key: bool
    bills: bool


OWN_SERVER: Final[OwnServer] = {
    "base_url": "",
    "key_env": "",
    "address": OWN_ADDRESS,
    "needs_key": False,
    "bills": False,
}


def a_unit(usd: float, source: str = LITELLM) -> Price:
    """
    A price for one search unit.
    """
    return Price(usd, None, AS_OF, source)


def a_million(usd: float, source: str = LITELLM) -> Price:
    """
    A price for a million tokens.
    """
    return Price(None, usd, AS_OF, source)
