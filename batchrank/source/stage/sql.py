"""
Names and texts as SQL writes them, so that nothing in them means anything else.

Knows nothing of what they are names of.
"""

from __future__ import annotations

from collections.abc import Iterable


def quoted(name: str) -> str:
    """
    *name* as an identifier.
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """
    *text* as a string.
    """
    return "'" + text.replace("'", "''") + "'"


def literals(texts: Iterable[str]) -> str:
    """
    A list of strings.
    """
    return f"[{', '.join(map(literal, texts))}]"
