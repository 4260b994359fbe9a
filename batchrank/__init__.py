"""
batchrank reranks millions of query-candidate groups through paid rerank APIs.

This module owns the public names: `run` does from Python what the command `batchrank run` does.
It holds no logic of its own and imports the machinery only when asked, so that `import batchrank`
and `batchrank --help` stay quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchrank.job import run
    from batchrank.observe.report import Summary

__all__ = ["Summary", "__version__", "run"]

__version__ = "0.1.0"

_HOMES = {"run": "batchrank.job", "Summary": "batchrank.observe.report"}


def __getattr__(name: str) -> Any:
    """
    Import a public name from its home when it is first asked for.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'batchrank' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
