"""
`batchrank plan`: what a job would do and cost.

Calls nobody and needs no key, unless it is to ask the provider what that tells for nothing; then it
leaves with 3 where the provider would not do the job.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say
from batchrank.errors import Exit


def plan(
    job: JobFile,
    variables: Variables = None,
    full: Annotated[
        bool, typer.Option("--full", help="Look at every text, however long that takes.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Ask the provider what it tells for nothing: of the key, the model."
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """
    Say what a job would do and cost, before anything is paid.

    Reads the footers in full and samples texts for at most 20 seconds. Calls nobody and needs no
    key, but for --check, which pays nothing either.
    """
    from batchrank.examine.plan import plan as examine
    from batchrank.job import load

    loaded = load(job, overrides(variables), with_key=check)
    found = examine(loaded, full=full, check=check)
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
    return Exit.PERSON if found.refused else Exit.DONE
