"""
`batchrank plan`: what a job would do and cost.

Calls nobody and needs no key.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say


def plan(
    job: JobFile,
    variables: Variables = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at every text, however long that takes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """
    Say what a job would do and cost, before anything is paid.

    Reads the footers in full and samples texts for at most 20 seconds. Calls nobody; needs no key.
    """
    from batchrank.examine.plan import plan as examine
    from batchrank.job import load

    found = examine(load(job, overrides(variables), with_key=False), full=full)
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
