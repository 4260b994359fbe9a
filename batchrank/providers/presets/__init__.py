"""
Vendors that are described rather than coded: each a file of data for the adapter `compatible`.

Owns which of them there are. What a vendor's documents do not tell stands in no file as if it were
known: it is among the vendor's `unknown`, and a job file can set it.
"""

from __future__ import annotations

from batchrank.providers.base import Vendor
from batchrank.providers.presets.cohere import COHERE

PRESETS: tuple[Vendor, ...] = (COHERE,)
"""In the order in which people look for them: vendors, then servers of one's own, then anybody."""
