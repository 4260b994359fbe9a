"""
`batchrank run`: run a job, or carry on where it stopped.

Leaves with the exit code that the summary tells.
"""

from __future__ import annotations

from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, Yes, overrides
from batchrank.cli.saying import say
from batchrank.cli.watching import logged, watched


@logged()
def run(
    job: JobFile,
    variables: Variables = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first N groups; later the rest.")
    ] = None,
    retry_rejects: Annotated[
        bool, typer.Option("--retry-rejects", help="Ask about rejected groups again.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Take this source file although it was mended."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Set the old output aside and begin anew.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """
    Run a job, or carry on where it stopped.

    A finished job makes no call. SIGINT and SIGTERM stop it in good order; run it again to carry
    on. Where what is left may cost more than budget.confirm_usd it asks on a terminal, and leaves
    with 3 without one, unless --yes.
    """
    from batchrank.cli.asking import asking
    from batchrank.job import load
    from batchrank.job import run as run_job

    loaded = load(job, overrides(variables))
    with watched() as listener:
        summary = run_job(
            loaded,
            limit=limit,
            retry_rejects=retry_rejects,
            accept=accept or (),
            restart=restart,
            consent=asking(listener, yes=yes),
            listeners=[listener],
        )
    say(summary.as_json() if as_json else summary.as_text())
    return summary.exit_code
