"""
The embedded rerank server: a real HTTP server, compatible with OpenRouter's specification.

It has dials for latency, limits and everything that can go wrong, and keeps a bill for every key of
what the real service would have charged. `dials` says what can be set, `desk` decides, `app` and
`server` do. It scores with whatever it is given, and never calls anybody itself.
"""

from batchrank.rehearsal.dials import Dials, turned
from batchrank.rehearsal.faults import Fault, FaultRule
from batchrank.rehearsal.scorers import Score, hashed_scores
from batchrank.rehearsal.server import run, serve

__all__ = [
    "Dials",
    "Fault",
    "FaultRule",
    "Score",
    "hashed_scores",
    "run",
    "serve",
    "turned",
]
