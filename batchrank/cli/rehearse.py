"""
`batchrank rehearse`: the whole job against the embedded server.

Needs no key, and leaves with the exit code of the run.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, overrides
from batchrank.cli.saying import say
from batchrank.cli.watching import logged, watched


@logged()
def rehearse(
    job: JobFile,
    variables: Variables = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N groups.")] = None,
    latency: Annotated[
        str | None, typer.Option(help='Of the server, in seconds: "0.15", "0.1..0.3".')
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help='Of the first way, as in `serve`: "429:0.01", "529@17,40".'),
    ] = None,
    as_json: AsJson = False,
) -> int:
    """
    Run the whole job against the embedded server, one for each way: no key, no cost, the job's own
    limits and prices.

    Output and state go to a folder of their own, made anew each time.
    """
    from batchrank.job import load
    from batchrank.operate.rehearse import rehearse as rehearse_job

    loaded = load(job, overrides(variables), with_key=False)
    dials = {"latency": latency} if latency else {}
    faults = fault or ()
    with watched() as listener:
        done = rehearse_job(loaded, dials, faults=faults, limit=limit, listeners=[listener])
    data = {"summary": done.summary.as_data(), "servers": done.servers}
    say(json.dumps(data, ensure_ascii=False) if as_json else done.as_text())
    return done.summary.exit_code
