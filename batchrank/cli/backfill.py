"""
`batchrank backfill`: one job for many days.

Leaves with one exit code for all of them; what each day's end means is decided in `operate`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, JobFile, Variables, Yes, overrides
from batchrank.cli.asking import agreement
from batchrank.cli.saying import say
from batchrank.cli.watching import logged, watched


@logged()
def backfill(
    job: JobFile,
    first: Annotated[
        datetime,
        typer.Option("--from", metavar="DAY", formats=["%Y-%m-%d"], help="The first day."),
    ],
    last: Annotated[
        datetime,
        typer.Option("--to", metavar="DAY", formats=["%Y-%m-%d"], help="The last day, included."),
    ],
    variables: Variables = None,
    variable: Annotated[
        str, typer.Option(metavar="NAME", help="The variable of the job file that is the day.")
    ] = "date",
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Begin with the last day.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell how each day is; nobody is called.")
    ] = False,
    calls_max: Annotated[
        int | None,
        typer.Option(
            "--max-calls",
            metavar="N",
            min=1,
            help="Stop (exit 3) after N calls for all days together, failed ones included.",
        ),
    ] = None,
    keep_going: Annotated[
        bool,
        typer.Option(
            "--keep-going", help="Go on also after a day that stopped and needs a person (exit 3)."
        ),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> int:
    """
    Run a job for every day that has no _SUCCESS yet, one day after the other.

    All days share the limits of the job file as if they were one run; budget.cost_usd_max is for
    each day's output, as ever. What they may cost together is asked about once, before the first
    (budget.confirm_usd). A day whose source is missing or damaged is told, and the others go
    on; a refused key, spent credit, a full disk, a signal, the deadline, and another process that
    is at a day stop all. Run it again to carry on: finished days are left alone, and told if files
    have come to their source since.

    The exit code is that of what stopped all days, else the severest: 3, 2, 1, then 75.
    """
    from batchrank.operate import backfill as days

    those = days.dated(
        job,
        days.days(first.date(), last.date(), newest_first=newest_first),
        variable=variable,
        overrides=overrides(variables),
        with_key=not dry_run,
    )
    if dry_run:
        found = days.listing(those)
        say(found.as_json() if as_json else found.as_text())
        return 0
    agreed = agreement(days.to_do(those), yes=yes)
    done = days.backfill(
        those, listening=watched, calls_max=calls_max, keep_going=keep_going, consent=agreed
    )
    say(done.as_json() if as_json else done.as_text())
    if done.bug:
        raise done.bug
    return done.exit_code
