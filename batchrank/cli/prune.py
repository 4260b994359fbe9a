"""
`batchrank prune`: free the room that a finished output's ledger takes.

What may be deleted, and when, is decided in `operate`.
"""

from __future__ import annotations

from batchrank.cli.arguments import JobFile, Variables, overrides
from batchrank.cli.saying import say


def prune(job: JobFile, variables: Variables = None) -> None:
    """
    Delete the scores of a finished output from its ledger; the parts stay, and so do the calls.

    Afterwards a damaged part cannot be rendered again, the layout cannot change, and rejects cannot
    be retried.
    """
    from batchrank.job import load
    from batchrank.operate.prune import prune as prune_job

    say(prune_job(load(job, overrides(variables), with_key=False)).as_text())
