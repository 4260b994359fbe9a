"""
`batchrank verify`: proof that an output is whole.

Leaves with 1 if a check does not hold.
"""

from __future__ import annotations

import json

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say
from batchrank.errors import Exit


def verify(job: JobFile, variables: Variables = None, as_json: AsJson = False) -> int:
    """
    Prove the output: every group once, checksums, ranks, finite scores.

    Leaves with 0 if every check holds, else with 1.
    """
    from batchrank.examine.verify import verify as examine
    from batchrank.job import load

    found = examine(load(job, overrides(variables), with_key=False))
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
    return Exit.DONE if found.holds else Exit.REJECTS
