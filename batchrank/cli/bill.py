"""
`batchrank bill`: what was paid, and for what.

What counts, and how it is told apart, is decided in `examine`.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from batchrank.cli.arguments import AsJson, Variables, overrides
from batchrank.cli.saying import say


def bill(
    jobs: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB...",
            help="Job files, patterns of them ('jobs/*.toml'), or folders of states (.batchrank).",
        ),
    ],
    variables: Variables = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="KEYS",
            help="Tell calls apart by some of day, month, job, state, provider, model, route,"
            " label.NAME, with commas between them.",
        ),
    ] = "",
    since: Annotated[
        datetime | None,
        typer.Option(metavar="DAY", formats=["%Y-%m-%d"], help="From this day on (UTC)."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(metavar="DAY", formats=["%Y-%m-%d"], help="To this day, included (UTC)."),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option("--csv", metavar="FILE", help="Write the rows as CSV; - prints them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the CSV file.")] = False,
    as_json: AsJson = False,
) -> int:
    """
    Account for what was paid: calls, units, tokens, cost; what retries cost, what reuse saved.

    Reads ledgers alone, also while a job runs. A JOB with a date in its paths is that of one day:
    name the folder of its states to have all days.

    Leaves with 4 if a ledger could not be read: the others are summed all the same.
    """
    from batchrank.examine.bill import Days, write_csv
    from batchrank.examine.bill import bill as examine

    if csv == "-" and as_json:
        raise typer.BadParameter("standard output has JSON already", param_hint="--csv")
    days = Days(since.date() if since else None, until.date() if until else None)
    keys = [key.strip() for key in by.split(",") if key.strip()]
    found = examine(jobs, overrides(variables), by=keys, days=days)
    if csv == "-":
        say(found.as_csv(), end="")
        for unread in found.unread:
            say(f"not in this bill: {unread}", sys.stderr)
        return found.exit_code
    if csv is not None:
        write_csv(found, Path(csv), force=force)
    say(json.dumps(found.as_data(), ensure_ascii=False) if as_json else found.as_text())
    return found.exit_code
