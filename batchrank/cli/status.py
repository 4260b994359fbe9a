"""
`batchrank status`: how far a job is.

Reads the ledger alone, also while the job runs.
"""

from __future__ import annotations

import json

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say


def status(job: JobFile, variables: Variables = None, as_json: AsJson = False) -> None:
    """
    Say how far a job is, how fast, and what it cost; also while it runs.
    """
    from batchrank.examine.status import status as examine
    from batchrank.job import load

    found = examine(load(job, overrides(variables), with_key=False))
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
