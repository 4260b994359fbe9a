"""
`batchrank plan`: what a job would do and cost.

Calls nobody and needs no key, unless it is to ask the provider what that tells for nothing, or told
to pay for a sample; leaves with 3 where the provider would not do the job.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, Yes, overrides
from batchrank.cli.saying import say
from batchrank.errors import Exit

if TYPE_CHECKING:
    from batchrank.job import Job


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
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="PAY for N groups at random places, and say what their bills teach about the"
            " rest. Their scores are kept: a run does not ask again.",
        ),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """
    Say what a job would do and cost, before anything is paid.

    Reads the footers in full and samples texts for at most 20 seconds. Calls nobody and needs no
    key, but for --check, which pays nothing, and for --sample: one that may cost more than
    budget.confirm_usd asks first, as `run` does.
    """
    from batchrank.examine.plan import plan as examine
    from batchrank.job import load

    loaded = load(job, overrides(variables), with_key=check or sample is not None)
    exit_code = _ask(loaded, sample, yes=yes) if sample else Exit.DONE
    found = examine(loaded, full=full, check=check, sample=sample or 0)
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
    return Exit.PERSON if found.refused else exit_code


def _ask(job: Job, groups: int, *, yes: bool) -> int:
    """
    Run the job for a sample; returns the exit code. How it went is told where runs are watched.
    """
    from batchrank.cli.asking import asking
    from batchrank.cli.watching import watched
    from batchrank.errors import JobError, Problem
    from batchrank.job import run

    if not job.asks_somebody:
        problem = Problem(0, "--sample", "nobody has to be paid: it is scored in process")
        raise JobError(str(job.file), [problem], "plan it without")
    with watched() as listener:
        consent = asking(listener, yes=yes)
        summary = run(job, sample=groups, consent=consent, listeners=[listener])
    if summary.exit_code:
        say(summary.as_text(), sys.stderr)
    return summary.exit_code
