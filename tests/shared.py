"""
Find what lies beside the repository for tests: the vendors' contracts, and real data.

A clone without that folder still works: a test that needs it is skipped with a reason, but fails
where `CI` is set, because there it must be.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


def contract(name: str) -> dict[str, Any]:
    """
    The vendor's own specification called *name*, such as `openrouter-rerank.openapi.json`.
    """
    read: dict[str, Any] = json.loads(_there(SHARED / "contracts" / name).read_text("utf-8"))
    return read


def data(name: str) -> Path:
    """
    The data set called *name*, such as `scifact`.
    """
    return _there(SHARED / "data" / name)


def _there(path: Path) -> Path:
    if path.exists():
        return path
    reason = f"{path.relative_to(SHARED.parent)} does not lie beside the repository"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
