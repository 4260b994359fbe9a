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


def rehearse(
    job: JobFile,
    variables: Variables = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N groups.")] = None,
    latency: Annotated[
        str | None, typer.Option(help='Of the server, in seconds: "0.15", "0.1..0.3".')
    ] = None,
    fault: Annotated[
        list[str] | None, typer.Option(help='As in `serve`: "429:0.01", "529@17,40".')
    ] = None,
    as_json: AsJson = False,
) -> int:
    """
    Run the whole job against the embedded server: no key, no cost, the job's own limits and price.

    Output and state go to a folder of their own, made anew each time.
    """
    from batchrank.cli.watching import watched
    from batchrank.job import load
    from batchrank.operate.rehearse import rehearse as rehearse_job

    loaded = load(job, overrides(variables), with_key=False)
    given = {"latency": latency, "faults": fault}
    dials = {name: value for name, value in given.items() if value}
    with watched() as listener:
        done = rehearse_job(loaded, dials, limit=limit, listeners=[listener])
    data = {"summary": done.summary.as_data(), "server": done.server}
    say(json.dumps(data, ensure_ascii=False) if as_json else done.as_text())
    return done.summary.exit_code
