"""
Scorers that need no wire: they run in this process, without a key and for nothing.

Each meets the engine's scorer port by its shape alone. Nothing here knows what is underneath when a
vendor's API is asked instead.
"""

from batchrank.local.lexical import LexicalScorer, scores

__all__ = ["LexicalScorer", "scores"]
