"""
Vendors, one small file each: translation only.

A provider turns a request into the HTTP call that its vendor understands, and the vendor's reply
into scores or a classed failure. Its limits, prices and what decides a score are data. It never
sends, waits, retries or sees a key. This module owns the list of vendors.
"""

from __future__ import annotations

from batchrank.providers.base import Vendor
from batchrank.providers.openrouter import OPENROUTER
from batchrank.providers.presets import PRESETS

VENDORS: dict[str, Vendor] = {vendor.name: vendor for vendor in (OPENROUTER, *PRESETS)}
"""Every vendor by the name that a job file calls it."""

__all__ = ["OPENROUTER", "VENDORS", "Vendor"]
